"""No way in which a record may fail puts its contents into the log, /status or /metrics."""

import asyncio
import io
import json
import logging
from http import HTTPStatus

import pytest

from pipeline import config
from pipeline.log import RECENT, LogOptions, set_up
from pipeline.outputs.elasticsearch import Elasticsearch
from tests.fake_elasticsearch import CLOSED, Error, FakeElasticsearch, Status
from tests.test_app import app, until

SECRET = "hunter2"
PREVIEW = f"failed to parse field [n] of type [long] in document with id 'x'. Preview of field's value: '{SECRET}'"
WHOLE = json.dumps({"error": {"type": "illegal_argument_exception", "reason": PREVIEW}, "status": 400})


@pytest.fixture
def said():
    """All that is logged, at the level debug."""
    root = logging.getLogger()
    handlers, level, stream = root.handlers[:], root.level, io.StringIO()
    set_up(LogOptions(level="debug", format="json"), stream)
    RECENT._found.clear()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def broken(events):
    if any(event["kind"] == "stage" for event in events):
        raise ValueError(f"can't do with {events[0]['password']}")
    return events


def record(kind: str) -> str:
    return json.dumps({"kind": kind, "password": SECRET, "message": f"token={SECRET}"})


async def test_secrets_appear_nowhere_an_operator_looks(tmp_path, said):
    async with FakeElasticsearch() as fake:
        path = tmp_path / "aiologs.yaml"
        path.write_text(
            json.dumps(
                {
                    "data_dir": str(tmp_path / "data"),
                    "admin": "127.0.0.1:0",
                    "workers": 0,
                    "inputs": {"app": {"type": "file", "paths": [f"{tmp_path}/*.log"]}},
                    "stages": [{"tag": {"add": ["x"]}}, {"route": {"default": "to-{kind}"}}],
                    "outputs": {
                        "es": {"type": "elasticsearch", "hosts": [fake.url], "retry_first": 0.01, "park_after": 0}
                    },
                }
            )
        )
        fake.indices["to-refused"] = Error(400, "document_parsing_exception", PREVIEW)
        fake.indices["to-closed"] = CLOSED
        pipeline = app(config.load(path))
        assert isinstance(pipeline.outputs["es"].use.it, Elasticsearch)
        pipeline.processor.use.it._chain.steps[0].stage = broken
        pipeline.processor.use.it._chain._short = None
        running = asyncio.create_task(pipeline.run())
        await pipeline.ready.wait()
        fake.next(Status(400, WHOLE.encode()))
        kinds = ["good", "stage", "refused", "closed", "good"]
        text = "\n".join([*map(record, kinds), f'{{"password": "{SECRET}"', f'"{SECRET}"', ""])
        (tmp_path / "app.log").write_text(text)
        await until(lambda: pipeline.dead.count() >= 4 and pipeline.parked.counts().total() >= 1)
        for path_ in ("/status", "/metrics", "/readyz"):
            answer = pipeline.admin.answer(path_)
            assert answer.status in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
            assert SECRET.encode() not in answer.body, path_
        pipeline.stop.set()
        await running
    assert "refuses documents" in said.getvalue()
    assert SECRET not in said.getvalue()

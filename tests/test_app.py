import asyncio
import contextlib
import json
import sqlite3
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import config
from pipeline.app import App, NotDrained, retry_dead
from pipeline.causes import Filters
from pipeline.chain import Chain
from pipeline.control import Control, ask
from pipeline.dead import Limits, reading
from pipeline.letters import Letter
from pipeline.workers import Inline

CONFIG = """
data_dir: {folder}/data
admin: {admin}
workers: 0
inputs:
  app: {{type: file, paths: ["{folder}/*.log"], poll: 0.1}}
stages:
  - timestamp: {{field: timestamp}}
  - severity: {{field: level}}
  - route: {{default: "{index}"}}
outputs:
  db: {{type: local, path: "{folder}/store.db"}}
"""

TIME = "2026-11-20T10:00:00.000Z"


def load(folder: Path, index: str = "logs-{day}", admin: str = "null") -> config.Config:
    path = folder / "aiologs.yaml"
    path.write_text(CONFIG.format(folder=folder, index=index, admin=admin))
    return config.load(path)


def app(settings: config.Config, **more) -> App:
    return App(settings, lambda metrics: Inline(Chain(settings.chain_spec()), metrics.report), **more)


def stored(folder: Path) -> list[tuple[str, dict]]:
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as db:
        return [(index, json.loads(text)) for index, text in db.execute('SELECT "index", document FROM documents')]


def log(folder: Path, *lines: str) -> None:
    with (folder / "app.log").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def line(**fields) -> str:
    return json.dumps({"timestamp": TIME, "level": "info", **fields})


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_once_it_works_off_what_is_there_and_ends(tmp_path):
    log(tmp_path, line(n=1), "{broken", line(n=2))
    pipeline = app(load(tmp_path), once=True)
    await pipeline.run()
    assert [(index, document["n"]) for index, document in stored(tmp_path)] == [
        ("logs-2026.11.20", 1),
        ("logs-2026.11.20", 2),
    ]
    with reading(tmp_path / "data") as reader:
        [letter] = reader.each(Filters())
    assert (letter.record, letter.stage, letter.input) == (b"{broken", "decode", "app")
    text = pipeline.metrics.render().decode()
    assert 'aiologs_records_total{input="app"} 3.0' in text
    assert 'aiologs_documents_total{fate="stored",output="db"} 2.0' in text
    for stage in ("timestamp", "severity", "route"):
        assert f'aiologs_stage_seconds_count{{stage="{stage}"}} 1.0' in text


async def test_what_was_read_is_not_read_again_and_what_is_read_again_is_already_there(tmp_path):
    log(tmp_path, line(n=1))
    await app(load(tmp_path), once=True).run()
    log(tmp_path, line(n=2))
    second = app(load(tmp_path), once=True)
    await second.run()
    assert 'records_total{input="app"} 1.0' in second.metrics.render().decode()
    for file in (tmp_path / "data").glob("state.db*"):
        file.unlink()
    third = app(load(tmp_path), once=True)
    await third.run()
    assert 'documents_total{fate="already",output="db"} 2.0' in third.metrics.render().decode()
    assert len(stored(tmp_path)) == 2


async def test_it_follows_files_until_told_to_stop_and_tells_systemd(tmp_path):
    told: list[str] = []
    pipeline = app(load(tmp_path, admin="127.0.0.1:0"), notify=told.append)
    assert pipeline.not_ready() == ["starting"]
    running = asyncio.create_task(pipeline.run())
    await until(lambda: "READY=1" in told)
    log(tmp_path, line(n=1))
    await until(lambda: (tmp_path / "store.db").exists() and stored(tmp_path))
    url = f"http://127.0.0.1:{pipeline.admin.port}"
    for path in ("/healthz", "/readyz", "/metrics"):
        with await asyncio.to_thread(urllib.request.urlopen, url + path) as answer:
            assert answer.status == 200
    status = await asyncio.to_thread(ask, tmp_path / "data", "status")
    assert (status["ready"], status["summary"]) == (True, ["all is well"])
    assert (status["inputs"]["app"]["type"], status["outputs"]["db"]["documents"]) == ("file", {"stored": 1})
    pipeline.stop.set()
    await running
    assert told == ["READY=1", "STOPPING=1"]
    assert pipeline.not_ready() == ["stopping"]


async def test_it_is_not_ready_while_nothing_more_can_be_set_aside(tmp_path):
    pipeline = app(load(tmp_path))
    running = asyncio.create_task(pipeline.run())
    await asyncio.wait_for(pipeline.ready.wait(), 20)
    assert pipeline.not_ready() == []
    pipeline.dead.limits = Limits(max_bytes=1 << 16)
    await pipeline.dead.put([Letter("x", "app", bytes(1 << 17), {}, 1.0)])
    assert [reason.partition(" is full")[0] for reason in pipeline.not_ready()] == [f"{tmp_path}/data/dead.db"]
    pipeline.stop.set()
    await running


async def test_an_input_that_fails_ends_it(tmp_path):
    pipeline = app(load(tmp_path))

    async def fail(deliver, stop) -> None:
        raise RuntimeError("no more")

    pipeline.inputs["app"].run = fail
    with pytest.raises(RuntimeError, match="no more"):
        await pipeline.run()


async def test_what_is_not_drained_in_time_is_given_up_and_read_again(tmp_path, caplog):
    log(tmp_path, line(n=1))
    pipeline = app(replace(load(tmp_path), drain_seconds=0.05))

    async def hang(payload):
        await asyncio.Event().wait()

    pipeline.outputs["db"].write = hang
    running = asyncio.create_task(pipeline.run())
    await until(lambda: pipeline.delivery.in_flight_batches)
    pipeline.stop.set()
    with pytest.raises(NotDrained):
        await running
    assert "not drained within 0.05 s (app, delivery): 1 batches" in caplog.text
    await app(load(tmp_path), once=True).run()
    assert len(stored(tmp_path)) == 1


async def test_dead_letters_are_tried_again_with_the_new_configuration_under_the_same_ids(tmp_path):
    log(tmp_path, line(n=1), line(n=2, level=["odd"]))
    settings = load(tmp_path, index="logs")
    broken = app(settings, once=True)
    one = broken.processor.use.it._chain.steps[1].stage
    one_call = type(one).__call__

    def picky(self, events):
        if any(isinstance(event.get("level"), list) for event in events):
            raise ValueError("odd level")
        return one_call(self, events)

    type(one).__call__ = picky
    try:
        await broken.run()
    finally:
        type(one).__call__ = one_call
    with reading(tmp_path / "data") as reader:
        [letter] = reader.each(Filters())
        assert (letter.stage, letter.reason) == ("severity", "ValueError: odd level")
        counts = await retry_dead(settings, reader.each(Filters()))
    assert counts == {"tried": 1, "stored": 1, "already": 0, "dropped": 0, "set_aside": 0}
    with reading(tmp_path / "data") as reader:
        assert not list(reader.each(Filters()))
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
        assert letter.id in {id_ for (id_,) in db.execute("SELECT id FROM documents")}


async def test_dead_letters_are_tried_again_and_purged_by_the_daemon_that_runs(tmp_path):
    log(tmp_path, "{broken", "[broken")
    pipeline = app(load(tmp_path))
    running = asyncio.create_task(pipeline.run())
    await until(lambda: pipeline.dead.count() == 2)
    filters = dict.fromkeys(("id", "input", "stage", "reason", "index", "output"), "")
    assert isinstance(pipeline._control, Control)
    counts = await asyncio.to_thread(ask, tmp_path / "data", "dead.retry", filters=filters)
    assert (counts["tried"], counts["set_aside"]) == (2, 2)
    removed = await asyncio.to_thread(ask, tmp_path / "data", "dead.purge", filters=filters)
    assert removed == {"removed": 2}
    pipeline.stop.set()
    await running

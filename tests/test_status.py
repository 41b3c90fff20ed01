import asyncio
import contextlib

from pipeline.contract import Documents, Written
from pipeline.database import StorageError
from tests.test_app import app, line, load, log, until


@contextlib.asynccontextmanager
async def running(tmp_path):
    """A pipeline at work."""
    pipeline = app(load(tmp_path))
    task = asyncio.create_task(pipeline.run())
    await pipeline.ready.wait()
    yield pipeline
    pipeline.stop.set()
    await task


class Away:
    """An output whose server is away."""

    def __init__(self) -> None:
        self.blocked: str | None = None
        self.back = asyncio.Event()

    async def write(self, payload: list[Documents]) -> Written:
        self.blocked = "connection refused"
        await self.back.wait()
        self.blocked = None
        return Written(stored=sum(documents.count for documents in payload))

    async def stop(self) -> None:
        pass


async def test_a_blocked_output_is_named_first_and_who_waits_for_it(tmp_path, monkeypatch):
    async with running(tmp_path) as pipeline:
        pipeline.delivery._limits = type(pipeline.delivery._limits)(bytes=100)
        old, pipeline.outputs["db"].use.it = pipeline.outputs["db"].use.it, Away()
        log(tmp_path, *(line(n=n) for n in range(10)))
        await until(lambda: pipeline.outputs["db"].blocked)
        pipeline.blocked.look(pipeline.outputs)
        with pipeline.delivery.waiting.during("app"):
            monkeypatch.setattr("pipeline.status._ago", lambda _: 7.0)
            told = pipeline.status()
        assert [each.split(" since")[0] for each in told["summary"]] == ["output db takes nothing", "input app waits"]
        assert told["summary"][0].endswith("(7 s): connection refused")
        assert told["summary"][1].endswith("(7 s) for output db")
        assert told["inputs"]["app"]["waits"]["for"] == "output db"
        output = told["outputs"]["db"]
        assert (output["blocked"], output["in_flight"], output["oldest_write_seconds"]) == ("connection refused", 10, 7)
        assert output["blocked_since"]
        assert (told["ready"], told["reasons"]) == (False, ["output db: connection refused"])
        pipeline.outputs["db"].use.it.back.set()
        await until(lambda: not pipeline.delivery.in_flight_batches)
        assert pipeline.status()["summary"] == ["all is well"]
        pipeline.outputs["db"].use.it = old


async def test_a_parked_index_is_named_with_the_reason_and_since_when(tmp_path):
    async with running(tmp_path) as pipeline:
        await pipeline.parked.put("db", [(Documents("logs-1", b"{}\n{}\n", 1), "the index is closed")])
        told = pipeline.status()
        assert told["outputs"]["db"]["parked"]["logs-1"]["documents"] == 1
        assert told["outputs"]["db"]["parked"]["logs-1"]["reason"] == "the index is closed"
        assert told["summary"][0].startswith("output db, index logs-1: 1 documents are parked since 20")
        assert told["summary"][0].endswith(": the index is closed")


async def test_a_full_store_of_dead_letters_is_named_until_it_takes_some_again(tmp_path):
    async with running(tmp_path) as pipeline:
        put, full = pipeline.dead.put, True

        async def fail(letters):
            if full:
                raise StorageError("dead.db is full")
            await put(letters)

        pipeline.dead.put = fail
        log(tmp_path, "{broken")
        await until(lambda: pipeline.delivery.storing.troubles)
        assert pipeline.status()["summary"][0].startswith("can't set aside records since 20")
        assert pipeline.status()["summary"][0].endswith(": dead.db is full")
        assert pipeline.not_ready() == ["can't set aside records: dead.db is full"]
        full = False
        await until(lambda: pipeline.dead.count() == 1)
        assert pipeline.not_ready() == []
        assert pipeline.status()["summary"] == ["1 dead letters: see `aiologs dead list`"]

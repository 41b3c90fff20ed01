"""What every input promises, whatever it reads: the same tests for each source of `tests.contracts.sources`.

An input of a new kind gets a class there that makes the input and plays the part of who sends to it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.inputs
from pipeline.contract import Batch, Context, Input, Outcome
from tests.contracts.sources import SOURCES, Source, Store

# Clients are closed with their test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


class Engine:
    """What stands behind an input: it stores what it may, and says what is stored."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.left: int | None = None
        """Deliver so many batches more, then let the others hang."""

    async def __call__(self, batch: Batch, *, wait: bool = True) -> Outcome:
        self.waiting += 1
        await self.gate.wait()
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                await asyncio.Event().wait()
        self.waiting -= 1
        self.stored += zip(batch.document_ids(), batch.records(), strict=True)
        return Outcome()

    @property
    def lines(self) -> set[bytes]:
        return {record for _, record in self.stored}


def line(n: int) -> bytes:
    """A record: with a time, so that clients who give no ids may send it again."""
    return b'{"timestamp":"2026-11-20T00:00:00Z","n":%d}' % n


class Bench:
    """An input between a source and an engine."""

    def __init__(self, source: Source) -> None:
        self.source, self.store, self.engine = source, Store(), Engine()
        self.start()

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.part = part = self.source.make(Context("in", "host", self.store))
        assert isinstance(part, Input)
        self.task = asyncio.create_task(part.run(self.engine, self.stop))

    async def kill(self) -> None:
        # Where asyncio is cancelled while it opens a port, it leaves it open.
        listening = getattr(self.part, "listening", None)
        await self.until(lambda: self.task.done() or listening is None or listening.is_set())
        self.task.cancel()
        async with asyncio.timeout(30):  # it waits for nothing any longer
            await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.002)

    async def send(self, begin: int, end: int) -> set[bytes]:
        lines = list(map(line, range(begin, end)))
        await self.source.send(lines)
        return set(lines)


@pytest.fixture(params=SOURCES)
async def bench(request, tmp_path):
    source = SOURCES[request.param](tmp_path)
    bench = Bench(source)
    yield bench
    await bench.kill()
    source.close()
    await asyncio.sleep(0.01)  # transports close their sockets a moment later


async def test_everything_is_delivered_and_at_last_acknowledged(bench):
    sent = await bench.send(0, 50)
    await bench.until(lambda: bench.engine.lines >= sent)
    sent |= await bench.send(50, 60)
    await bench.until(lambda: bench.engine.lines >= sent)
    bench.stop.set()
    await bench.task
    assert bench.engine.lines == sent
    assert len(bench.engine.stored) == len(sent)
    if bench.source.replays:
        async with asyncio.timeout(60):
            while await bench.source.acknowledged(bench.store) < 60:
                await asyncio.sleep(0.002)


async def test_every_record_has_an_id_of_its_own(bench):
    sent = await bench.send(0, 50)
    await bench.until(lambda: bench.engine.lines >= sent)
    assert len({id_ for id_, _ in bench.engine.stored}) == 50


async def test_nothing_is_acknowledged_before_it_is_stored(bench):
    bench.engine.gate.clear()
    await bench.send(0, 50)
    await bench.until(lambda: bench.engine.waiting > 0)
    await asyncio.sleep(0.05)
    assert await bench.source.acknowledged(bench.store) == 0
    bench.engine.gate.set()
    await bench.until(lambda: len(bench.engine.lines) == 50)


async def test_told_to_stop_it_reads_no_more_but_waits_for_what_is_under_way(bench):
    bench.engine.gate.clear()
    first = await bench.send(0, 5)
    await bench.until(lambda: bench.engine.waiting > 0)
    bench.stop.set()
    await asyncio.sleep(bench.source.late)
    assert not bench.task.done()
    await bench.send(5, 10)
    bench.engine.gate.set()
    await bench.task
    assert bench.engine.lines == first


async def test_told_to_stop_without_anything_to_do_it_ends(bench):
    await asyncio.sleep(0.01)
    bench.stop.set()
    await bench.task


async def test_what_was_not_acknowledged_comes_again_after_a_kill_under_the_same_ids(bench):
    if not bench.source.replays:
        pytest.skip("what was read from it can't be read again")
    bench.engine.left = 3
    sent = await bench.send(0, 50)
    await bench.until(lambda: bench.engine.left is not None and bench.engine.left < 0)
    await bench.kill()
    acknowledged = await bench.source.acknowledged(bench.store)
    assert acknowledged < 50
    assert set(map(line, range(acknowledged))) <= bench.engine.lines
    bench.engine.left = None
    bench.start()
    await bench.until(lambda: bench.engine.lines >= sent)
    ids: dict[str, bytes] = {}
    for id_, record in bench.engine.stored:
        assert ids.setdefault(id_, record) == record
    assert len(ids) == 50


async def test_after_a_stop_nothing_comes_again(bench):
    sent = await bench.send(0, 20)
    await bench.until(lambda: bench.engine.lines >= sent)
    bench.stop.set()
    await bench.task
    bench.start()
    sent |= await bench.send(20, 40)
    await bench.until(lambda: bench.engine.lines >= sent)
    assert len(bench.engine.stored) == 40


async def test_a_delivery_that_fails_ends_it_with_the_error(bench):
    async def fail(_: Batch, *, wait: bool = True) -> Outcome:
        raise OSError("disk full")

    if bench.source.outlives:
        pytest.skip("it tells the client: see the test below")
    await bench.kill()
    part = bench.source.make(Context("in", "host", bench.store))
    await bench.send(0, 5)
    with pytest.raises(OSError, match="disk full"):
        await part.run(fail, asyncio.Event())
    assert await bench.source.acknowledged(bench.store) == 0


async def test_a_delivery_that_fails_acknowledges_nothing_and_the_records_come_again(bench):
    if not bench.source.replays:
        pytest.skip("what was read from it can't be read again")
    failed = asyncio.Event()

    async def fail(_: Batch, *, wait: bool = True) -> Outcome:
        failed.set()
        raise OSError("disk full")

    await bench.kill()
    failing = asyncio.create_task(bench.source.make(Context("in", "host", bench.store)).run(fail, asyncio.Event()))
    sent = await bench.send(0, 5)
    await failed.wait()
    await asyncio.sleep(0.02)
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)
    assert await bench.source.acknowledged(bench.store) == 0
    bench.start()
    await bench.until(lambda: bench.engine.lines >= sent)


def test_every_input_is_held_to_this():
    modules = Path(pipeline.inputs.__file__).parent.glob("[a-z]*.py")
    kinds = {path.stem for path in modules} - {"tail", "lumberjack"}  # decisions of inputs, which do no I/O
    assert kinds == SOURCES.keys()

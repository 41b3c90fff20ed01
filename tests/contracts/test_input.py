"""What every input promises, whatever it reads: a table of sources, and the same tests for each.

An input of a new kind gets a line in `SOURCES`: a class that makes the input and plays the part of who sends to it.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.contract import Batch, Context, Input, Outcome
from pipeline.inputs.file import File
from pipeline.inputs.stdin import Stdin


class Store:
    """Positions that outlive the input."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.damaged = False

    def load(self) -> dict[str, dict[str, Any]]:
        return dict(self.entries)

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.entries[key] = value

    def remove(self, key: str) -> None:
        self.entries.pop(key, None)


class Source(Protocol):
    """Who sends to an input, and sees what it acknowledges."""

    replays: bool
    """What was not acknowledged comes again after a restart, with the same document ids."""

    def __init__(self, folder: Path) -> None: ...

    def make(self, context: Context) -> Input:
        """The input; again after a restart."""
        ...

    async def send(self, lines: list[bytes]) -> None:
        """Send lines, without waiting for their acknowledgement."""
        ...

    async def acknowledged(self, store: Store) -> int:
        """How many lines the input has acknowledged so far."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class FileSource:
    """A log file that grows."""

    replays = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.log"
        self.ends = [0]

    def make(self, context: Context) -> File:
        return File(File.Options(paths=[str(self.path)], poll=0.02, batch_bytes=64), context)

    async def send(self, lines: list[bytes]) -> None:
        with self.path.open("ab") as file:
            for line in lines:
                file.write(line + b"\n")
                self.ends.append(file.tell())

    async def acknowledged(self, store: Store) -> int:
        offsets = [entry["offset"] for entry in store.entries.values() if "offset" in entry]
        return self.ends.index(offsets[0]) if offsets else 0

    def close(self) -> None:
        pass


class StdinSource:
    """A pipe: it has no acknowledgement, and what was read can't be read again."""

    replays = False

    def __init__(self, folder: Path) -> None:
        self.reading, self.writing = os.pipe()

    def make(self, context: Context) -> Stdin:
        return Stdin(Stdin.Options(), context, self.reading)

    async def send(self, lines: list[bytes]) -> None:
        os.write(self.writing, b"".join(line + b"\n" for line in lines))

    async def acknowledged(self, store: Store) -> int:
        return 0

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


SOURCES: dict[str, Callable[[Path], Source]] = {"file": FileSource, "stdin": StdinSource}


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


class Bench:
    """An input between a source and an engine."""

    def __init__(self, source: Source) -> None:
        self.source, self.store, self.engine = source, Store(), Engine()
        self.start()

    def start(self) -> None:
        self.stop = asyncio.Event()
        part = self.source.make(Context("in", "host", self.store))
        assert isinstance(part, Input)
        self.task = asyncio.create_task(part.run(self.engine, self.stop))

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.002)

    async def send(self, begin: int, end: int) -> set[bytes]:
        lines = [b"line %d" % n for n in range(begin, end)]
        await self.source.send(lines)
        return set(lines)


@pytest.fixture(params=SOURCES)
async def bench(request, tmp_path):
    source = SOURCES[request.param](tmp_path)
    bench = Bench(source)
    yield bench
    await bench.kill()
    source.close()


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
        assert await bench.source.acknowledged(bench.store) == 60


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
    await asyncio.sleep(0.05)
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
    assert {b"line %d" % n for n in range(acknowledged)} <= bench.engine.lines
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

    await bench.kill()
    part = bench.source.make(Context("in", "host", bench.store))
    await bench.send(0, 5)
    with pytest.raises(OSError, match="disk full"):
        await part.run(fail, asyncio.Event())
    assert await bench.source.acknowledged(bench.store) == 0

"""Standard input: pipes and files in its place."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch, Context, Outcome
from pipeline.identity import file_identity
from pipeline.inputs.stdin import Stdin


class Nothing:
    """Positions, of which there are none."""

    damaged = False

    def load(self) -> dict[str, dict[str, Any]]:
        return {}

    def put(self, key: str, value: dict[str, Any]) -> None:
        raise NotImplementedError

    def remove(self, key: str) -> None:
        raise NotImplementedError


class Rig:
    """Standard input with a pipe behind it."""

    def __init__(self, **options: Any) -> None:
        self.reading, self.writing = os.pipe()
        self.counts: Counter[str] = Counter()
        context = Context("pipe", "host", Nothing(), count=lambda name, n, _: self.counts.update({name: n}))
        self.input = Stdin(Stdin.Options(**options), context, self.reading)
        self.batches: list[Batch] = []
        self.stop = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        if self.error:
            raise self.error
        await self.gate.wait()
        self.batches.append(batch)
        return Outcome()

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self.input.run(self.deliver, self.stop))
        return self.task

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)

    def end(self) -> None:
        os.close(self.writing)
        self.writing = -1

    @property
    def records(self) -> list[bytes]:
        return [record for batch in self.batches for record in batch.records()]

    @property
    def ids(self) -> list[str]:
        return [id_ for batch in self.batches for id_ in batch.document_ids()]

    async def until(self, n: int) -> None:
        async with asyncio.timeout(60):
            while len(self.records) < n:
                await asyncio.sleep(0)

    def close(self) -> None:
        for descriptor in (self.reading, self.writing):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.gate.set()
        if rig.task:
            await asyncio.gather(rig.task, return_exceptions=True)
        rig.close()


async def test_lines_are_delivered_as_they_come_and_it_ends_with_its_input(make):
    rig = make()
    task = rig.start()
    rig.write(b"one\ntw")
    await rig.until(1)
    rig.write(b"o\n\xe2\x82")
    await rig.until(2)
    rig.write(b"\xac\nlast")
    rig.end()
    await task
    assert rig.records == [b"one", b"two", "€".encode(), b"last"]


async def test_a_batch_says_where_it_comes_from(make):
    rig = make()
    rig.write(b"one\n")
    rig.end()
    await rig.start()
    assert rig.batches[0].input == "pipe"
    assert rig.batches[0].origin == {"host.name": "host"}


async def test_nothing_comes_of_nothing(make):
    rig = make()
    rig.end()
    await rig.start()
    assert rig.batches == []


async def test_ids_are_places_under_an_identity_of_the_run(make):
    ids = []
    for _ in range(2):
        rig = make()
        rig.write(b"one\ntwo\nthree")
        rig.end()
        await rig.start()
        assert [id_.rsplit("-", 1)[1] for id_ in rig.ids] == ["0", "4", "8"]
        ids += rig.ids
    assert len(set(ids)) == 6


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
async def test_with_a_name_ids_are_those_of_the_file(make, start):
    rig = make(name="/var/log/app.log", host="web-1", max_line_bytes=5)
    task = rig.start()
    rig.write(start + b"first")
    await asyncio.sleep(0.01)
    assert rig.batches == []  # no identity before the first line is complete
    rig.write(b" line\ntwo\n")
    rig.end()
    await task
    identity = file_identity("web-1", "/var/log/app.log", b"first line")
    assert rig.ids == [f"{identity}-{len(start)}", f"{identity}-{len(start) + 11}"]
    assert rig.batches[0].origin["host.name"] == "web-1"


async def test_a_file_in_the_place_of_a_pipe_is_read(make, tmp_path: Path):
    rig = make(read_ahead=1)
    path = tmp_path / "in.log"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(300_000)))
    with path.open("rb") as file:
        os.dup2(file.fileno(), rig.reading)
    await rig.start()
    assert len(rig.records) == 300_000
    assert rig.records[-1] == b"line 299999"


async def test_told_to_stop_it_delivers_what_it_has_read(make):
    rig = make()
    task = rig.start()
    rig.write(b"one\ntwo")
    await rig.until(1)
    rig.stop.set()
    await task
    assert rig.records == [b"one", b"two"]


async def test_told_to_stop_it_reads_a_file_no_further(make):
    rig = make()
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.dup2(descriptor, rig.reading)
    os.close(descriptor)
    rig.stop.set()
    await rig.start()
    assert rig.records == []


async def test_told_to_stop_it_waits_for_what_is_under_way(make):
    rig = make()
    rig.gate.clear()
    task = rig.start()
    rig.write(b"one\n")
    await asyncio.sleep(0.01)
    rig.stop.set()
    await asyncio.sleep(0.01)
    assert not task.done()
    rig.gate.set()
    await task
    assert rig.records == [b"one"]


async def test_read_ahead_is_bounded(make):
    rig = make(read_ahead=2)
    rig.gate.clear()
    task = rig.start()
    for n in range(5):
        rig.write(b"line %d\n" % n)
        await asyncio.sleep(0.01)
    assert rig.batches == []
    rig.gate.set()
    rig.end()
    await task
    assert [len(batch.records()) for batch in rig.batches] == [1, 1, 3]


async def test_the_error_of_a_delivery_ends_it_though_nothing_more_comes(make):
    rig = make()
    rig.error = OSError("disk full")
    rig.write(b"one\n")
    with pytest.raises(OSError, match="disk full"):
        await rig.start()


async def test_a_second_error_is_no_other(make):
    rig = make()
    rig.error = OSError("disk full")
    rig.gate.clear()
    rig.write(b"\0a\n\0b\n")  # two batches
    with pytest.raises(OSError, match="disk full"):
        await rig.start()


async def test_a_line_that_is_too_long_is_cut_flagged_and_counted(make, caplog):
    rig = make(max_line_bytes=8)
    task = rig.start()
    rig.write(b"one\n" + b"x" * 50)
    await rig.until(2)
    rig.write(b"x" * 50)
    await asyncio.sleep(0.01)
    rig.write(b"x\ntwo\n")
    rig.end()
    await task
    assert rig.records == [b"one", b"x" * 8, b"two"]
    assert [batch.origin.get("log.flags") for batch in rig.batches] == [None, "truncated", None]
    assert rig.ids[-1].endswith("-106")
    assert rig.counts == {"lines_cut": 1}
    assert "max_line_bytes" in caplog.text


CHUNK = st.lists(st.sampled_from([b"\0", b"\n", b"a", b"\xef\xbb\xbf"]), max_size=10).map(b"".join) | st.binary(
    max_size=30
)


@given(st.lists(CHUNK, max_size=8), st.integers(1, 12))
def test_however_the_bytes_come_the_records_and_their_places_are_the_same(chunks, limit):
    def records(chunks: list[bytes]) -> list[tuple[int, bytes]]:
        rig = Rig(max_line_bytes=limit)

        class Window:
            def submit(self, batch: Batch, _: None) -> None:
                rig.batches.append(batch)

        for chunk in chunks:
            rig.input._take(chunk, Window(), final=False)  # type: ignore[arg-type]
        rig.input._take(b"", Window(), final=True)  # type: ignore[arg-type]
        rig.close()
        found = []
        for batch in rig.batches:
            cut = "log.flags" in batch.origin
            found += [(batch.base, batch.block)] if cut else list(zip(batch.places(), batch.records(), strict=True))
        return found

    assert records(chunks) == records([b"".join(chunks)])


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_it_works_on_the_loop_of_the_daemon(kind, tmp_path):
    async def check() -> list[bytes]:
        rig = Rig()
        if kind == "file":
            (tmp_path / "in.log").write_bytes(b"one\ntwo\n")
            with (tmp_path / "in.log").open("rb") as file:
                os.dup2(file.fileno(), rig.reading)
        else:
            rig.write(b"one\ntwo\n")
            rig.end()
        await rig.start()
        rig.close()
        return rig.records

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(check()) == [b"one", b"two"]


MULTILINE = {"start": "^>", "max_lines": 2, "flush_seconds": 0.05}


async def test_lines_become_records_of_the_same_ids_at_every_run(make):
    rig = make(name="/var/log/a.log", max_line_bytes=12, multiline=MULTILINE)
    task = rig.start()
    rig.write(b"> 1\n a\n")
    await asyncio.sleep(0.1)
    assert not rig.batches
    rig.write(b" b\n> 2\n 1234567890123\n\0> 3\n c\n\0\0 d\n> 4\n e")
    rig.end()
    await task
    assert rig.records == [b"> 1\n a", b" b", b"> 2", b" 12345678901", b"> 3\n c", b" d", b"> 4\n e"]
    flags = [batch.origin.get("log.flags") for batch in rig.batches]
    assert flags == ["truncated", None, "truncated", None, None, None][: len(flags)]
    assert rig.counts == {"records_cut": 1, "lines_cut": 1}
    identity = file_identity("host", "/var/log/a.log", b"> 1")
    assert rig.ids[:3] == [f"{identity}-0", f"{identity}-7", f"{identity}-10"]


async def test_a_record_that_nothing_continues_is_delivered_after_a_while(make):
    rig = make(multiline=MULTILINE, read_ahead=1)
    task = rig.start()
    rig.gate.clear()
    rig.write(b"> 1\n> 2\n a\n b")
    await asyncio.sleep(0.1)
    assert not rig.batches
    rig.gate.set()
    await rig.until(2)
    assert rig.records == [b"> 1", b"> 2\n a"]
    rig.write(b"c\n")
    await rig.until(3)
    rig.end()
    await task
    assert rig.records[2:] == [b" bc"]


@given(st.lists(st.sampled_from([b"> 1\n", b" a\n", b"\n", b"> ", b"b", b"\0", b"\0\n"]), max_size=12))
def test_however_a_text_comes_the_records_are_the_same(chunks):
    async def play(chunks: list[bytes]) -> list[tuple[str, bytes]]:
        rig = Rig(name="/a.log", multiline=MULTILINE)
        try:
            task = rig.start()
            for chunk in chunks:
                rig.write(chunk)
                await asyncio.sleep(0.0001)
            rig.end()
            await task
        finally:
            rig.close()
        return list(zip(rig.ids, rig.records, strict=True))

    text = b"".join(chunks)
    assert asyncio.run(play(chunks)) == asyncio.run(play([text] if text else []))

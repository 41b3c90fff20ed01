"""Records of several lines in files."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contract import Context
from pipeline.identity import file_identity
from pipeline.inputs._multiline import Multiline, line_of, spans
from pipeline.inputs.file import File
from tests.inputs.file_rig import Rig

START = {"start": "^>"}


class Lines(Rig):
    """A rig whose input joins lines."""

    def context(self, *, once: bool = False) -> Context:
        context = super().context(once=once)
        context.settled = self.settle
        return context

    async def settle(self) -> None:
        self.store.tick()

    async def flush(self) -> list[str]:
        """Let so much time pass that what is held counts as complete; what is new."""
        before = len(self.delivered)
        assert self.follow
        for source in self.follow.sources.values():
            source.grown -= 10
        self.follow.flush()
        while await self.follow.read() or self.follow.waiting:
            await asyncio.sleep(0)
        await self.follow.drain()
        return [record.decode() for _, record in self.delivered[before:]]


@pytest.fixture
async def rig(tmp_path):
    async with Lines(tmp_path) as rig:
        rig.options["multiline"] = START
        yield rig


async def test_a_record_is_delivered_when_the_next_one_begins(rig):
    rig.write("a.log", "> 1\n a\r\n")
    assert await rig.step() == []
    rig.write("a.log", " b\n> 2\n> 3\n c\n")
    assert await rig.step() == ["> 1\n a\r\n b", "> 2"]
    identity = file_identity("host", str(rig.path("a.log")), b"> 1")
    assert [id_ for id_, _ in rig.delivered] == [f"{identity}-0", f"{identity}-11"]
    assert len(rig.batches) == 1
    assert rig.batches[0].origin == {"host.name": "host", "log.file.path": str(rig.path("a.log"))}


async def test_the_last_record_is_delivered_when_nothing_came_for_long_enough(rig):
    rig.write("a.log", "> 1\n a\n")
    assert await rig.step() == []
    assert 4 < rig.follow.flush() - asyncio.get_running_loop().time() <= 5
    assert await rig.flush() == ["> 1\n a"]
    assert rig.follow.flush() == float("inf")
    rig.write("a.log", " b\n> 2\n")
    assert await rig.step() == [" b"]


async def test_an_unfinished_line_is_not_delivered_with_the_record_before_it(rig):
    rig.write("a.log", "> 1\n a")
    assert await rig.step() == []
    assert await rig.flush() == ["> 1"]
    rig.write("a.log", "b\n> 2\n")
    assert await rig.step() == [" ab"]


async def test_a_record_that_is_held_is_read_again_after_a_restart(rig):
    rig.write("a.log", "> 1\n> 2\n a\n")
    assert await rig.step() == ["> 1"]
    rig.kill()
    rig.write("a.log", " b\n> 3\n")
    assert await rig.step() == ["> 2\n a\n b"]


async def test_a_rotated_file_has_the_same_records(rig):
    rig.write("a.log", "> 1\n a\n> 2\n b\n")
    await rig.step()
    rig.gzip("a.log")
    assert await rig.step() == ["> 2\n b"]
    first = dict(rig.delivered)
    rig.kill()
    rig.store.durable.clear()
    assert await rig.step() == ["> 1\n a", "> 2\n b"]
    assert dict(rig.delivered) == first


async def test_a_record_that_was_taken_for_complete_ends_there_after_a_crash_too(rig):
    rig.write("a.log", "> 1\n a\n")
    await rig.step()
    rig.gate.clear()
    for source in rig.follow.sources.values():
        source.grown -= 10
    rig.follow.flush()
    await rig.follow.read()
    await asyncio.sleep(0)
    assert not rig.delivered
    rig.kill(tick=False)
    rig.gate.set()
    rig.write("a.log", " b\n> 2\n")
    assert await rig.step() == ["> 1\n a", " b"]
    rig.kill()
    assert "breaks" not in next(value for value in rig.store.durable.values() if "offset" in value)


async def test_what_is_held_is_delivered_with_once(rig):
    rig.write("a.log", "> 1\n a\n> 2\n b")
    assert await rig.once() == ["> 1\n a", "> 2\n b"]
    rig.write("a.log", "b\n> 3\n")
    assert await rig.once() == ["b", "> 3"]


async def test_an_unfinished_line_behind_a_line_that_was_cut_is_delivered_with_once(rig):
    rig.write("a.log", "> 123456789\n a")
    assert await rig.once(max_line_bytes=5) == ["> 123", " a"]


async def test_a_long_line_is_cut_and_ends_the_record_before_it(rig):
    rig.write("a.log", "> 1\n 123456789\n a\n> 2\n")
    rig.start(max_line_bytes=5)
    assert await rig.step() == ["> 1", " 1234", " a"]
    assert [batch.origin.get("log.flags") for batch in rig.batches] == [None, "truncated", None]
    assert rig.counts["lines_cut"] == 1


async def test_a_line_that_is_going_to_be_cut_ends_the_record_before_it(rig):
    rig.start(max_line_bytes=5)
    rig.write("a.log", "> 1\n a\n 1234567")
    assert await rig.step() == ["> 1\n a"]
    rig.write("a.log", "89\n b\n> 2\n")
    assert await rig.step() == [" 1234", " b"]


async def test_a_record_that_reaches_a_limit_says_so_and_its_rest_is_another(rig):
    rig.start(multiline={**START, "max_lines": 2})
    rig.write("a.log", "> 0\n> 1\n a\n b\n c\n> 2\n")
    assert await rig.step() == ["> 0", "> 1\n a", " b\n c"]
    assert [batch.origin.get("log.flags") for batch in rig.batches] == [None, "truncated", None]
    assert rig.counts["records_cut"] == 1


async def test_a_record_larger_than_what_is_read_at_once(rig):
    rig.start(batch_bytes=4, max_line_bytes=8, multiline={**START, "max_bytes": 30})
    record = "> 1\n" + " abcd\n" * 4
    rig.write("a.log", record + "> 2\n" + " x\n" * 20)
    assert await rig.step() == [record[:-1], "> 2\n" + "\n".join([" x"] * 8), "\n".join([" x"] * 10)]
    assert await rig.flush() == ["\n".join([" x"] * 2)]


async def test_a_hole_ends_a_record(rig):
    rig.start(batch_bytes=64)
    rig.write("a.log", b"> 1\n a\n" + bytes(10) + b" b\n> 2\n" + bytes(1000) + b" c\n> 3\n")
    assert await rig.step() == ["> 1\n a", " b", "> 2", " c"]
    rig.write("a.log", b"> 4\n" + bytes(3))
    assert await rig.step() == ["> 3"]
    rig.write("a.log", b" d")
    assert await rig.step() == ["> 4"]


async def test_a_hole_at_the_beginning_is_passed_over(rig):
    rig.start(batch_bytes=16)
    rig.write("a.log", bytes(12) + b"> 1\n a\n b\n c\n> 2\n")
    assert await rig.step() == ["> 1\n a\n b\n c"]


async def test_blank_lines_stay_in_a_record_but_are_none(rig):
    rig.write("a.log", "> 1\n\n a\n> 2\n")
    assert await rig.step() == ["> 1\n\n a"]
    assert await rig.flush() == ["> 2"]
    rig.write("a.log", "\n")
    assert await rig.step() == []
    assert await rig.flush() == []
    rig.write("a.log", "> 3\n> 4\n")
    assert await rig.step() == ["> 3"]


async def test_a_damaged_archive_gives_the_records_before_the_damage(rig):
    rig.write("a.log", "> 1\n a\n> 2\n b\n" + "x" * 100)
    rig.gzip("a.log")
    path = rig.path("a.log.gz")
    path.write_bytes(path.read_bytes()[:-8])
    rig.touch("a.log.gz")
    assert await rig.step() == ["> 1\n a", "> 2\n b"]


async def test_the_running_input_delivers_what_is_held_by_itself(rig):
    rig.write("a.log", "> 1\n a\n")
    stop, options = asyncio.Event(), {**START, "flush_seconds": 0.05}
    run = asyncio.create_task(
        File(File.Options(**rig.options | {"multiline": options, "poll": 100}), rig.context()).run(rig.deliver, stop)
    )
    async with asyncio.timeout(60):  # less than until the next look at all files
        while not rig.delivered:
            await asyncio.sleep(0.01)
    stop.set()
    await run
    assert [record for _, record in rig.delivered] == [b"> 1\n a"]


_OPTIONS = {"start": "^>", "max_lines": 4, "max_bytes": 24}
_RULES = Multiline(**_OPTIONS).rules()
_CHUNKS = st.lists(st.one_of(st.sampled_from(["> 1\n", " a\n", "\n", "> ", "b", "c\n"]), st.just(None)), max_size=20)


@settings(max_examples=60)
@given(_CHUNKS, st.sampled_from([3, 10, 1 << 20]))
def test_however_a_text_comes_and_whenever_the_daemon_dies_the_records_are_the_same(chunks, batch_bytes):
    async def play(folder):
        async with Lines(folder) as rig:
            rig.options |= {"multiline": _OPTIONS, "batch_bytes": batch_bytes, "max_line_bytes": 100}
            for chunk in chunks:
                if chunk is None:
                    rig.kill(tick=len(rig.delivered) % 2 == 0)
                else:
                    rig.write("a.log", chunk)
                    await rig.step()
            rig.kill()
            if text:
                await rig.once()
            return rig.delivered

    text = "".join(chunk for chunk in chunks if chunk).encode()
    expected = {
        span.start: record for span in spans(_RULES, text, 0, len(text)) if (record := line_of(text, *span[:2]))
    }
    with TemporaryDirectory() as folder:
        delivered = asyncio.run(play(Path(folder)))
    assert {int(id_.rpartition("-")[2]): record for id_, record in delivered} == expected
    assert len({*delivered}) == len(expected)

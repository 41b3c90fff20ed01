"""From a file's bytes to lines."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import file_identity
from pipeline.inputs import _handles, _read
from pipeline.inputs._text import Plain, open_text
from tests.inputs.file_rig import Rig, lines, names


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


# Growth


async def test_lines_are_delivered_as_a_file_grows(rig):
    rig.write("a.log", lines(0, 2))
    assert await rig.step() == names(0, 2)
    rig.write("a.log", lines(2, 5))
    assert await rig.step() == names(2, 5)
    assert await rig.step() == []


async def test_a_line_is_delivered_when_it_is_complete(rig):
    rig.write("a.log", "one\ntw")
    assert await rig.step() == ["one"]
    assert await rig.step() == []
    rig.write("a.log", "o\nth")
    assert await rig.step() == ["two"]


async def test_a_file_without_a_complete_first_line_waits(rig):
    rig.write("a.log", "")
    assert await rig.step() == []
    rig.write("a.log", "on")
    assert await rig.step() == []
    rig.write("a.log", "e\n")
    assert await rig.step() == ["one"]


async def test_ids_are_the_identity_and_the_place(rig):
    rig.write("a.log", "one\ntwo\r\nthree\n")
    await rig.step()
    identity = file_identity("host", str(rig.path("a.log")), b"one")
    assert rig.delivered == [(f"{identity}-0", b"one"), (f"{identity}-4", b"two"), (f"{identity}-9", b"three")]


async def test_a_batch_says_where_it_comes_from(rig):
    rig.write("a.log", "one\n")
    await rig.step()
    assert rig.batches[0].input == "app"
    assert rig.batches[0].origin == {"host.name": "host", "log.file.path": str(rig.path("a.log"))}


async def test_events_can_get_the_time_at_which_their_file_was_last_written(rig):
    rig.start(mtime=True)
    rig.write("a.log", "Nov 20 00:00:00 one\n")
    os.utime(rig.path("a.log"), ns=(0, 1_795_132_800_123_456_789))
    await rig.step()
    assert rig.batches[0].origin["file.mtime"] == "2026-11-20T00:00:00.123Z"


async def test_host_and_name_can_be_given(rig):
    rig.start(host="web-1", name="/var/log/app.log")
    rig.write("a.log", "one\n")
    await rig.step()
    assert rig.batches[0].origin["host.name"] == "web-1"
    assert rig.batches[0].identity == file_identity("web-1", "/var/log/app.log", b"one")


async def test_a_name_that_is_not_utf_8_is_written_so_that_json_can_hold_it(rig):
    name = b"\xff.log".decode(errors="surrogateescape")
    rig.write(name, "one\n")
    assert await rig.step() == ["one"]
    assert str(rig.batches[0].origin["log.file.path"]).endswith("\\xff.log")
    str(rig.store.pending).encode()


async def test_characters_of_many_bytes_survive_any_size_of_batch(rig):
    text = "aé€😀\n" * 20
    rig.write("a.log", text)
    rig.start(batch_bytes=7)
    assert await rig.step() == text.splitlines()


async def test_large_files_are_read_in_a_thread_and_come_out_the_same(rig, monkeypatch):
    monkeypatch.setattr(_read, "_INLINE", 100)
    rig.write("a.log", lines(0, 5000))
    rig.start(batch_bytes=10_000)
    assert await rig.step() == names(0, 5000)


async def test_files_take_turns(rig):
    rig.write("a.log", lines(0, 4))
    rig.write("b.log", lines(4, 8))
    rig.start(batch_bytes=7, read_ahead=100)
    assert await rig.step() == [line for pair in zip(names(0, 4), names(4, 8), strict=True) for line in pair]


async def test_a_byte_order_mark_is_left_out(rig):
    rig.write("a.log", b"\xef\xbb\xbfone\ntwo\n")
    assert await rig.step() == ["one", "two"]
    assert rig.delivered[0][0].endswith("-3")


async def test_utf_16_is_left_alone_with_a_message(rig, caplog):
    rig.write("a.log", "one\n".encode("utf-16"))
    assert await rig.step() == []
    rig.write("a.log", "two\n".encode("utf-16-le"))
    assert await rig.step() == []
    assert caplog.text.count("UTF-16") == 1


async def test_folders_and_excluded_files_are_not_read(rig):
    rig.path("x.log").mkdir()
    rig.write("a.log", "one\n")
    rig.write("b.log.tmp", "two\n")
    rig.write("c.log", "three\n")
    rig.start(exclude=["*.tmp", str(rig.path("c.*"))])
    assert await rig.step() == ["one"]


async def test_two_stars_mean_any_folders(rig):
    rig.path("x/y").mkdir(parents=True)
    rig.write("a.log", "one\n")
    rig.write("x/y/b.log", "two\n")
    rig.start(paths=[str(rig.folder / "**" / "*.log")])
    assert await rig.step() == ["one", "two"]


async def test_a_file_that_may_not_be_read_is_reported_once_and_tried_again(rig, caplog, monkeypatch):
    rig.write("a.log", "one\n")

    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(_handles, "open_text", refuse)
    assert await rig.step() == []
    assert await rig.step() == []
    assert caplog.text.count("can't read") == 1
    monkeypatch.setattr(_handles, "open_text", open_text)
    assert await rig.step() == ["one"]


# Unfinished last lines


@pytest.mark.parametrize("away", ["rename", "delete", "suffix"])
async def test_the_unfinished_last_line_of_a_file_rotated_away_is_delivered_when_nothing_comes(rig, away):
    rig.start(idle=0)
    name = "a.log.1" if away == "suffix" else "a.log"
    rig.write(name, "one\ntwo")
    rig.start()
    if away != "suffix":
        assert await rig.step() == ["one"]
    if away == "rename":
        rig.path("a.log").rename(rig.path("a.log.1"))
    if away == "delete":
        rig.path("a.log").unlink()
    found = await rig.step() + await rig.step()
    assert found == (["one", "two"] if away == "suffix" else ["two"])
    await rig.step()
    assert (rig.follow.sources == {}) == (away == "delete")


async def test_the_only_and_unfinished_line_of_a_rotated_file_is_delivered_when_nothing_comes(rig):
    rig.start(idle=0)
    rig.write("a.log.1", "one")
    assert await rig.step() + await rig.step() == ["one"]


async def test_a_live_log_keeps_its_unfinished_line(rig):
    rig.start(idle=0)
    rig.write("a.log", "one\ntwo")
    assert await rig.step() + await rig.step() == ["one"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_an_end_that_comes_late_makes_no_empty_record(rig, end):
    rig.write("a.log", "one\ntwo")
    assert await rig.once() == ["one", "two"]
    rig.write("a.log", end + "three\n")
    assert await rig.once() == ["three"]


async def test_what_comes_late_after_an_unfinished_line_is_not_lost(rig):
    rig.write("a.log", "one\ntwo")
    await rig.once()
    rig.write("a.log", " and a half\nthree\n")
    assert await rig.once() == [" and a half", "three"]


# Long lines and holes


@pytest.mark.parametrize("batch_bytes", [3, 20, 1000])
async def test_a_line_that_is_too_long_is_cut_flagged_and_counted(rig, caplog, batch_bytes):
    rig.start(max_line_bytes=8, batch_bytes=batch_bytes)
    rig.write("a.log", "one\n" + "x" * 100 + "\ntwo\n" + "y" * 100 + "\n")
    assert await rig.step() == ["one", "x" * 8, "two", "y" * 8]
    flags = [(batch.origin.get("log.flags"), batch.block[:1]) for batch in rig.batches]
    assert {start for flag, start in flags if flag == "truncated"} == {b"x", b"y"}
    assert rig.counts["lines_cut"] == 2
    assert caplog.text.count("is cut to that") == 1
    rig.kill()
    rig.write("a.log", "three\n")
    assert await rig.step() == ["three"]


async def test_a_line_as_long_as_allowed_is_whole_though_a_batch_is_shorter(rig):
    rig.start(max_line_bytes=100, batch_bytes=10)
    rig.write("a.log", "x" * 100 + "\nshort\n")
    assert await rig.step() == ["x" * 100, "short"]


async def test_a_long_line_that_grows_is_delivered_when_it_ends_even_after_a_restart(rig):
    rig.start(max_line_bytes=8, batch_bytes=20)
    rig.write("a.log", "one\n" + "x" * 50)
    assert await rig.step() == ["one"]
    rig.kill()
    rig.write("a.log", "x" * 50)
    assert await rig.step() == []
    rig.write("a.log", "\ntwo\n")
    assert await rig.step() == ["x" * 8, "two"]


async def test_an_unfinished_long_line_is_delivered_at_the_end_of_a_single_run(rig):
    rig.write("a.log", "one\n" + "x" * 50)
    assert await rig.once(max_line_bytes=8, batch_bytes=20) == ["one", "x" * 8]


@pytest.mark.parametrize("batch_bytes", [7, 100, 1 << 20])
async def test_the_hole_that_a_truncation_leaves_is_passed_over(rig, batch_bytes):
    rig.start(batch_bytes=batch_bytes)
    rig.write("a.log", lines(0, 100))
    await rig.step()
    with rig.path("a.log").open("r+b") as file:  # a writer that does not append
        file.truncate(0)
        file.seek(100_000)
        file.write(lines(100, 110).encode())
    assert await rig.step() == names(100, 110)
    assert rig.delivered[-10][0].endswith("-100000")


async def test_nul_bytes_at_the_end_are_waited_for_since_they_may_be_written_over(rig):
    rig.start(batch_bytes=50)
    rig.write("a.log", lines(0, 2).encode() + bytes(1000))
    assert await rig.step() == names(0, 2)
    with rig.path("a.log").open("r+b") as file:
        file.seek(len(lines(0, 2)))
        file.write(lines(2, 4).encode())
    rig.touch("a.log")
    assert await rig.step() == names(2, 4)
    rig.write("a.log", lines(4, 5))
    assert await rig.step() == names(4, 5)


async def test_nothing_is_made_of_nul_bytes_at_the_end_of_a_single_run(rig):
    rig.write("a.log", lines(0, 2).encode() + bytes(100))
    assert await rig.once() == names(0, 2)


async def test_nul_bytes_before_half_a_line_are_passed_over(rig):
    rig.write("a.log", b"one\n\0\0\0tw")
    assert await rig.step() == ["one"]
    rig.write("a.log", "o\n")
    assert await rig.step() == ["two"]
    assert rig.delivered[-1][0].endswith("-7")


async def test_a_file_that_begins_with_a_long_hole_is_known_by_what_follows(rig):
    rig.write("a.log", bytes(200_000) + b"one\ntwo\n")
    assert await rig.step() == ["one", "two"]
    assert rig.batches[0].identity == file_identity("host", str(rig.path("a.log")), b"one")
    assert rig.delivered[0][0].endswith("-200000")


async def test_a_disk_that_fails_is_reported_once_and_asked_again(rig, monkeypatch, caplog):
    rig.write("a.log", "one\n")
    await rig.step()
    read = Plain.read

    def fail(self: Plain, at: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Plain, "read", fail)
    rig.write("a.log", "two\n")
    rig.write("b.log", "three\n")
    assert await rig.step() == []
    assert await rig.step() == []
    assert caplog.text.count("Input/output error") == 2
    monkeypatch.setattr(Plain, "read", read)
    assert sorted(await rig.step()) == ["three", "two"]


async def test_a_file_that_can_not_be_opened_again_now_is_read_later(rig, monkeypatch):
    rig.write("a.log", lines(0, 3))
    follow = rig.start(batch_bytes=7)
    await follow.look()
    await follow.read()
    follow.lines.handles.close_all()
    rig.path("a.log").rename(rig.path("x"))
    while await follow.read():
        pass
    rig.path("x").rename(rig.path("a.log"))
    assert [record for _, record in rig.delivered] == [b"line 0"]
    assert await rig.step() == names(1, 3)


TEXT = st.lists(st.sampled_from([b"\0", b"\0" * 30, b"a", b"b" * 30, b"\n", b"\r\n"]), max_size=30).map(b"".join)


@given(TEXT, st.lists(st.integers(0, 300), max_size=4), st.integers(1, 20), st.sampled_from([1, 3, 10, 1000]))
def test_records_and_their_ids_are_the_same_however_a_file_grew_and_was_read(text, cuts, limit, batch_bytes):
    async def read(parts: list[bytes], batch_bytes: int) -> list[tuple[str, bytes]]:
        with TemporaryDirectory() as folder:
            async with Rig(Path(folder)) as rig:
                rig.start(name="app", max_line_bytes=limit, batch_bytes=batch_bytes)
                for part in parts:
                    rig.write("a.log", part)
                    await rig.step()
                    rig.kill()
                await rig.once()
                return rig.delivered

    # An unfinished first line makes no identity that lasts.
    text = b"1\n" + text
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    parts = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert asyncio.run(read(parts, batch_bytes)) == asyncio.run(read([text], 10_000))

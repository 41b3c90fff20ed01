"""The file input on real files, looked at step by step; most tests never wait for anything."""

import asyncio
import contextlib
import gzip
import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zstandard
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.contract import Batch, Context, Outcome
from pipeline.identity import file_identity
from pipeline.inputs import _handles, _read
from pipeline.inputs._follow import Follow
from pipeline.inputs._text import open_text
from pipeline.inputs.file import File


class Store:
    """Positions in memory; what was put is lost with the process until the tick."""

    def __init__(self) -> None:
        self.durable: dict[str, dict[str, Any]] = {}
        self.pending: dict[str, dict[str, Any]] = {}
        self.damaged = False

    def load(self) -> dict[str, dict[str, Any]]:
        return dict(self.durable)

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.pending[key] = value

    def remove(self, key: str) -> None:
        self.pending.pop(key, None)
        self.durable.pop(key, None)

    def tick(self) -> None:
        self.durable |= self.pending
        self.pending.clear()


class Rig:
    """A folder, a state, what was delivered, and a file input that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store()
        self.delivered: list[tuple[str, bytes]] = []
        self.batches: list[Batch] = []
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.options: dict[str, Any] = {"paths": [str(folder / "*.log*")]}
        self.follow: Follow | None = None
        self.clock = time.time_ns() - 3600 * 10**9

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        if self.error:
            raise self.error
        await self.gate.wait()
        self.batches.append(batch)
        self.delivered += zip(batch.document_ids(), batch.records(), strict=True)
        return Outcome()

    def context(self, *, once: bool = False) -> Context:
        def gauge(name: str, value: float, labels: Mapping[str, str]) -> None:
            assert labels == {"input": "app"}
            self.gauges[name] = value

        def count(name: str, n: int, labels: Mapping[str, str]) -> None:
            assert labels == {"input": "app"}
            self.counts[name] += n

        return Context("app", "host", self.store, gauge, count, once)

    def start(self, *, once: bool = False, **options: Any) -> Follow:
        self.options |= options
        self.follow = Follow(File.Options(**self.options), self.context(once=once), self.deliver)
        return self.follow

    async def step(self) -> list[str]:
        """Look, read all that there is, and wait until it is delivered; what is new."""
        before = len(self.delivered)
        follow = self.follow or self.start()
        await follow.look()
        while await follow.read() or follow.waiting:
            await asyncio.sleep(0)
        await follow.drain()
        return [record.decode() for _, record in self.delivered[before:]]

    async def once(self, **options: Any) -> list[str]:
        """Run the whole input with `once`; what is new."""
        before = len(self.delivered)
        self.options |= options
        await File(File.Options(**self.options), self.context(once=True)).run(self.deliver, asyncio.Event())
        self.store.tick()
        return [record.decode() for _, record in self.delivered[before:]]

    def kill(self, *, tick: bool = True) -> None:
        """End the process; without the tick what was put last is lost."""
        if tick:
            self.store.tick()
        self.store.pending.clear()
        if self.follow:
            self.follow.close()
        self.follow = None

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, data: str | bytes) -> None:
        with self.path(name).open("ab") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        self.touch(name)

    def touch(self, name: str) -> None:
        """Give each write a time of its own, and one in the past: the clock of the file system is coarse."""
        self.clock += 10**7
        os.utime(self.path(name), ns=(self.clock, self.clock))

    def gzip(self, name: str) -> None:
        self.path(name + ".gz").write_bytes(gzip.compress(self.path(name).read_bytes()))
        self.touch(name + ".gz")
        self.path(name).unlink()

    def copytruncate(self, name: str, to: str) -> None:
        shutil.copy(self.path(name), self.path(to))
        self.touch(to)
        os.truncate(self.path(name), 0)
        self.touch(name)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.gate.set()
    rig.kill()


def lines(begin: int, end: int) -> str:
    return "".join(f"line {n}\n" for n in range(begin, end))


def names(begin: int, end: int) -> list[str]:
    return lines(begin, end).splitlines()


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
    await rig.step()
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


# Rotation


async def test_a_file_renamed_is_read_on_and_its_successor_from_the_start(rig):
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.write("a.log", lines(2, 4))
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.write("a.log", lines(10, 12))
    assert await rig.step() == names(2, 4) + names(10, 12)
    rig.write("a.log.1", lines(4, 5))
    assert await rig.step() == names(4, 5)


async def test_a_rotated_file_that_matches_no_more_is_read_to_its_end(rig):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.write("a.log", lines(2, 4))
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.write("a.log", lines(10, 12))
    assert sorted(await rig.step()) == sorted(names(2, 4) + names(10, 12))
    rig.write("a.log.1", lines(4, 5))
    assert await rig.step() == names(4, 5)


@pytest.mark.parametrize("to", ["a.log.1", "a-2026-11-20.log", "kept-by-hand"])
async def test_a_file_rotated_while_the_daemon_was_down_is_read_to_its_end(rig, to):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.kill()
    rig.write("a.log", lines(2, 4))
    rig.path("a.log").rename(rig.path(to))
    rig.write("a.log", lines(10, 12))
    assert sorted(await rig.step()) == sorted(names(2, 4) + names(10, 12))


async def test_a_file_rotated_and_compressed_while_the_daemon_was_down_is_read_to_its_end(rig):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.kill()
    rig.write("a.log", lines(2, 4))
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.gzip("a.log.1")
    rig.write("a.log", lines(10, 12))
    assert sorted(await rig.step()) == sorted(names(2, 4) + names(10, 12))
    rig.kill()
    assert await rig.step() == []


async def test_older_rotations_that_match_not_are_not_read_as_new_logs(rig):
    rig.write("a.log.7", lines(90, 95))
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.kill()
    rig.path("a.log").unlink()
    assert await rig.step() == []
    assert not rig.follow.sources


async def test_copy_and_truncate_repeats_and_loses_nothing(rig):
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.write("a.log", lines(2, 4))  # not yet read: only the copy has it
    rig.copytruncate("a.log", "a.log.1")
    rig.write("a.log", lines(10, 12))
    assert sorted(await rig.step()) == sorted(names(2, 4) + names(10, 12))
    assert rig.counts["files_truncated"] == 1


async def test_a_copy_seen_before_the_truncation_is_not_read(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    shutil.copy(rig.path("a.log"), rig.path("a.log.1"))
    assert await rig.step() == []
    os.truncate(rig.path("a.log"), 0)
    rig.write("a.log", lines(10, 12))
    assert await rig.step() == names(10, 12)


async def test_a_log_truncated_that_grew_beyond_its_old_place_is_read_from_the_start(rig):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 4))
    await rig.step()
    os.truncate(rig.path("a.log"), 0)
    rig.write("a.log", lines(10, 30))
    assert await rig.step() == names(10, 30)


async def test_a_log_truncated_that_grew_to_exactly_its_old_place_is_read_from_the_start(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    os.truncate(rig.path("a.log"), 0)
    rig.write("a.log", lines(4, 8))
    assert await rig.step() == names(4, 8)


async def test_a_log_truncated_while_the_daemon_was_down_is_read_from_the_start(rig):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 4))
    await rig.step()
    rig.kill()
    os.truncate(rig.path("a.log"), 0)
    rig.write("a.log", lines(10, 30))
    assert await rig.step() == names(10, 30)


async def test_the_copy_is_still_known_when_the_log_has_grown_and_the_daemon_was_restarted(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    shutil.copy(rig.path("a.log"), rig.path("a.log.bak"))
    assert await rig.step() == []
    rig.write("a.log", lines(4, 8))
    assert await rig.step() == names(4, 8)
    rig.kill()
    assert await rig.step() == []


async def test_a_long_copy_that_lacks_the_end_holds_nothing_new(rig):
    rig.write("a.log", lines(0, 5000))
    await rig.step()
    rig.path("a.log.1").write_bytes(rig.path("a.log").read_bytes()[:20_000])
    assert await rig.step() == []


async def test_a_log_goes_on_in_the_file_that_has_more_of_it(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    rig.path("new").write_text(lines(0, 6))  # as rsync does it: a new file under the old name
    rig.path("new").rename(rig.path("a.log"))
    rig.touch("a.log")
    assert await rig.step() == names(4, 6)


async def test_a_deleted_log_made_again_is_read_from_the_start(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    rig.path("a.log").unlink()
    rig.write("a.log", lines(10, 20))
    assert await rig.step() == names(10, 20)


async def test_lines_of_a_deleted_file_are_read_while_it_is_open(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    rig.write("a.log", lines(4, 8))
    rig.path("a.log").unlink()
    assert await rig.step() == names(4, 8)


async def test_a_re_creation_with_the_same_first_line_has_ids_of_its_own(rig):
    for n in range(3):
        rig.path("a.log").unlink(missing_ok=True)
        rig.write("a.log", "header\n" + lines(n, n + 1))
        assert await rig.step() == ["header", f"line {n}"]
    assert len({id_ for id_, _ in rig.delivered}) == 6
    path = str(rig.path("a.log"))
    assert [batch.identity for batch in rig.batches] == [
        file_identity("host", path, b"header", recreated) for recreated in range(3)
    ]


async def test_a_re_creation_that_so_far_is_the_same_counts_when_the_deletion_was_seen(rig):
    for _ in range(2):
        rig.path("a.log").unlink(missing_ok=True)
        rig.write("a.log", "backup done\n")
        assert await rig.step() == ["backup done"]
    assert len({id_ for id_, _ in rig.delivered}) == 2


async def test_truncation_under_the_same_first_line_counts_as_a_re_creation_after_a_restart_too(rig):
    rig.write("a.log", "header\n" + lines(0, 3))
    await rig.step()
    rig.kill()
    os.truncate(rig.path("a.log"), 0)
    rig.write("a.log", "header\n" + lines(3, 4))
    assert await rig.step() == ["header", "line 3"]
    rig.kill()
    rig.write("a.log", lines(4, 5))
    assert await rig.step() == ["line 4"]
    assert len({id_ for id_, _ in rig.delivered}) == len(rig.delivered)


async def test_logs_that_begin_alike_are_told_apart_once_they_differ(rig):
    rig.write("a-2026-11-20.log", "header\n")
    await rig.step()
    rig.write("a-2026-11-21.log", "header\n" + lines(0, 2))  # may be the same log, that has grown
    assert await rig.step() == names(0, 2)
    rig.write("a-2026-11-20.log", lines(10, 12))
    assert await rig.step() == names(10, 12)
    rig.write("a-2026-11-21.log", lines(2, 4))
    assert await rig.step() == names(2, 4)
    assert len({id_ for id_, _ in rig.delivered}) == len(rig.delivered)


async def test_many_logs_that_begin_alike_are_all_read(rig):
    for day in range(10, 15):
        rig.write(f"a-2026-11-{day}.log", "header\n" + lines(day * 10, day * 10 + 3))
    delivered = await rig.step()
    assert sorted(set(delivered)) == sorted({"header", *(n for d in range(10, 15) for n in names(d * 10, d * 10 + 3))})
    assert len({id_ for id_, _ in rig.delivered}) == len(rig.delivered)


async def test_an_inode_used_again_is_no_reason_to_skip(rig):
    rig.write("a.log", lines(0, 4))
    await rig.step()
    rig.kill()
    entry = next(value for value in rig.store.durable.values() if "offset" in value)
    rig.path("a.log").unlink()
    rig.write("b.log", lines(10, 30))
    status = rig.path("b.log").stat()
    entry |= {"device": status.st_dev, "inode": status.st_ino}
    assert await rig.step() == names(10, 30)


async def test_a_file_with_two_names_is_read_once(rig):
    rig.write("a.log", lines(0, 2))
    rig.path("b.log").symlink_to(rig.path("a.log"))
    rig.path("c.log").hardlink_to(rig.path("a.log"))
    rig.path("0.log").symlink_to(rig.path("a.log"))
    assert await rig.step() == names(0, 2)
    assert rig.batches[0].origin["log.file.path"] == str(rig.path("a.log"))


async def test_a_link_that_is_switched_leads_on_to_the_next_file(rig):
    rig.start(paths=[str(rig.path("current.log"))])
    rig.write("1", lines(0, 2))
    rig.path("current.log").symlink_to(rig.path("1"))
    assert await rig.step() == names(0, 2)
    rig.write("1", lines(2, 3))
    rig.write("2", lines(10, 12))
    rig.path("current.log").unlink()
    rig.path("current.log").symlink_to(rig.path("2"))
    assert sorted(await rig.step()) == sorted(names(2, 3) + names(10, 12))


async def test_a_link_to_nothing_is_passed_over(rig):
    rig.path("a.log").symlink_to(rig.path("nothing"))
    assert await rig.step() == []


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


# Archives


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


SKIPPABLE = b"\x5e\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
TEXT = lines(0, 50_000).encode()


@pytest.mark.parametrize("batch_bytes", [5000, 1 << 20])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.log.1.gz", gzip.compress(TEXT)),
        ("a.log.1.gz", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
        ("a.log.1.gz", gzip.compress(TEXT) + bytes(512)),
        ("a.log.1.zst", zstd(TEXT)),
        ("a.log.1.zst", zstd(TEXT[:1000]) + SKIPPABLE + zstd(TEXT[1000:])),
        ("a.log.1.zst", SKIPPABLE + zstd(TEXT)),
        ("a.log.without-a-suffix", gzip.compress(TEXT)),
    ],
)
async def test_archives_are_read_as_their_text(rig, name, data, batch_bytes):
    rig.start(batch_bytes=batch_bytes)
    rig.write(name, data)
    assert await rig.step() == names(0, 50_000)
    assert rig.delivered[-1][0].endswith(f"-{len(TEXT) - len('line 49999n')}")


@pytest.mark.parametrize("rotate", ["a.log.1", "a-2026-11-20.log"])
async def test_a_compressed_rotation_has_the_ids_of_the_live_log(rig, tmp_path, rotate):
    rig.write("a.log", lines(0, 5))
    await rig.step()
    rig.path("a.log").rename(rig.path(rotate))
    rig.gzip(rotate)
    rig.store.durable.clear()
    rig.kill(tick=False)
    assert await rig.step() == names(0, 5)
    assert rig.delivered[:5] == rig.delivered[5:]


async def test_a_compressed_rotation_of_a_log_that_was_read_adds_nothing(rig):
    rig.write("a.log", lines(0, 5000))
    await rig.step()
    rig.path("a.log").rename(rig.path("a.log.1"))
    assert await rig.step() == []
    rig.gzip("a.log.1")
    assert await rig.step() == []
    rig.kill()
    assert await rig.step() == []


async def test_the_end_of_a_log_is_read_from_its_archive(rig):
    rig.write("a.log", lines(0, 3000))
    await rig.step()
    rig.kill()
    rig.write("a.log", lines(3000, 5000))
    rig.gzip("a.log")
    assert await rig.step() == names(3000, 5000)


async def test_an_archive_that_is_done_is_not_opened_again(rig, monkeypatch):
    rig.write("a.log.1.gz", gzip.compress(TEXT))
    await rig.step()
    rig.kill()
    monkeypatch.setattr(_handles, "open_text", lambda path: pytest.fail(f"opened {path}"))
    assert await rig.step() == []


async def test_an_archive_just_written_to_is_left_until_it_is_complete(rig, monkeypatch):
    rig.write("a.log.1.gz", gzip.compress(TEXT))
    os.utime(rig.path("a.log.1.gz"))
    assert await rig.step() == []
    monkeypatch.setattr("pipeline.inputs._judge._SETTLING", 0)
    assert await rig.step() == names(0, 50_000)


@pytest.mark.parametrize(
    ("damaged", "complaint"),
    [
        (gzip.compress(TEXT)[:-1000], "ends in the middle"),
        (zstd(TEXT)[:-1000], "ends in the middle"),
        (gzip.compress(TEXT[:60_000]) + gzip.compress(TEXT[60_000:])[:20] + b"\xff" * 100, "a.log.1: "),
        (gzip.compress(TEXT[:60_000]) + b"garbage", "something else follows"),
    ],
)
async def test_of_a_damaged_archive_the_complete_lines_are_delivered_and_the_rest_when_it_is_restored(
    rig, caplog, damaged, complaint
):
    rig.write("a.log.1", damaged)
    found = await rig.step()
    assert found == names(0, len(found))
    assert caplog.text.count(complaint) == 1
    assert rig.counts["files_damaged"] == 1
    assert await rig.step() == []
    rig.path("a.log.1").write_bytes(gzip.compress(TEXT))
    rig.touch("a.log.1")
    assert found + await rig.step() == names(0, 50_000)


async def test_an_archive_damaged_at_once_is_reported(rig):
    rig.write("a.log.1.gz", b"\x1f\x8b\x08\xff" + b"\xff" * 40)
    assert await rig.step() == []


async def test_the_unfinished_last_line_of_an_archive_is_delivered(rig):
    rig.write("a.log.1.gz", gzip.compress(b"one\ntwo"))
    assert await rig.step() == ["one", "two"]


async def test_an_archive_is_not_read_while_its_log_is(rig):
    rig.write("a.log", lines(0, 5))
    rig.path("a.log.gz").write_bytes(gzip.compress(lines(0, 5).encode()))
    rig.touch("a.log.gz")
    assert await rig.step() == names(0, 5)
    assert await rig.step() == []


# Where to begin


async def test_start_end_begins_behind_what_is_there_at_the_very_first_start(rig):
    rig.start(start="end")
    rig.write("a.log", "old\nunfin")
    rig.write("b.log.1.gz", gzip.compress(b"old\n"))
    assert await rig.step() == []
    rig.write("a.log", "ished\nnew\n")
    rig.write("c.log", "later\n")
    assert await rig.step() == ["unfinished", "new", "later"]
    rig.kill()
    rig.write("d.log", "while down\n")
    assert await rig.step() == ["while down"]


async def test_start_end_keeps_its_place_when_nothing_came_before_a_kill(rig):
    rig.start(start="end")
    rig.write("a.log", "x" * 100_000 + "\nold\n")
    await rig.step()
    rig.kill()
    rig.write("a.log", "new\n")
    assert await rig.step() == ["new"]


async def test_start_end_does_not_count_after_damage_to_the_state(rig):
    rig.store.damaged = True
    rig.start(start="end")
    rig.write("a.log", "old\n")
    assert await rig.step() == ["old"]


async def test_start_end_without_any_newline_begins_at_the_beginning(rig):
    rig.start(start="end")
    rig.write("a.log", "x" * 5000)
    assert await rig.step() == []
    rig.write("a.log", "\n")
    assert await rig.step() == ["x" * 5000]


# State


async def test_after_a_kill_only_what_was_not_committed_is_read_again(rig):
    rig.write("a.log", lines(0, 3))
    await rig.step()
    rig.store.tick()
    rig.write("a.log", lines(3, 5))
    await rig.step()
    rig.kill(tick=False)
    assert await rig.step() == names(3, 5)
    assert rig.delivered[3:5] == rig.delivered[5:7]


async def test_nothing_is_committed_before_it_is_delivered(rig):
    rig.gate.clear()
    rig.write("a.log", lines(0, 3))
    follow = rig.start()
    await follow.look()
    await follow.read()
    await asyncio.sleep(0)
    assert [value for value in rig.store.pending.values() if "offset" in value] == []
    rig.gate.set()
    await follow.drain()
    assert [value["offset"] for value in rig.store.pending.values() if "offset" in value] == [len(lines(0, 3))]


async def test_an_archive_is_not_done_before_it_is_delivered(rig):
    rig.gate.clear()
    rig.write("a.log.1.gz", gzip.compress(b"one\n"))
    follow = rig.start()
    await follow.look()
    while await follow.read():
        pass
    await follow.look()
    assert [value for value in rig.store.pending.values() if "mtime" in value] == []
    rig.gate.set()
    await follow.drain()
    assert len([value for value in rig.store.pending.values() if "mtime" in value]) == 1


async def test_read_ahead_is_bounded_for_a_file(rig):
    rig.gate.clear()
    rig.write("a.log", lines(0, 100))
    follow = rig.start(batch_bytes=10, read_ahead=3)
    await follow.look()
    while await follow.read():
        pass
    assert follow.lines.under_way == 3 * len("line 0\n")
    assert follow.waiting
    rig.gate.set()
    assert await rig.step() == names(0, 100)


async def test_read_ahead_is_bounded_for_all_files_together(rig, monkeypatch):
    monkeypatch.setattr("pipeline.inputs._follow.TOTAL", 20)
    rig.gate.clear()
    for n in range(10):
        rig.write(f"{n}.log", lines(n, n + 1))
    follow = rig.start()
    await follow.look()
    while await follow.read():
        pass
    assert follow.lines.under_way == 3 * len("line 0\n")
    rig.gate.set()
    assert sorted(await rig.step()) == names(0, 10)


async def test_a_delivery_that_fails_ends_the_reading(rig):
    rig.error = OSError("disk full")
    rig.write("a.log", lines(0, 3))
    with pytest.raises(OSError, match="disk full"):
        await rig.step()


async def test_what_is_gone_for_long_is_forgotten_and_what_is_there_is_not(rig, monkeypatch):
    rig.write("gone.log", "one\n")
    rig.write("stays.log", "two\n")
    rig.write("stays.log.1.gz", gzip.compress(b"three\n"))
    rig.write("gone.log.1.gz", gzip.compress(b"four\n"))
    await rig.step()
    rig.kill()
    rig.path("gone.log").unlink()
    rig.path("gone.log.1.gz").unlink()
    now = time.time()
    for days in (3, 6, 9):
        monkeypatch.setattr("pipeline.inputs._log.time", lambda days=days: now + days * 86_400)
        assert await rig.step() == []
        rig.kill()
    assert len(rig.store.durable) == 4  # a log, an archive and its log, and that this was not the first start
    assert await rig.step() == []


async def test_the_count_of_re_creations_outlives_all_but_the_last(rig, monkeypatch):
    def recreated() -> list[int]:
        return [value["recreated"] for value in rig.store.load().values() if "offset" in value]

    now = time.time()
    for n in range(3):
        rig.write("a.log", f"header\nline {n}\n")
        await rig.step()
        rig.path("a.log").rename(rig.path("a.log.1" if n == 0 else "elsewhere"))
    rig.path("elsewhere").unlink()
    for days, left in [(0, [0, 1, 2]), (9, [0, 2]), (18, [0, 2])]:
        rig.kill()
        monkeypatch.setattr("pipeline.inputs._log.time", lambda days=days: now + days * 86_400)
        await rig.step()
        assert recreated() == left
    rig.path("a.log.1").unlink()
    rig.kill()
    monkeypatch.setattr("pipeline.inputs._log.time", lambda: now + 36 * 86_400)
    await rig.step()
    assert recreated() == []


# Handles and metrics


async def test_many_files_are_followed_with_few_handles(rig, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    files = 60
    follow = rig.start()
    for round_ in range(3):
        for n in range(files):
            rig.write(f"{n}.log", f"file {n} line {round_}\n")
        assert sorted(await rig.step()) == sorted(f"file {n} line {round_}" for n in range(files))
        assert len(follow.lines.handles) <= 10
    for n in range(files):
        rig.path(f"{n}.log").rename(rig.path(f"{n}.log.1"))
        rig.write(f"{n}.log.1", f"file {n} last\n")
    assert sorted(await rig.step()) == sorted(f"file {n} last" for n in range(files))


async def test_rotated_files_that_match_no_more_are_found_again_without_a_handle(rig, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, 32))
    rig.start(paths=[str(rig.path("*.log"))])
    for n in range(20):
        rig.write(f"{n}.log", f"file {n}\n")
    await rig.step()
    for n in range(20):
        rig.path(f"{n}.log").rename(rig.path(f"{n}.log.1"))
        rig.write(f"{n}.log.1", f"file {n} last\n")
    assert sorted(await rig.step()) == sorted(f"file {n} last" for n in range(20))


async def test_a_file_deleted_without_a_handle_is_let_go(rig, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, 32))
    for n in range(20):
        rig.write(f"{n}.log", f"file {n}\n")
    await rig.step()
    for n in range(20):
        rig.path(f"{n}.log").unlink()
    await rig.step()
    assert len(rig.follow.sources) <= 8


async def test_running_out_of_descriptors_is_no_end(rig, monkeypatch, caplog):
    rig.write("a.log", "one\n")
    refusals = iter([True])

    def scarce(path: str) -> Any:
        if next(refusals, False):
            raise OSError(24, "Too many open files")
        return open_text(path)

    monkeypatch.setattr(_handles, "open_text", scarce)
    assert await rig.step() + await rig.step() == ["one"]
    assert "Too many open files" in caplog.text


async def test_a_file_swapped_between_look_and_opening_is_left_to_the_next_look(rig, monkeypatch):
    rig.write("a.log", "one\n")
    follow = rig.start()

    def swap(path: str) -> Any:
        monkeypatch.setattr(_handles, "open_text", open_text)
        rig.path("a.log").rename(rig.path("a.log.1"))
        rig.write("a.log", "two\n")
        return open_text(path)

    monkeypatch.setattr(_handles, "open_text", swap)
    assert sorted(await rig.step() + await rig.step()) == ["one", "two"]
    assert len(follow.sources) == 2


async def test_the_lag_and_the_files_are_measured(rig):
    rig.gate.clear()
    rig.write("a.log", lines(0, 3))
    follow = rig.start()
    await follow.look()
    assert rig.gauges == {"file_lag_bytes": 21, "files_followed": 1, "files_open": 1}
    rig.gate.set()
    await rig.step()
    assert rig.gauges["file_lag_bytes"] == 0


# Running


class Running:
    """The input as the daemon runs it."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        rig.options |= {"poll": 0.05} | options
        self.rig, self.stop = rig, asyncio.Event()
        self.task = asyncio.create_task(File(File.Options(**rig.options), rig.context()).run(rig.deliver, self.stop))

    async def until(self, n: int) -> None:
        async with asyncio.timeout(10):
            while len(self.rig.delivered) < n:
                await asyncio.sleep(0.005)


async def test_it_follows_files_until_it_is_told_to_stop(rig):
    running = Running(rig)
    rig.write("a.log", lines(0, 2))
    await running.until(2)
    rig.write("a.log", lines(2, 4))
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.write("a.log", lines(10, 12))
    await running.until(6)
    running.stop.set()
    await running.task
    assert len(rig.delivered) == 6


async def test_new_lines_are_noticed_long_before_the_next_poll(rig):
    rig.write("a.log", lines(0, 1))
    running = Running(rig, poll=3600)
    await running.until(1)
    await asyncio.sleep(0.3)  # the notifications begin after the first look
    rig.write("a.log", lines(1, 2))
    await running.until(2)
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.write("a.log", lines(10, 12))
    await running.until(4)
    running.stop.set()
    await running.task


async def test_when_told_to_stop_it_waits_for_what_is_under_way(rig):
    rig.gate.clear()
    rig.write("a.log", lines(0, 2))
    running = Running(rig)
    await asyncio.sleep(0.1)
    running.stop.set()
    await asyncio.sleep(0.05)
    assert not running.task.done()
    rig.gate.set()
    await running.task
    assert len(rig.delivered) == 2


async def test_the_error_of_a_delivery_ends_it(rig):
    rig.error = OSError("disk full")
    rig.write("a.log", lines(0, 2))
    with pytest.raises(OSError, match="disk full"):
        await Running(rig).task


async def test_cancelled_at_the_deadline_it_commits_nothing_more(rig):
    rig.gate.clear()
    rig.write("a.log", lines(0, 2))
    running = Running(rig)
    await asyncio.sleep(0.1)
    running.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running.task
    rig.gate.set()
    await asyncio.sleep(0.01)
    assert [value for value in rig.store.pending.values() if "offset" in value] == []


async def test_a_single_run_reads_all_there_is_and_ends(rig):
    for n in range(20):
        rig.write("a.log", lines(n * 10, n * 10 + 10))
    rig.gzip("a.log")
    rig.write("a.log", "new\nunfinished")
    assert sorted(await rig.once(batch_bytes=10, read_ahead=2)) == sorted([*names(0, 200), "new", "unfinished"])
    assert await rig.once() == []


async def test_a_single_run_told_to_stop_ends(rig):
    rig.write("a.log", lines(0, 100))
    stop = asyncio.Event()
    stop.set()
    await File(File.Options(**rig.options), rig.context(once=True)).run(rig.deliver, stop)
    assert rig.delivered == []


# Any sequence of what can happen


class AnySequence(RuleBasedStateMachine):
    """What happens to logs, in any order, with a look in between now and then.

    Every line is one of a kind but for headers. All complete lines that stood in a file at a look, and all that are
    there at the end, must come out; no line torn, no id for two texts, and without a kill nothing twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporary = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.rig = Rig(Path(self.temporary.name))
        self.rig.gate = self.runner.run(self._open())
        self.written, self.due = set[bytes](), set[bytes]()
        self.n, self.unfinished = 0, b""
        self.killed = False
        self.start()

    @staticmethod
    async def _open() -> asyncio.Event:
        gate = asyncio.Event()
        gate.set()
        return gate

    def start(self) -> None:
        self.rig.start(batch_bytes=50, max_line_bytes=1000)

    def append(self, data: bytes) -> None:
        """Write to the log as its program does: on at the end, in a new file where there is none."""
        self.rig.write("app.log", data)

    @rule(count=st.integers(1, 40))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.n += 1
            line = self.unfinished + b"line %d" % self.n
            self.written.add(line)
            self.append(b"line %d\n" % self.n)
            self.unfinished = b""

    @rule()
    def write_a_header(self) -> None:
        path = self.rig.path("app.log")
        if not path.exists() or not path.stat().st_size:
            self.written.add(b"header")
            self.append(b"header\n")

    @rule()
    def write_half_a_line(self) -> None:
        self.n += 1
        self.unfinished += b"half %d " % self.n
        self.append(b"half %d " % self.n)

    def shift(self) -> None:
        """Make room for a rotation."""
        for n in (3, 2, 1):
            for suffix in ("", ".gz"):
                path = self.rig.path(f"app.log.{n}{suffix}")
                if path.exists():
                    path.rename(self.rig.path(f"app.log.{n + 1}{suffix}"))

    @rule()
    def rename(self) -> None:
        if self.rig.path("app.log").exists():
            self.shift()
            self.rig.path("app.log").rename(self.rig.path("app.log.1"))
            self.unfinished = b""

    @rule(seen=st.booleans())
    def copy_and_truncate(self, seen: bool) -> None:
        if self.rig.path("app.log").exists():
            self.shift()
            shutil.copy(self.rig.path("app.log"), self.rig.path("app.log.1"))
            self.rig.touch("app.log.1")
            if seen:
                self.look()
            self.truncate()

    @rule()
    def truncate(self) -> None:
        if self.rig.path("app.log").exists():
            os.truncate(self.rig.path("app.log"), 0)
            self.rig.touch("app.log")
            self.unfinished = b""

    @rule()
    def delete(self) -> None:
        self.rig.path("app.log").unlink(missing_ok=True)
        self.unfinished = b""

    @rule(seen=st.booleans())
    def compress(self, seen: bool) -> None:
        path = self.rig.path("app.log.1")
        if path.exists() and path.stat().st_size:
            self.rig.path("app.log.1.gz").write_bytes(gzip.compress(path.read_bytes()))
            self.rig.touch("app.log.1.gz")
            if seen:
                self.look()
            path.unlink()

    @rule(name=st.sampled_from(["0.log", "other.log"]))
    def link(self, name: str) -> None:
        if not self.rig.path(name).is_symlink():
            self.rig.path(name).symlink_to(self.rig.path("app.log"))

    @rule(tick=st.booleans())
    def kill(self, tick: bool) -> None:
        self.rig.kill(tick=tick)
        self.killed = True
        self.start()

    @rule()
    def look(self) -> None:
        self.due |= self.there()
        self.runner.run(self.rig.step())
        assert self.due <= {record for _, record in self.rig.delivered}

    def there(self) -> set[bytes]:
        """The complete lines of all files."""
        found = set()
        for path in self.rig.folder.iterdir():
            if path.exists():
                data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                found.update(data.split(b"\n")[:-1])
        return found

    @invariant()
    def nothing_is_torn_or_twice(self) -> None:
        ids: dict[str, bytes] = {}
        for id_, record in self.rig.delivered:
            assert record in self.written or record.startswith(b"half")
            assert ids.setdefault(id_, record) == record
        if not self.killed:
            assert len(ids) == len(self.rig.delivered)
            counts = Counter(record for _, record in self.rig.delivered if record != b"header")
            assert not [record for record, count in counts.items() if count > 1]

    def teardown(self) -> None:
        self.look()
        self.nothing_is_torn_or_twice()
        self.rig.kill()
        self.runner.close()
        self.temporary.cleanup()


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=int(os.environ.get("N", "60")), stateful_step_count=25)

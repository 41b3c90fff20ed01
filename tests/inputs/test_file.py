"""The file input: where it begins, what it remembers, how it runs; most tests never wait for anything."""

import asyncio
import contextlib
import gzip
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from watchfiles import Change

from pipeline.contract import Batch, Outcome
from pipeline.inputs import _handles, _scan
from pipeline.inputs._text import open_text
from pipeline.inputs.file import File
from tests.inputs.file_rig import Rig, lines, names


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


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
        async with asyncio.timeout(60):
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


async def test_paths_that_match_nothing_are_told(rig, caplog):
    with caplog.at_level("INFO"):
        assert await rig.once() == []
    assert f": no file matches {rig.folder}/*.log* yet" in caplog.text


async def test_a_single_run_told_to_stop_ends(rig):
    rig.write("a.log", lines(0, 100))
    stop = asyncio.Event()
    stop.set()
    await File(File.Options(**rig.options), rig.context(once=True)).run(rig.deliver, stop)
    assert rig.delivered == []


async def test_a_single_run_finds_the_rest_of_a_log_in_the_copy_beside_it(rig):
    rig.write("a.log", lines(0, 2))
    assert await rig.once(paths=[str(rig.path("a.log"))]) == names(0, 2)
    rig.write("a.log", lines(2, 4))
    rig.copytruncate("a.log", "a.log.1")
    rig.write("a.log", lines(10, 11))
    assert sorted(await rig.once()) == sorted(names(2, 4) + names(10, 11))


@pytest.mark.parametrize(
    ("patterns", "folders", "deep"),
    [
        (["{}/*.log"], [""], False),
        (["{}/a.log", "{}/b.log"], [""], False),
        (["{}/**/*.log"], [""], True),
        (["{}/x/*.log", "{}/*/y/*.log"], ["", "/x"], True),
        (["{}/nothing/*.log", "/*/app.log", "/*.log"], [], False),
    ],
)
def test_the_folders_to_watch_are_those_before_the_first_wildcard(tmp_path, patterns, folders, deep):
    (tmp_path / "x").mkdir()
    found, found_deep = _scan.roots([pattern.format(tmp_path) for pattern in patterns])
    assert found == [f"{tmp_path}{folder}" for folder in folders]
    assert not folders or found_deep == deep


async def test_without_folders_there_is_nothing_to_watch():
    await _scan.watch(["/nothing/*.log"], lambda *_: None)


async def test_where_the_system_can_not_watch_it_says_so(tmp_path, monkeypatch, caplog):
    def fail(*_: object, **__: object) -> None:
        raise OSError("inotify instance limit reached")

    monkeypatch.setattr("watchfiles.awatch", fail)
    await _scan.watch([str(tmp_path / "*.log")], lambda *_: None)
    assert "inotify instance limit reached" in caplog.text


async def test_watching_ends_with_its_source(tmp_path, monkeypatch):
    changed: list[set[str]] = []

    async def once(*_: object, **__: object) -> AsyncIterator[set[tuple[Change, str]]]:
        yield {(Change.modified, "a.log")}

    monkeypatch.setattr("watchfiles.awatch", once)
    await _scan.watch([str(tmp_path / "*.log")], lambda paths, _: changed.append(paths))
    assert changed == [{"a.log"}]


async def test_a_single_run_waits_for_room(rig):
    rig.write("a.log", lines(0, 10))
    rig.gate.clear()
    running = asyncio.create_task(rig.once(batch_bytes=7, read_ahead=1))
    await asyncio.sleep(0.05)
    assert not running.done()
    rig.gate.set()
    assert await running == names(0, 10)


async def test_a_single_run_looks_again_when_a_file_changed_under_its_hands(rig):
    rig.write("a.log", lines(0, 10))

    async def deliver(batch: Batch, *, wait: bool = True) -> Outcome:
        if not rig.batches:
            rig.copytruncate("a.log", "a.log.1")
            rig.write("a.log", lines(20, 40))
        outcome: Outcome = await rig.deliver(batch)
        return outcome

    options = File.Options(paths=[str(rig.path("a.log"))], batch_bytes=7)
    await File(options, rig.context(once=True)).run(deliver, asyncio.Event())
    assert sorted(record.decode() for _, record in rig.delivered) == sorted(names(0, 10) + names(20, 40))

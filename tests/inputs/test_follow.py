"""What happens to log files, on real ones, looked at step by step."""

import gzip
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.identity import file_identity
from tests.inputs.file_rig import Rig, lines, names


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


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


@pytest.mark.parametrize("grown", [1, 5, 50])
async def test_what_was_not_read_before_a_truncation_is_read_from_the_copy_though_that_matches_not(rig, grown):
    rig.start(paths=[str(rig.path("a.log"))])
    rig.write("a.log", lines(0, 2))
    await rig.step()
    rig.write("a.log", lines(2, 9))
    rig.copytruncate("a.log", "a.log.1")
    rig.gzip("a.log.1")
    rig.write("a.log", lines(10, 10 + grown))
    assert sorted(await rig.step()) == sorted(names(2, 9) + names(10, 10 + grown))
    assert await rig.step() == []


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


async def test_an_unfinished_line_in_one_of_two_logs_that_begin_alike_does_not_hide_the_other(rig):
    rig.write("a.log.1", "header\nhalf 1 ")
    rig.write("a.log", "header\nline 1\n")
    assert await rig.step() == ["header", "line 1"]


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


async def test_a_file_replaced_between_looks_calls_for_a_look(rig):
    rig.write("a.log", "one\n")
    await rig.step()
    path = str(rig.path("a.log"))
    rig.write("a.log", "two\n")
    await rig.follow.glance([path, "/nothing/of/ours"])
    assert not rig.follow.stale
    rig.path("a.log").rename(rig.path("a.log.1"))
    rig.write("a.log", "three\n")
    await rig.follow.glance([path])
    assert rig.follow.stale
    assert sorted(await rig.step()) == ["three", "two"]


async def test_a_truncation_found_by_reading_calls_for_a_look(rig):
    rig.write("a.log", lines(0, 4))
    follow = rig.start(batch_bytes=7)
    await follow.look()
    await follow.read()
    shutil.copy(rig.path("a.log"), rig.path("a.log.1"))
    rig.touch("a.log.1")
    rig.path("a.log").write_text(lines(10, 20))
    while await follow.read():
        pass
    assert follow.stale
    assert sorted(record.decode() for _, record in rig.delivered) == ["line 0", *names(10, 20)]
    assert await rig.step() == names(1, 4)


async def test_a_log_that_goes_on_in_a_longer_copy_is_read_from_there_though_its_next_line_is_long(rig):
    rig.write("a.log", "one\n")
    await rig.step()
    rig.write("a.log.bak", "one\n" + "x" * 100_000 + "\n")
    assert [len(line) for line in await rig.step()] == [100_000]


async def test_an_unfinished_end_in_a_copy_changes_nothing(rig):
    rig.write("a.log", "one\ntwo and")
    await rig.step()
    rig.write("a.log.bak", "one\ntwo")
    assert await rig.step() == []
    rig.write("a.log", " a half\n")
    assert await rig.step() == ["two and a half"]


async def test_a_folder_that_is_gone_is_no_error(rig):
    rig.path("logs").mkdir()
    rig.start(paths=[str(rig.path("logs/*.log"))])
    rig.write("logs/a.log", "one\n")
    await rig.step()
    rig.kill()
    shutil.rmtree(rig.path("logs"))
    assert await rig.step() == []


async def test_an_archive_that_is_replaced_while_it_is_read_is_begun_again(rig):
    rig.write("a.log.gz", gzip.compress(lines(0, 5000).encode()))
    follow = rig.start(batch_bytes=1000)
    await follow.look()
    await follow.read()
    rig.path("a.log.gz").write_bytes(gzip.compress(lines(0, 6000).encode()))
    rig.touch("a.log.gz")
    await rig.step()
    assert [record.decode() for _, record in rig.delivered] == names(0, 6000)


async def test_a_file_that_was_taken_for_a_copy_and_is_written_anew_is_read_from_the_start(rig):
    rig.write("a-2026-11-20.log", "header\n")
    await rig.step()
    rig.write("a-2026-11-21.log", "header\n" + lines(0, 2))
    assert await rig.step() == names(0, 2)
    os.truncate(rig.path("a-2026-11-20.log"), 0)
    rig.write("a-2026-11-20.log", lines(10, 20))
    assert await rig.step() == names(10, 20)


async def test_a_file_in_turn_to_be_read_that_holds_another_log_by_then_is_passed_over(rig):
    rig.write("a.log", lines(0, 4))
    follow = rig.start(batch_bytes=7)
    await follow.look()
    await follow.read()
    os.truncate(rig.path("a.log"), 0)
    rig.touch("a.log")
    await follow.glance([str(rig.path("a.log"))])
    assert await follow.read() is False
    rig.write("a.log", lines(4, 6))
    assert await rig.step() == names(4, 6)


async def test_two_logs_that_begin_alike_and_grow_between_two_looks_are_both_read(rig):
    rig.write("a-2026-11-20.log", "header\n")
    await rig.step()
    rig.write("a-2026-11-20.log", lines(0, 2))
    rig.write("a-2026-11-21.log", "header\n" + lines(10, 20))
    assert [line for line in await rig.step() if line != "header"] == names(0, 2) + names(10, 20)
    rig.kill()
    assert await rig.step() == []

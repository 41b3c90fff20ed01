import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from pipeline.contract import Unusable
from pipeline.database import Database, StorageError, lock
from pipeline.table import Table, sealed

THINGS = Table("things", {"name": "TEXT", "data": "BLOB"}, ("name",))


def put(name: str, data: bytes, connection: sqlite3.Connection) -> str:
    connection.execute(THINGS.insert("REPLACE"), sealed((name, data)))
    return name


def fail(connection: sqlite3.Connection) -> None:
    put("half", b"", connection)
    raise LookupError("a mistake")


@pytest.fixture
async def database(tmp_path, caplog):
    caplog.set_level("INFO")
    database = Database(tmp_path / "x.db", [THINGS])
    await database.start()
    yield database
    await database.stop()


async def names(database: Database) -> list[str]:
    rows = await database.read(lambda connection: database.select(connection, THINGS, "ORDER BY n"))
    return [name for _, name, _ in rows]


async def test_what_a_write_returned_for_is_there_after_a_kill(database, tmp_path):
    assert await database.write(partial(put, "a", b"1")) == "a"
    (tmp_path / "killed").mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{database.path}{suffix}", tmp_path / "killed")
    after = Database(tmp_path / "killed" / "x.db", [THINGS])
    await after.start()
    assert await names(after) == ["a"]
    await after.stop()


async def test_those_who_write_at_the_same_time_share_a_transaction(database):
    said: list[str] = []
    await database.read(lambda connection: connection.set_trace_callback(said.append))
    results = await asyncio.gather(*(database.write(partial(put, f"{n}", b"")) for n in range(100)))
    assert results == [f"{n}" for n in range(100)]
    assert said.count("COMMIT") == 1


async def test_who_writes_during_a_transaction_waits_for_the_next(database):
    going_on, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(going_on.set)
        go_on.wait(10)

    first = asyncio.create_task(database.write(slow))
    await going_on.wait()
    second = asyncio.create_task(database.write(partial(put, "a", b"")))
    third = asyncio.create_task(database.write(partial(put, "b", b"")))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, second, third)
    assert await names(database) == ["a", "b"]


async def test_one_that_rests_leaves_the_disk_to_others_and_writes_together_what_came_meanwhile(tmp_path):
    database, times = Database(tmp_path / "x.db", [THINGS], rest=3), []

    def slow(_: sqlite3.Connection) -> None:
        times.append(time.monotonic())
        time.sleep(0.02)

    await database.start()
    await database.write(slow)
    said: list[str] = []
    await database.read(lambda connection: connection.set_trace_callback(said.append))
    await asyncio.gather(database.write(slow), asyncio.sleep(0.01))
    await asyncio.gather(*(database.write(partial(put, f"{n}", b"")) for n in range(5)))
    await database.stop()
    assert times[1] - times[0] > 4 * 0.02
    assert said.count("COMMIT") == 2


async def test_a_mistake_in_one_write_does_not_touch_its_neighbours(database):
    results = await asyncio.gather(
        database.write(partial(put, "a", b"")),
        database.write(fail),
        database.write(partial(put, "b", b"")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [str, LookupError, str]
    assert await names(database) == ["a", "b"]


async def test_a_cancelled_write_does_not_touch_its_neighbours(database):
    cancelled = asyncio.create_task(database.write(partial(put, "a", b"")))
    other = asyncio.create_task(database.write(partial(put, "b", b"")))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await other == "b"
    assert await names(database) == ["a", "b"]


async def test_stop_finishes_what_is_being_written(tmp_path):
    database = Database(tmp_path / "x.db", [THINGS])
    await database.start()
    write = asyncio.create_task(database.write(partial(put, "a", b"")))
    await asyncio.sleep(0)
    await database.stop()
    assert await write == "a"


async def test_stop_without_start_is_no_mistake(tmp_path):
    await Database(tmp_path / "x.db", [THINGS]).stop()


async def test_wrong_sql_is_raised_as_it_is(database):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.write(lambda connection: connection.execute("SELECT * FROM missing"))
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(lambda connection: [connection.execute("INSERT INTO things (n) VALUES (1)") for _ in "ab"])


async def test_a_full_disk_changes_nothing_and_passes(database, caplog):
    await database.write(partial(put, "before", b""))
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall())
    for _ in range(3):
        with pytest.raises(StorageError, match=re.escape(f"{database.path}: database or disk is full")):
            await database.write(partial(put, "large", bytes(100_000)))
    assert await names(database) == ["before"]
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall())
    await database.write(partial(put, "large", bytes(100_000)))
    assert await names(database) == ["before", "large"]
    assert caplog.messages == [
        f"{database.path}: database or disk is full",
        f"{database.path} can be written to again",
    ]


async def test_a_database_that_someone_else_has_locked_may_be_written_to_later(database):
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await database.read(lambda connection: connection.execute("PRAGMA busy_timeout = 1").fetchall())
    with pytest.raises(StorageError, match="locked"):
        await database.write(partial(put, "a", b""))
    other.close()
    await database.write(partial(put, "a", b""))


def overwrite(database: Database, at: int) -> None:
    with database.path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * (database.path.stat().st_size - at))


async def test_damage_that_shows_later_is_no_hindrance_either(database, caplog):
    for n in range(200):
        await database.write(partial(put, f"{n}", bytes(500)))
    await database.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    overwrite(database, 20 * 4096)
    await database.read(lambda connection: connection.execute("PRAGMA shrink_memory").fetchall())
    left = await names(database)
    assert 0 < len(left) < 200
    assert database.damaged
    assert f"{database.path} is damaged" in caplog.text
    await database.write(partial(put, "new", b""))
    assert await names(database) == [*left, "new"]


async def test_damage_on_a_full_disk_waits_for_room(database, monkeypatch):
    def full(reason: str) -> None:
        raise OSError(28, "No space left on device")

    def damaged(connection: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(database._file, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        await database.read(damaged)
    await database.write(partial(put, "a", b""))


async def test_a_row_that_is_not_as_it_was_written_is_skipped_and_put_apart(database, caplog):
    for name in "abc":
        await database.write(partial(put, name, name.encode()))
    await database.write(lambda connection: connection.execute("UPDATE things SET data = x'ff' WHERE name = 'b'"))
    assert await names(database) == ["a", "c"]
    assert await database.read(
        lambda connection: connection.execute("SELECT count(*) FROM damaged_rows").fetchall()
    ) == [(1,)]
    assert caplog.text.count("a row of things is damaged") == 1
    assert await names(database) == ["a", "c"]
    assert caplog.text.count("a row of things is damaged") == 1
    assert database.damaged


async def test_text_that_is_none_any_more_does_not_end_the_query(database):
    for name in "abc":
        await database.write(partial(put, name, b""))
    await database.write(
        lambda connection: connection.execute("UPDATE things SET name = CAST(x'ff61' AS TEXT) WHERE name = 'b'")
    )
    assert await names(database) == ["a", "c"]


async def test_reading_now_needs_no_event_loop(database):
    await database.write(partial(put, "a", b""))
    assert len(database.read_now(lambda connection: database.select(connection, THINGS, ""))) == 1


async def test_a_folder_that_cannot_be_made_is_unusable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match=r"x\.db can't be opened: File exists"):
        await Database(tmp_path / "file" / "x.db", [THINGS]).start()
    (tmp_path / "x.db").mkdir()
    with pytest.raises(Unusable, match="unable to open database file"):
        await Database(tmp_path / "x.db", [THINGS]).start()
    assert (tmp_path / "x.db").is_dir()


# --- the lock ---


def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path):
    with lock(tmp_path / "data"):
        message = f"{tmp_path}/data/lock: another aiologs (pid {os.getpid()}) uses this data_dir"
        with pytest.raises(Unusable, match=re.escape(message)), lock(tmp_path / "data"):
            pass
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "lock").stat().st_mode & 0o777 == 0o600
    with lock(tmp_path / "data"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    program = (
        "import sys, pathlib, pipeline.database\n"
        "with pipeline.database.lock(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"1\n"
        with pytest.raises(Unusable, match=f"pid {owner.pid}"), lock(tmp_path):
            pass
        owner.kill()
        owner.wait()
        with lock(tmp_path):
            pass


def test_a_data_dir_that_cannot_be_written_to_is_unusable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="lock: File exists"), lock(tmp_path / "file"):
        pass

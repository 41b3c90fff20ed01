import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline import sqlite
from pipeline.contract import Unusable
from pipeline.sqlite import File, connect, shrink, size
from pipeline.table import Table, sealed, sound

THINGS = Table("things", {"name": "TEXT", "data": "BLOB"}, ("name",))
OTHERS = Table("others", {"name": "TEXT"}, ("name",))
ROWS = {f"thing {n}": bytes([n % 256]) * (10 + n % 7 * 100) for n in range(300)}


def put(connection, names) -> None:
    connection.execute("BEGIN")
    connection.executemany(THINGS.insert("REPLACE"), [sealed((name, ROWS[name])) for name in names])
    connection.execute("COMMIT")


def found(connection) -> dict[str, bytes]:
    rows = connection.execute(THINGS.select("")).fetchall()
    return {row[1]: row[2] for row in rows if sound(row[1:])}


def opened(path: Path) -> tuple[File, sqlite3.Connection]:
    file = File(path, [THINGS, OTHERS])
    return file, file.open()


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The files of a database whose owner was killed: half of the rows are in the file, half in its log."""
    folder: Path = tmp_path_factory.mktemp("killed")
    file, connection = opened(folder / "work" / "x.db")
    names = list(ROWS)
    put(connection, names[:150])
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    for n in range(150, 300, 10):
        put(connection, names[n : n + 10])
    shutil.copytree(folder / "work", folder / "kept")
    file.close(connection)
    return folder / "kept"


@pytest.fixture
def data(killed) -> Iterator[Path]:
    """A copy of it, in memory where that is possible: hundreds of tests need not wait for a disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(shutil.copytree(killed, Path(folder) / "data"))


# --- rows ---


def test_a_new_file_is_for_its_owner_only_and_so_is_its_folder(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "new" / "x.db"
    file, connection = opened(path)
    assert [each.stat().st_mode & 0o777 for each in sorted(path.parent.iterdir())] == [0o600] * 3
    assert path.parent.stat().st_mode & 0o777 == 0o700
    file.close(connection)
    assert [each.name for each in path.parent.iterdir()] == ["x.db"]
    assert not file.damaged
    assert caplog.messages == [f"{path} is new"]


def test_a_file_that_others_may_read_is_closed_to_them(data):
    (data / "x.db").chmod(0o644)
    file, connection = opened(data / "x.db")
    file.close(connection)
    assert (data / "x.db").stat().st_mode & 0o777 == 0o600


def test_commits_reach_the_disk_at_once(tmp_path):
    file, connection = opened(tmp_path / "x.db")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close(connection)


@pytest.mark.parametrize("times", [1, 3])
def test_nothing_is_lost_when_the_owner_is_killed(data, caplog, times):
    for n in range(times):
        file, connection = opened(data / "x.db")
        assert found(connection) == ROWS
        assert not file.damaged
        shutil.copytree(data, data.with_name(f"data{n}"))
        file.close(connection)
        data = data.with_name(f"data{n}")
    assert caplog.messages == []


def test_a_file_that_was_closed_while_someone_read_it_is_sound(tmp_path, caplog):
    path = tmp_path / "x.db"
    file, connection = opened(path)
    put(connection, ROWS)
    with closing(connect(path, "ro")) as reader:
        reader.execute("BEGIN")
        assert found(reader) == ROWS
        file.close(connection)
        assert (tmp_path / "x.db-wal").exists()
        file, connection = opened(path)
        assert found(connection) == ROWS
        file.close(connection)
    assert not file.damaged
    assert caplog.messages == []


def test_what_a_crash_left_of_a_new_file_is_no_hindrance(tmp_path):
    (tmp_path / "x.db.new").write_bytes(b"half")
    (tmp_path / "x.db.new-wal").write_bytes(b"half")
    file, connection = opened(tmp_path / "x.db")
    assert found(connection) == {}
    assert not file.damaged
    file.close(connection)


def test_free_pages_go_back_to_the_file_system(tmp_path):
    file, connection = opened(tmp_path / "x.db")
    connection.execute("BEGIN")
    connection.executemany(THINGS.insert("REPLACE"), [sealed((str(n), bytes(5000))) for n in range(100)])
    connection.execute("COMMIT")
    full = size(connection)
    connection.execute("DELETE FROM things")
    assert size(connection) < full / 5
    shrink(connection)
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert connection.execute("PRAGMA page_count").fetchone()[0] < full / 4096 / 5
    file.close(connection)


def test_what_is_not_damage_is_not_treated_as_damage(tmp_path):
    (tmp_path / "x.db").mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        opened(tmp_path / "x.db")
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]


# --- damage ---


def truncate(path: Path, eighth: int) -> None:
    os.truncate(path, path.stat().st_size * eighth // 8)


def zero_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-4096] + bytes(min(4096, len(content))))


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def flip(path: Path, seed: int, bits: int) -> None:
    content, r = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(bits):
        content[r.randrange(len(content))] ^= 1 << r.randrange(8)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"truncated to {n}/8": partial(truncate, eighth=n) for n in range(8)},
    "zeroed at its end": zero_end,
    "zeroed": zero,
    "garbage": garbage,
    "with 64 flipped bits": partial(flip, seed=0, bits=64),
    **{f"with bit {n} flipped": partial(flip, seed=n, bits=1) for n in range(1, 65)},
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["x.db", "x.db-wal", "x.db-shm"])
def test_whatever_is_damaged_the_file_opens_and_what_is_in_it_is_right(data, caplog, name, damage):
    DAMAGES[damage](data / name)
    file, connection = opened(data / "x.db")
    rows = found(connection)
    assert rows.items() <= ROWS.items()
    count = connection.execute("SELECT count(*) FROM things").fetchone()[0]
    # Whoever reads sees by the checksum that a row is damaged. A log that just ends earlier looks as if it had been so.
    if len(rows) < len(ROWS) and count == len(rows) and not (name == "x.db-wal" and "truncated" in damage):
        assert file.damaged
    if file.damaged:
        assert str(data / "x.db") in caplog.text
    put(connection, ROWS)
    file.close(connection)
    file, connection = opened(data / "x.db")
    assert not file.damaged
    assert found(connection) == ROWS
    file.close(connection)


@pytest.mark.parametrize("damage", ["truncated to 0/8", "zeroed", "garbage", "deleted"])
def test_a_lost_log_is_noticed(data, caplog, damage):
    DAMAGES[damage](data / "x.db-wal")
    file, connection = opened(data / "x.db")
    assert file.damaged
    assert "x.db-wal is" in caplog.text
    assert len(found(connection)) == 150
    file.close(connection)


def test_a_cut_that_the_log_makes_good_is_told(tmp_path, caplog):
    _, connection = opened(tmp_path / "work" / "x.db")
    put(connection, ROWS)
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    put(connection, ROWS)  # every page of theirs is in the log now, too
    data = Path(shutil.copytree(tmp_path / "work", tmp_path / "data"))
    connection.close()
    os.truncate(data / "x.db", (data / "x.db").stat().st_size - 100)
    caplog.clear()
    file, connection = opened(data / "x.db")
    assert f"{data / 'x.db'} was cut off within a page" in caplog.text
    assert not file.damaged
    assert found(connection) == ROWS
    file.close(connection)


def test_a_log_with_a_damaged_transaction_is_kept_and_what_follows_it_counted(data, caplog):
    content = bytearray((data / "x.db-wal").read_bytes())
    content[len(content) * 3 // 4] ^= 1
    (data / "x.db-wal").write_bytes(content)
    file, connection = opened(data / "x.db")
    assert file.damaged
    assert "of its transactions are lost" in caplog.text
    assert 150 < len(found(connection)) < 300
    [kept] = data.glob("x.db-wal.damaged-*")
    assert kept.read_bytes() == content
    file.close(connection)


def test_what_is_sound_in_a_damaged_file_is_taken_over_and_the_file_kept(data, caplog):
    file, connection = opened(data / "x.db")
    file.close(connection)
    content = bytearray((data / "x.db").read_bytes())
    content[-4096:] = b"\xff" * 4096
    (data / "x.db").write_bytes(content)
    file, connection = opened(data / "x.db")
    assert file.damaged
    assert 200 < len(found(connection)) < 300
    [kept] = data.glob("x.db.damaged-*Z")
    assert kept.read_bytes() == content
    assert "rows are taken over" in caplog.text
    file.close(connection)


def test_rows_that_are_not_as_they_were_written_are_not_taken_over(tmp_path, caplog):
    file, connection = opened(tmp_path / "x.db")
    put(connection, ROWS)
    connection.execute("UPDATE things SET data = x'00' WHERE name IN ('thing 3', 'thing 4')")
    connection.execute("UPDATE things SET sum = NULL WHERE name = 'thing 5'")
    file.close(connection)
    file.replace("a test says so")
    assert "297 of its rows are taken over, 3 more" in caplog.text


@pytest.mark.parametrize("tables", [[], [Table("things", {"name": "BLOB"}, ("name",))]])
def test_a_file_with_other_tables_is_replaced(tmp_path, caplog, tables):
    other = File(tmp_path / "x.db", tables)
    connection = other.open()
    if tables:
        connection.execute(tables[0].insert("IGNORE"), sealed((b"a",)))
    other.close(connection)
    file, connection = opened(tmp_path / "x.db")
    assert file.damaged
    assert "its tables are not those" in caplog.text
    file.close(connection)


def test_a_file_knows_the_version_that_it_was_written_with_and_opens_with_it(tmp_path, caplog):
    file, connection = opened(tmp_path / "x.db")
    put(connection, ["thing 1"])
    file.close(connection)
    file, connection = opened(tmp_path / "x.db")
    assert connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchall() == [(str(sqlite.VERSION),)]
    assert list(found(connection)) == ["thing 1"]
    file.close(connection)
    assert "damaged" not in caplog.text


def test_a_file_of_a_later_release_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "x.db"
    monkeypatch.setattr(sqlite, "VERSION", 2)
    file = File(path, [THINGS])  # which has other tables, too
    file.close(file.open())
    monkeypatch.undo()
    before = path.read_bytes()
    with pytest.raises(Unusable, match=r"x\.db was written by a later release \(its version is 2, this one knows 1\)"):
        opened(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]


def test_a_version_that_is_not_as_it_was_written_is_no_later_one(tmp_path):
    file, connection = opened(tmp_path / "x.db")
    put(connection, ["thing 1"])
    connection.execute("UPDATE meta SET value = '9' WHERE name = 'version'")
    file.close(connection)
    file, connection = opened(tmp_path / "x.db")
    assert list(found(connection)) == ["thing 1"]
    file.close(connection)


def test_another_database_under_its_name_is_not_taken_for_it(tmp_path, caplog):
    other, connection = opened(tmp_path / "y.db")
    put(connection, ROWS)
    other.close(connection)
    (tmp_path / "y.db").rename(tmp_path / "x.db")
    file, connection = opened(tmp_path / "x.db")
    assert file.damaged
    assert "another kind of file" in caplog.text
    file.close(connection)


@pytest.mark.parametrize("with_log", [True, False])
def test_an_older_copy_in_its_place_is_used(killed, data, with_log):
    file, connection = opened(data / "x.db")
    connection.execute("DELETE FROM things")
    if not with_log:
        file.close(connection)
    shutil.copy(killed / "x.db", data / "x.db")
    file, again = opened(data / "x.db")
    assert found(again).items() <= ROWS.items()
    file.close(again)
    connection.close()


def test_a_large_file_is_opened_without_looking_at_all_of_it(data, monkeypatch):
    file, connection = opened(data / "x.db")
    file.close(connection)
    with (data / "x.db").open("r+b") as raw:
        raw.seek(-4096, os.SEEK_END)
        raw.write(b"\xff" * 4096)
    monkeypatch.setattr(sqlite, "CHECKED_BYTES", 4096)
    file, connection = opened(data / "x.db")
    assert not file.damaged
    file.close(connection)


def test_a_row_is_put_apart_with_its_content(tmp_path, caplog):
    file, connection = opened(tmp_path / "x.db")
    put(connection, ["thing 1"])
    file.put_apart(connection, THINGS, (1, "thing 1", b"what is there"))
    assert found(connection) == {}
    origin, n, _, content = connection.execute("SELECT * FROM damaged_rows").fetchone()
    assert (origin, n, content) == ("things", 1, "(1, 'thing 1', b'what is there')")
    assert "{'name': 'thing 1'}" in caplog.text
    assert file.damaged
    file.close(connection)

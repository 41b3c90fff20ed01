"""One SQLite file: made, checked when it is opened, and replaced when it is damaged, with what can still be read.

SQLite has no checksums in its database file, so every row carries one of its own (`table`). Its write-ahead log has
some, but SQLite takes the first frame that fails for the log's end and says nothing; that transactions are missing is
found here, by their headers and by a mark that a file is open.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

from pipeline.contract import Unusable
from pipeline.table import Row, Table, sealed, sound

log = logging.getLogger("aiologs.database")

VERSION = 1
"""Of what the files hold and mean; a release that changes it takes files of the versions before over."""
CHECKED_BYTES = 64 << 20
"""A file up to this size is checked whole when it is opened, in a fraction of a second; in a larger one damage shows
when its page or its row is read."""
_WAL_BYTES = 64 << 20
"""The write-ahead log is cut back to this size where it had to grow beyond it."""


META = Table("meta", {"name": "TEXT", "value": "TEXT"}, ("name",))
_ROWS_PUT_APART = "CREATE TABLE damaged_rows (origin TEXT, n INTEGER, time REAL, content TEXT)"


def is_damage(error: BaseException) -> bool:
    """Whether an error of SQLite says that the file is damaged, or no database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _damage(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open an existing file, `mode` rw or ro. Transactions are begun and ended by hand."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    # A flipped bit may make text that is not UTF-8: the row's checksum tells, and the query goes on.
    connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    return connection


def size(connection: sqlite3.Connection) -> int:
    """The bytes in use: pages that wait to be used again don't count."""
    pages, free, each = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * each)


def shrink(connection: sqlite3.Connection) -> None:
    """Give some of the free pages (up to 2 MiB) back to the file system."""
    # A page a call: SQLite frees one with every step, and Python takes a single step of what returns no columns.
    for _ in range(min(512, connection.execute("PRAGMA freelist_count").fetchone()[0])):
        connection.execute("PRAGMA incremental_vacuum(1)")


class File:
    """The file of a database and what belongs beside it."""

    def __init__(self, path: Path, tables: Sequence[Table]) -> None:
        self.path, self._tables = path, tables
        self._schema = [*(table.create for table in (META, *tables)), _ROWS_PUT_APART]
        # A file under another's name is not taken for it.
        self._application = crc32(path.name.encode()) & 0x7FFFFFFF
        self.damaged = False
        """Whether something that was in it was lost since this object was made."""

    def open(self) -> sqlite3.Connection:
        """Open the file; make it where it is missing, replace it where it is damaged.

        Raises `OSError` or `sqlite3.OperationalError` where the disk or the rights don't allow it, `Unusable` where a
        later release has written it.
        """
        make_folder(self.path.parent)
        wal = self._beside("-wal")
        if not self.path.exists():
            if wal.exists():
                self.replace("it is gone, though its log is there")
            else:
                log.info("%s is new", self.path)
                self._put_in_place(self._made())
        transactions = _transactions(wal)
        try:
            return self._checked(transactions)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.replace(str(error))
            return self._checked([])

    def close(self, connection: sqlite3.Connection) -> None:
        """Close the file properly: no log is left beside it, unless someone else reads it."""
        with suppress(sqlite3.Error):
            _note(connection, "open", "no")
        connection.close()

    def replace(self, reason: str) -> None:
        """Put a new file into the place of the damaged one, with the rows that can be read and are sound.

        The old one is kept beside it. Nobody may have it open.
        """
        self.damaged = True
        aside = self.path.with_name(f"{self.path.name}.damaged-{_stamp()}")
        new = self._made()
        taken, unsound = self._take_over(new)
        for suffix in ("-wal", "-shm", ""):  # the database last: until then the next start finds it and does this again
            with suppress(FileNotFoundError):
                self._beside(suffix).rename(f"{aside}{suffix}")
        self._put_in_place(new)
        log.error(
            "%s is damaged: %s. It is kept as %s; %d of its rows are taken over, %d more can be read but are damaged, "
            "and what else was in it is lost",
            self.path, reason, aside.name, taken, unsound,
        )  # fmt: skip

    def put_apart(self, connection: sqlite3.Connection, table: Table, row: Row) -> None:
        """Move a row (n, columns) that is not as it was written out of its table."""
        self.damaged = True
        values = dict(zip(table.columns, row[1:], strict=True))
        key = {name: values[name] for name in table.key}
        log.error("%s: a row of %s is damaged and moved to damaged_rows: %a", self.path, table.name, key)
        values_apart = (table.name, row[0], time.time(), ascii(row))
        connection.execute("INSERT INTO damaged_rows VALUES (?, ?, ?, ?)", values_apart)
        connection.execute(f"DELETE FROM {table.name} WHERE n = ?", row[:1])  # noqa: S608

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}{suffix}")

    # --- checks ---

    def _checked(self, transactions: list[int]) -> sqlite3.Connection:
        """A connection to the file as it is; raises `sqlite3.DatabaseError` where it is damaged."""
        connection = connect(self.path, "rw")
        try:
            self.path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {_WAL_BYTES}"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("PRAGMA cell_size_check = ON")
            self._check(connection)
            self._see_cut(connection)
            self._look_for_lost(connection, transactions)
            _mark_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA application_id").fetchone()[0] != self._application:
            raise _damage("it is another kind of file")
        self._see_version(connection)
        found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if found != set(self._schema):
            raise _damage("its tables are not those that belong there")
        if size(connection) <= CHECKED_BYTES:
            said = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if said != "ok":
                raise _damage(said.replace("\n", " "))

    def _see_cut(self, connection: sqlite3.Connection) -> None:
        """Tell of a cut that the log makes good: SQLite, which writes whole pages only, says nothing of it."""
        if self.path.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
            log.warning("%s was cut off within a page. It is used as it is: what was looked at is whole", self.path)

    def _see_version(self, connection: sqlite3.Connection) -> None:
        """Leave the file of a later release alone: to this one it would look damaged.

        The version is a row with a checksum, not `PRAGMA user_version`: a flipped bit must not look like a later one.
        """
        rows = connection.execute(META.select("WHERE name = 'version'")).fetchall()
        if rows and sound(rows[0][1:]) and int(rows[0][2]) > VERSION:
            raise Unusable(
                f"{self.path} was written by a later release (its version is {rows[0][2]}, this one knows {VERSION}): "
                "run that one, or give this one a data_dir of its own"
            )

    def _look_for_lost(self, connection: sqlite3.Connection, transactions: list[int]) -> None:
        """Compare what is in the write-ahead log with what SQLite takes from it.

        A power failure may leave one such transaction, which nobody was told is durable; it looks the same.
        """
        was_open = connection.execute("SELECT count(*) FROM meta WHERE name = 'open' AND value = 'yes'").fetchone()[0]
        taken = connection.execute("PRAGMA wal_checkpoint").fetchone()[1]
        lost = sum(number > taken for number in transactions)
        if not lost and (transactions or not was_open):
            return
        self.damaged = True
        wal, what = self._beside("-wal"), f"{lost} of its transactions are lost" if lost else "what it held is lost"
        if wal.exists() and wal.stat().st_size:
            aside = wal.with_name(f"{wal.name}.damaged-{_stamp()}")
            shutil.copy(wal, aside)
            log.error("%s is damaged: %s. It is kept as %s", wal, what, aside.name)
        else:
            log.error("%s is gone: %s", wal, what)

    # --- a new file ---

    def _made(self) -> Path:
        """A new, empty file that is not in its place yet: what has its name is always complete."""
        new = self._beside(".new")
        for suffix in ("", "-wal", "-shm"):
            self._beside(f".new{suffix}").unlink(missing_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o600))
        with closing(connect(new, "rw")) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(f"PRAGMA application_id = {self._application}")
            for statement in self._schema:
                connection.execute(statement)
        return new

    def _put_in_place(self, new: Path) -> None:
        new.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _take_over(self, new: Path) -> tuple[int, int]:
        """Copy what is sound; returns how many rows were, and how many were not."""
        taken, unsound = 0, set()
        with closing(connect(new, "rw")) as connection:
            connection.execute("BEGIN")
            for table in self._tables:
                insert = table.insert("IGNORE").replace("(", "(n, ", 1).replace("(?", "(?, ?")
                for row in _readable(self.path, table):
                    if len(row) == len(table.columns) + 2 and sound(row[1:]):
                        taken += connection.execute(insert, row).rowcount
                    else:
                        unsound.add((table.name, row[0]))
            connection.execute("COMMIT")
        return taken, len(unsound)


def _readable(path: Path, table: Table) -> Iterator[Row]:
    """The rows of a damaged file, from both ends up to what can't be read; some may come twice."""
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error), closing(connect(path, "ro")) as connection:
            # NOT INDEXED: the rows may be sound where an index is not.
            yield from connection.execute(f"SELECT * FROM {table.name} NOT INDEXED ORDER BY n {order}")  # noqa: S608
            return


def _transactions(wal: Path) -> list[int]:
    """The numbers of the frames that end a transaction in a write-ahead log, by their headers alone.

    Only those of the log's own generation, which its salt tells (https://sqlite.org/fileformat2.html#walformat).
    """
    found: list[int] = []
    with suppress(FileNotFoundError), wal.open("rb") as file:
        header, length = file.read(32), os.fstat(file.fileno()).st_size
        step = 24 + int.from_bytes(header[8:12], "big")
        for n, at in enumerate(range(32, length - step + 1, step)):
            frame = os.pread(file.fileno(), 16, at)
            if frame[8:16] == header[16:24] and frame[4:8] != bytes(4):
                found.append(n + 1)
    return found


def _mark_open(connection: sqlite3.Connection) -> None:
    """Note in the database itself that it is open, and leave something in its log: so that a lost log is noticed."""
    _note(connection, "open", "yes")
    _note(connection, "version", str(VERSION))
    connection.execute("PRAGMA wal_checkpoint").fetchall()
    _note(connection, "opened", datetime.now(UTC).isoformat())


def _note(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute(META.insert("REPLACE"), sealed((name, value)))


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def make_folder(path: Path) -> None:
    """Make the folder where it is missing, for its owner only: records hold secrets."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)

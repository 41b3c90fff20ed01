"""A database in `data_dir`: what a write returned for is on the disk, and damage never stops the daemon.

- Write-ahead log with `synchronous=FULL`: a commit returns after an fsync. Those who write at the same time share one
  transaction and one fsync.
- What waits for the disk runs in a thread of the database's own.
- A disk that is full or fails raises `StorageError`: nothing was changed, and it may work later.
- A file that is damaged (cut off, overwritten, with flipped bits, another one under its name, its log lost) is kept
  as `NAME.damaged-TIME`; what is sound in it is taken over into a new one, `damaged` becomes True, and the log says
  so: when it is opened, or whenever it shows later. A single row that is not as it was written is moved into the table
  `damaged_rows`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.contract import Unusable
from pipeline.sqlite import File, is_damage, make_folder
from pipeline.table import Row, Table, sound

log = logging.getLogger("aiologs.database")

_MOST_REST = 0.25  # seconds

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Values = Sequence[Any] | Mapping[str, Any]


class StorageError(Exception):
    """The disk is full or fails, or what may be kept there is used up. Nothing was changed; it may work later."""


class Database:
    """One file with its tables. `open()` or `start()` come first.

    With `rest`, the next transaction waits for so many times as long as one took, so that what others write to the
    same disk, and other threads, have most of the time, however much comes.
    """

    def __init__(self, path: Path, tables: Sequence[Table], *, rest: float = 0.0) -> None:
        self.path, self._rest = path, rest
        self._file = File(path, tables)
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def damaged(self) -> bool:
        """Whether something that was in the file was lost."""
        return self._file.damaged

    # --- from the event loop ---

    async def start(self) -> None:
        """Open the file in its thread; raises `Unusable`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.open)

    async def stop(self) -> None:
        """Close the file after what is being written."""
        if self._writer:
            await asyncio.wait([self._writer])
        await asyncio.get_running_loop().run_in_executor(self._thread, self.close)
        self._thread.shutdown()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result when that is on the disk; raises `StorageError`.

        `work` may run more than once, each time on what was there before.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name=f"write {self.path.name}")
        return await done

    async def read(self, work: Work[T]) -> T:
        """Run `work` and return its result; raises `StorageError`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def read_now(self, work: Work[T]) -> T:
        """The same while the event loop waits: for what is small."""
        return self._thread.submit(self._guarded, work).result()

    async def _write_all(self) -> None:
        """Write what is waiting; what comes meanwhile goes into the next transaction together."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            waiting, self._waiting, began = self._waiting, [], loop.time()
            results = await loop.run_in_executor(self._thread, self.commit, [work for work, _ in waiting])
            for (_, done), result in zip(waiting, results, strict=True):
                if done.cancelled():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)
            await asyncio.sleep(min(self._rest * (loop.time() - began), _MOST_REST))
        self._writer = None

    # --- in the thread ---

    def open(self) -> None:
        """Open the file; raises `Unusable` where the disk or the rights don't allow it."""
        try:
            self._opened()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unusable(f"{self.path} can't be opened: {reason} (owner, rights and room on the disk?)") from error

    def close(self) -> None:
        """Close the file."""
        if self._connection:
            self._file.close(self._connection)
            self._connection = None

    def commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Run all works in one transaction or, where one raises, each in its own: errors stand for their results."""
        try:
            results = self._guarded(partial(_together, works))
        except Exception as error:  # noqa: BLE001 - it is raised where its work came from
            return [error] if len(works) == 1 else [self.commit([work])[0] for work in works]
        if self._failing:
            self._failing = False
            log.info("%s can be written to again", self.path)
        return results

    def select(self, connection: sqlite3.Connection, table: Table, rest: str, values: Values = ()) -> list[Row]:
        """The rows (n, columns) that are as they were written; the others are moved out of the table."""
        rows = connection.execute(table.select(rest), values).fetchall()
        for row in rows:
            if not sound(row[1:]):
                self._file.put_apart(connection, table, row[:-1])
        return [row[:-1] for row in rows if sound(row[1:])]

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.open()
        return self._connection

    def _guarded(self, work: Work[T]) -> T:
        """Run `work`, again on the new file where the old one shows damage."""
        try:
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.close()
                self._file.replace(str(error))
                return work(self._opened())
        except (sqlite3.OperationalError, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:  # wrong SQL, which waiting won't mend
                raise
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StorageError:
        if not self._failing:
            self._failing = True
            log.error("%s: %s", self.path, error)
        return StorageError(f"{self.path}: {error}")


def _together(works: Sequence[Work[Any]], connection: sqlite3.Connection) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [work(connection) for work in works]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back after some errors
            connection.execute("ROLLBACK")
        raise
    return results


@contextmanager
def lock(data_dir: Path) -> Iterator[None]:
    """Own `data_dir`, until the end of the block or of the process; raises `Unusable` where another one does."""
    path = data_dir / "lock"
    try:
        make_folder(data_dir)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}: data_dir must be a folder that this user can write to") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(file, 20).decode(errors="replace").strip() or "?"
        os.close(file)
        raise Unusable(
            f"{path}: another aiologs (pid {pid}) uses this data_dir; stop it, or give this one a data_dir of its own"
        ) from error
    with suppress(OSError):  # a full disk; the pid is only for the message above
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
    try:
        yield
    finally:
        os.close(file)

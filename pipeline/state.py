"""`state.db`: where each input stands in its sources, and counters that outlive the daemon.

What inputs put is committed four times a second, in one transaction. A crash before that costs a repetition, never a
record: documents that were stored already are recognised by their ids.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from pipeline.contract import Unusable
from pipeline.database import Database, StorageError
from pipeline.sqlite import connect
from pipeline.table import Table, sealed, sound

log = logging.getLogger("aiologs.state")

NAME = "state.db"
COMMIT_SECONDS = 0.25

_POSITIONS = Table("positions", {"input": "TEXT", "key": "TEXT", "value": "BLOB"}, ("input", "key"))
_COUNTERS = Table("counters", {"name": "TEXT", "value": "INTEGER"}, ("name",))
_NEIGHBOURS = ("dead.db", "parked.db")

Changes = dict[tuple[str, str], bytes | None]
"""Input and key → the new value as JSON, None for an entry to be removed."""


class State:
    """Opens `state.db` in `data_dir`; raises `Unusable` where that can't be. `start()` begins to commit."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / NAME
        gone = not path.exists() and any((data_dir / name).exists() for name in _NEIGHBOURS)
        if gone:
            log.error("%s is gone, though its neighbours are there: inputs read again from the beginning", path)
        self._database = Database(path, [_POSITIONS, _COUNTERS])
        self._database.open()
        self._changes: Changes = {}
        self._counters = self._load_counters()
        self._counted: set[str] = set()
        self._committing = asyncio.Lock()
        self._tick: asyncio.Task[None] | None = None
        self._gone = gone

    @property
    def damaged(self) -> bool:
        """Whether positions were lost: inputs then read from the beginning what they have no position for."""
        return self._gone or self._database.damaged

    def positions(self, name: str) -> InputPositions:
        """The positions of the input of this name."""
        return InputPositions(self, name)

    def add(self, counter: str, n: int) -> None:
        """Add to a counter; it is written with the next commit."""
        self._counters[counter] = self._counters.get(counter, 0) + n
        self._counted.add(counter)

    def counters(self) -> dict[str, int]:
        """All counters since this state began."""
        return dict(self._counters)

    async def start(self) -> None:
        """Begin to commit what is put, every quarter of a second."""
        self._tick = asyncio.create_task(self._commit_now_and_then(), name="commit positions")

    async def stop(self) -> None:
        """Commit everything and close."""
        if self._tick:
            self._tick.cancel()
            await asyncio.wait([self._tick])
        try:
            await self.commit()
        except StorageError as error:
            log.error("the last positions are not committed, what follows them will be read again: %s", error)  # noqa: TRY400
        await self._database.stop()

    async def commit(self) -> None:
        """Write what has changed; raises `StorageError`, and keeps it for the next time."""
        async with self._committing:
            await self._commit()

    async def settled(self) -> None:
        """Return when all that was put by now is on the disk, for as long as that refuses."""
        while True:
            try:
                return await self.commit()
            except StorageError:  # the database has said so in the log
                await asyncio.sleep(COMMIT_SECONDS)

    async def _commit(self) -> None:
        if not self._changes and not self._counted:
            return
        changes, self._changes = self._changes, {}
        counted, self._counted = self._counted, set()
        counters = {name: self._counters[name] for name in counted}
        try:
            await self._database.write(partial(_store, changes, counters))
        except BaseException:
            self._changes = changes | self._changes
            self._counted |= counted
            raise

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            try:
                await self.commit()
            except StorageError:
                continue  # the database has said so in the log
            except Exception:
                log.exception("positions can't be committed")

    def _load_counters(self) -> dict[str, int]:
        rows = self._database.read_now(lambda connection: self._database.select(connection, _COUNTERS, ""))
        return {name: value for _, name, value in rows}

    def load(self, name: str) -> dict[str, dict[str, Any]]:
        """The entries of one input, with those that wait for the next commit."""

        def read(connection: sqlite3.Connection) -> dict[str, bytes | None]:
            rows = self._database.select(connection, _POSITIONS, "WHERE input = ?", (name,))
            return {key: value for _, _, key, value in rows}

        entries = self._database.read_now(read)
        entries |= {key: value for (of, key), value in self._changes.items() if of == name}
        return {key: orjson.loads(value) for key, value in entries.items() if value is not None}

    def change(self, name: str, key: str, value: bytes | None) -> None:
        """Set an entry of an input, or remove it."""
        self._changes[name, key] = value


def positions_of(data_dir: Path, name: str) -> dict[str, dict[str, Any]]:
    """The positions of an input as the daemon of `data_dir` has committed them, whether or not it runs; {} for none.

    Raises `Unusable` where they can't be read.
    """
    path = data_dir / NAME
    if not path.exists():
        return {}
    try:
        with closing(connect(path, "ro")) as connection:
            rows = connection.execute(_POSITIONS.select("WHERE input = ?"), (name,)).fetchall()
    except sqlite3.Error as error:
        raise Unusable(f"{path} can't be read: {error} (its owner can)") from error
    return {row[2]: orjson.loads(row[3]) for row in rows if sound(row[1:])}


class InputPositions:
    """The positions of one input; see `contract.Positions`."""

    def __init__(self, state: State, name: str) -> None:
        self._state, self._name = state, name
        self.damaged = state.damaged

    def load(self) -> dict[str, dict[str, Any]]:
        """All entries."""
        entries = self._state.load(self._name)
        self.damaged = self._state.damaged
        return entries

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Set an entry to the value as it is now."""
        self._state.change(self._name, key, orjson.dumps(value))

    def remove(self, key: str) -> None:
        """Forget an entry."""
        self._state.change(self._name, key, None)


def _store(changes: Changes, counters: Mapping[str, int], connection: sqlite3.Connection) -> None:
    removed = [place for place, value in changes.items() if value is None]
    connection.executemany("DELETE FROM positions WHERE input = ? AND key = ?", removed)
    put = (sealed((*place, value)) for place, value in changes.items() if value is not None)
    connection.executemany(_POSITIONS.insert("REPLACE"), put)
    connection.executemany(_COUNTERS.insert("REPLACE"), map(sealed, counters.items()))

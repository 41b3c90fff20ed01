"""Keeps documents in a SQLite file: the embedded store, for a demo, for tests, and where no server is wanted.

    outputs:
      store: {type: local, path: var/aiologs.db}

One table, `documents`, with the columns `index`, `id` and `document`; index and id together are its key, so a document
that comes again is "already there". Look inside with `sqlite3 FILE 'SELECT document FROM documents LIMIT 1'`; SQLite's
JSON functions work on it. A write returns when it is on the disk. A full disk or a locked file makes inputs wait; a
file that is damaged, or is no database, is told at the start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, Field

from pipeline.contract import Context, Payload, Unusable, Written
from pipeline.outputs._group import Group
from pipeline.outputs._health import Health
from pipeline.table import lots

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    "index" TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY ("index", id)
)
"""
# The bytes of a document are its text already: the cast spares decoding and encoding them.
_INSERT, _ROW = "INSERT OR IGNORE INTO documents VALUES ", "(?, ?, CAST(? AS TEXT))"
_ADVICE = {
    "locked": "another program holds it; end that one first",
    "readonly": "give the daemon the right to write to it and its folder",
    "unable to open": "give the daemon the right to write to its folder",
}
_DAMAGED = "it is damaged or no database: move it away, or save what can be read with `sqlite3 FILE .recover`"


class Local:
    """See the module's documentation."""

    class Options(BaseModel, extra="forbid"):
        """Where the file is."""

        path: Path = Field(default=Path("var/aiologs.db"), description="The SQLite file; it is made where missing.")

    def __init__(self, options: Options, context: Context) -> None:
        self._path, self._name = options.path, context.name
        self._health = Health(context.name, context.gauge)
        self._group = Group(self._store, self._health, (sqlite3.OperationalError,))
        self._db: sqlite3.Connection

    @property
    def blocked(self) -> str | None:
        """Why nothing can be written now."""
        return self._health.blocked

    async def start(self) -> None:
        """Open the file; raises `Unusable` where it can't be written to."""
        try:
            self._db = await self._group.run(self._open)
        except (OSError, sqlite3.Error) as error:
            await self._group.stop()
            advice = next((advice for sign, advice in _ADVICE.items() if sign in str(error)), _DAMAGED)
            reason = f"{error}; {advice}" if isinstance(error, sqlite3.Error) else f"its folder: {error.strerror}"
            raise Unusable(f"output {self._name}: can't use {self._path}: {reason}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
                db.execute(statement)
            # Reads the header and the roots of the tables, not every page.
            db.execute("SELECT rowid FROM documents ORDER BY rowid DESC LIMIT 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _store(self, payloads: list[Payload]) -> list[Written]:
        """One transaction for all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            written = [self._insert(payload) for payload in payloads]
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()  # a full disk may have done it already
            raise
        return written

    def _insert(self, payload: Payload) -> Written:
        stored = sum(
            self._insert_some([(documents.index, id_, document) for id_, document in some])
            for documents in payload
            for some in lots(list(documents.pairs()))
        )
        return Written(stored=stored, already=sum(documents.count for documents in payload) - stored)

    def _insert_some(self, rows: list[tuple[str, str, bytes]]) -> int:
        # A statement for many: each gives the interpreter's lock away, and waits to have it back.
        statement = _INSERT + ", ".join([_ROW] * len(rows))
        return self._db.execute(statement, [value for row in rows for value in row]).rowcount

    async def write(self, payload: Payload) -> Written:
        """See `contract.Output`."""
        return await self._group.write(payload)

    async def stop(self) -> None:
        """Close the file."""
        await self._group.stop(self._db.close)


def counts(path: Path) -> dict[str, int]:
    """How many documents each index of a store has, by name."""
    return dict(_query(path, 'SELECT "index", count(*) FROM documents GROUP BY 1 ORDER BY 1'))


def get(path: Path, id_: str) -> dict[str, str]:
    """The documents with an id, by index."""
    return dict(_query(path, 'SELECT "index", document FROM documents WHERE id = ? ORDER BY 1', id_))


def existing(path: Path, index: str, ids: Sequence[str]) -> set[str]:
    """Which of these ids an index of a store has; none where there is no store."""
    if not path.exists():
        return set()
    wanted = 'SELECT id FROM documents WHERE "index" = ? AND id IN (SELECT value FROM json_each(?))'
    return {id_ for (id_,) in _query(path, wanted, index, orjson.dumps(ids).decode())}


def _query(path: Path, statement: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(statement, values).fetchall()

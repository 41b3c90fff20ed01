"""`parked.db`: documents that an output does not take now though it takes others (a blocked index), on the disk.

A section is the documents of one run for one index, kept as the bulk body that it was, until `done()` says that its
fate is decided. Parking the same section again, after a crash, changes nothing. What may be parked is bounded; when
that is used up, `put()` raises `StorageError`: inputs wait, and nothing is lost.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from pipeline.contract import Documents
from pipeline.database import Database, StorageError
from pipeline.sqlite import shrink, size
from pipeline.table import Table, sealed

NAME = "parked.db"
MAX_BYTES = 4 << 30


class Entry(NamedTuple):
    """A section that waits."""

    key: int
    documents: Documents
    reason: str
    since: float
    """When it was parked, in seconds since 1970."""


_SECTIONS = Table(
    "sections",
    {
        "output": "TEXT", "index_name": "TEXT", "digest": "BLOB", "documents": "INTEGER", "bytes": "INTEGER",
        "reason": "TEXT", "since": "REAL", "body": "BLOB",
    },
    ("output", "index_name", "digest"),
)  # fmt: skip


Counts = Counter[tuple[str, str]]
"""Documents by output and index."""


class Usage(NamedTuple):
    """How much room all sections take, and since when the first of them waits."""

    bytes: int
    oldest: float | None


class Parked:
    """The parked documents of all outputs, up to `max_bytes`."""

    def __init__(self, data_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        self._database, self._max_bytes = Database(data_dir / NAME, [_SECTIONS]), max_bytes
        self._counts: Counts = Counter()
        self._usage = Usage(0, None)
        self.reasons: dict[tuple[str, str], tuple[float, str]] = {}
        """By output and index that has something parked: since when, and why the first of it is."""

    @property
    def damaged(self) -> bool:
        """Whether documents were lost to damage of the file."""
        return self._database.damaged

    def counts(self) -> Counts:
        """How many documents are parked, by output and index; 0 where there were some."""
        return self._counts

    @property
    def oldest(self) -> float | None:
        """Since when the first of them waits, in seconds since 1970."""
        return self._usage.oldest

    @property
    def bytes(self) -> int:
        """How much room they take on the disk."""
        return self._usage.bytes

    @property
    def full(self) -> bool:
        """Whether nothing more can be parked."""
        return self.bytes >= self._max_bytes

    async def start(self) -> None:
        """Open the file; raises `Unusable`."""
        await self._database.start()
        self._counts, self._usage, self.reasons = await self._database.read(_everything)

    async def stop(self) -> None:
        """Close the file."""
        await self._database.stop()

    async def put(self, output: str, sections: Sequence[tuple[Documents, str]]) -> None:
        """Park sections, each with the reason, durably; raises `StorageError` where the disk or the room is full."""
        more, self._usage = await self._database.write(partial(self._put, output, sections))
        self._counts.update(more)
        for documents, reason in sections:
            self.reasons.setdefault((output, documents.index), (time.time(), reason))

    async def take(self, output: str, limit: int, skip: Collection[str] = ()) -> list[Entry]:
        """The oldest sections of each index of an output but those in `skip`, about `limit` bytes in all.

        Every index has a share, so that one that stays blocked does not hold up the others. They stay parked until
        `done()`.
        """
        return await self._database.read(partial(self._take, output, limit, skip))

    async def done(self, keys: Sequence[int]) -> None:
        """Forget sections, whose documents are stored or set aside by now; raises `StorageError`."""
        less, self._usage = await self._database.write(partial(_done, keys))
        self._counts.subtract(less)
        self.reasons = {key: why for key, why in self.reasons.items() if self._counts[key]}

    def _put(
        self, output: str, sections: Sequence[tuple[Documents, str]], connection: sqlite3.Connection
    ) -> tuple[Counts, Usage]:
        used = size(connection)
        if used >= self._max_bytes:
            raise StorageError(
                f"{self._database.path} is full ({used} of {self._max_bytes} bytes): output {output} must take again "
                f"what it refuses ({sections[0][1]})"
            )
        now, more = time.time(), Counter[tuple[str, str]]()
        for documents, reason in sections:
            body, index = documents.body, documents.index
            digest = blake2b(body, digest_size=16).digest()
            values = output, index, digest, documents.count, len(body), reason, now, body
            inserted = connection.execute(_SECTIONS.insert("IGNORE"), sealed(values)).rowcount
            more[output, index] += inserted * documents.count
        return more, _usage(connection)

    def _take(self, output: str, limit: int, skip: Collection[str], connection: sqlite3.Connection) -> list[Entry]:
        found = connection.execute("SELECT DISTINCT index_name FROM sections WHERE output = ?", (output,))
        indices = [index for (index,) in found if index not in skip]
        entries = []
        for index in indices:
            last = _last_within(output, index, limit // len(indices), connection)
            rest = "WHERE output = ? AND index_name = ? AND n <= ? ORDER BY n"
            for n, _, _, _, count, _, reason, since, body in self._database.select(
                connection, _SECTIONS, rest, (output, index, last)
            ):
                entries.append(Entry(n, Documents(index, body, count), reason, since))
        return entries


def _last_within(output: str, index: str, limit: int, connection: sqlite3.Connection) -> int:
    """The number of the last section that still fits into `limit` bytes; the first one always does."""
    last = None
    for n, length in connection.execute(
        "SELECT n, bytes FROM sections WHERE output = ? AND index_name = ? ORDER BY n", (output, index)
    ):
        limit -= length
        if last is not None and limit < 0:
            break
        last = n
    return last or 0


def _done(keys: Sequence[int], connection: sqlite3.Connection) -> tuple[Counts, Usage]:
    less = Counter[tuple[str, str]]()
    for key in keys:
        row = connection.execute("SELECT output, index_name, documents FROM sections WHERE n = ?", (key,)).fetchone()
        if row:
            less[row[:2]] += row[2]
            connection.execute("DELETE FROM sections WHERE n = ?", (key,))
    shrink(connection)
    return less, _usage(connection)


def _usage(connection: sqlite3.Connection) -> Usage:
    first = connection.execute("SELECT since FROM sections ORDER BY n LIMIT 1").fetchone()
    return Usage(size(connection), first and first[0])


def _everything(connection: sqlite3.Connection) -> tuple[Counts, Usage, dict[tuple[str, str], tuple[float, str]]]:
    # With min() the other columns are those of the row that has the least (sqlite.org/lang_select.html, bare columns).
    rows = connection.execute(
        "SELECT output, index_name, sum(documents), min(since), reason FROM sections GROUP BY 1, 2"
    ).fetchall()
    counts = Counter({(output, index): count for output, index, count, _, _ in rows})
    return counts, _usage(connection), {(output, index): (since, why) for output, index, _, since, why in rows}

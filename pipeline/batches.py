"""The batches in `buffer.db`: how they stand there, and how they come back."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, NamedTuple

import orjson

from pipeline.contract import Batch
from pipeline.sqlite import shrink
from pipeline.table import Row, Table, sealed

if TYPE_CHECKING:
    import sqlite3

_FREE_PAGES = 8192  # of 4 KiB: what the file may be larger than what is in it
TABLE = Table(
    "batches",
    {
        "input": "TEXT", "token": "BLOB", "bytes": "INTEGER", "head": "BLOB", "block": "BLOB", "ends": "BLOB",
    },
    ("token",),
)  # fmt: skip
INSERT = TABLE.insert("IGNORE").replace("(", "(n, ", 1).replace("(?", "(?, ?")


class Usage(NamedTuple):
    """What waits in the buffer of one input."""

    bytes: int = 0
    batches: int = 0

    def plus(self, size: int, batches: int = 1) -> Usage:
        """With so much more."""
        return Usage(self.bytes + size, self.batches + batches)


class Entry(NamedTuple):
    """A batch that was taken out, with its number and its size."""

    key: int
    size: int
    batch: Batch


def size(batch: Batch) -> int:
    """The bytes that a batch takes on the disk, about."""
    ids = sum(map(len, batch.ids)) + 4 * len(batch.ids) if batch.ids is not None else 0
    return len(batch.block) + ids + 8 * len(batch.ends or ()) + 256


def row(batch: Batch, size: int) -> tuple[object, ...]:
    """What is written of a batch, behind its number."""
    head = {
        "identity": batch.identity,
        "base": batch.base,
        "positions": None if batch.positions is None else list(batch.positions),
        "ids": None if batch.ids is None else list(batch.ids),
        "origin": dict(batch.origin),
    }
    ends = None if batch.ends is None else batch.ends.tobytes()
    return sealed((batch.input, os.urandom(12), size, orjson.dumps(head), batch.block, ends))


def entry(row: Row) -> Entry:
    """What is read of one."""
    n, name, _, size, head, block, ends = row
    return Entry(n, size, Batch(name, block, ends=None if ends is None else array("Q", ends), **orjson.loads(head)))


def remove(key: int, connection: sqlite3.Connection) -> None:
    """Forget a batch that is delivered."""
    connection.execute("DELETE FROM batches WHERE n = ?", (key,))
    if connection.execute("PRAGMA freelist_count").fetchone()[0] > _FREE_PAGES:
        shrink(connection)


def everything(connection: sqlite3.Connection) -> tuple[int, dict[str, Usage]]:
    """The last number, and what waits by input."""
    rows = connection.execute("SELECT input, max(n), sum(bytes), count(*) FROM batches GROUP BY input").fetchall()
    return max((last for _, last, _, _ in rows), default=0), {name: Usage(size, n) for name, _, size, n in rows}

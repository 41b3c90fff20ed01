"""A table of SQLite whose rows carry a checksum in their last column, since SQLite has none in its database file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

Row = tuple[Any, ...]

_LOTS = (512, 64, 16, 4, 1)
"""Rows of a statement. There are few sizes, since a statement and its values stay in memory for the next use."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows carry a checksum. Its columns: `n` (rising with every insertion), `columns`, `sum`."""

    name: str
    columns: dict[str, str]
    """Column → SQL type."""
    key: tuple[str, ...]

    @property
    def create(self) -> str:
        """The statement that makes it."""
        columns = ", ".join(f"{name} {type_}" for name, type_ in self.columns.items())
        return (
            f"CREATE TABLE {self.name} (n INTEGER PRIMARY KEY, {columns}, sum INTEGER, UNIQUE ({', '.join(self.key)}))"
        )

    def insert(self, otherwise: str) -> str:
        """The statement that inserts a sealed row; `otherwise`, where its key is there: IGNORE or REPLACE."""
        marks = ", ".join("?" * (len(self.columns) + 1))
        return f"INSERT OR {otherwise} INTO {self.name} ({', '.join(self.columns)}, sum) VALUES ({marks})"  # noqa: S608

    def insert_all(self, connection: sqlite3.Connection, rows: Sequence[Row], otherwise: str) -> int:
        """Insert sealed rows, many by a statement; returns how many of them were inserted or replaced.

        The interpreter's lock is given away for every statement, and beside a busy event loop it takes milliseconds to
        get it back: row by row, a few thousand take seconds.
        """
        inserted = 0
        for some in lots(rows):
            inserted += connection.execute(self._insert_lot(otherwise, len(some)), [*chain(*some)]).rowcount
        return inserted

    def _insert_lot(self, otherwise: str, count: int) -> str:
        one = self.insert(otherwise)
        return ", ".join([one, *[one[one.rindex("(") :]] * (count - 1)])

    def select(self, rest: str) -> str:
        """The statement that reads rows: n, columns, sum."""
        return f"SELECT n, {', '.join(self.columns)}, sum FROM {self.name} {rest}"  # noqa: S608


def lots(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows, in as few lots as possible, each of one of a few sizes."""
    at = 0
    for size in _LOTS:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


def sealed(values: Sequence[Any]) -> Row:
    """The values with their checksum behind them."""
    return (*values, checksum(values))


def sound(row: Sequence[Any]) -> bool:
    """Whether values with a checksum behind them are as they were written."""
    return bool(row[-1] == checksum(row[:-1]))


def checksum(values: Sequence[Any]) -> int:
    """CRC-32 over the values and their lengths."""
    crc = 0
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
        crc = crc32(data, crc32(b"%d:" % len(data), crc))
    return crc

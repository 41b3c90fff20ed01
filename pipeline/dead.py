"""`dead.db`: the records that were set aside, each with its original bytes and the reason.

A letter is on the disk when `put()` returns. The first cause of a record is kept, a repetition is only counted. What
may be kept is bounded (`Limits`); when that is used up, `put()` raises `StorageError`: inputs wait, nothing is lost,
and the message says what to do. Only where the configuration says so, the oldest letters are removed instead. Other
processes may read the file while the daemon runs: `reading()`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from pipeline.causes import ALL, MEANT, Filters, Group, grouped
from pipeline.contract import Unusable
from pipeline.database import Database, StorageError
from pipeline.letters import Key, Letter
from pipeline.sqlite import connect, shrink, size
from pipeline.table import Row, Table, sealed, sound

log = logging.getLogger("aiologs.dead")

NAME = "dead.db"
_DAY = 86_400
_REST = 3.0  # who waits for dead letters has sent bad records; who waits for outputs on the same disk has not
_PAGE = 500
"""Letters that are read at once."""
_PUSHED_OUT = 100
"""Letters that are removed at once to make room."""
_REMOVED = {
    "old": "they were older than dead_letters.max_days",
    "full": "newer ones took their room (dead_letters.when_full: drop_oldest)",
}
_EXPIRY_SECONDS = 3600.0
"""How often letters that are too old are looked for."""

Change = tuple[int, int]
"""How many letters there are now more, and the bytes that all of them take."""

_LETTERS = Table(
    "letters",
    {
        "output": "TEXT", "id": "TEXT", "input": "TEXT", "stage": "TEXT", "reason": "TEXT", "index_name": "TEXT",
        "identity": "TEXT", "place": "INTEGER", "time": "REAL", "origin": "TEXT", "traceback": "TEXT",
        "record": "BLOB", "document": "BLOB",
    },
    ("output", "id"),
)  # fmt: skip
_REPEATS = Table("repeats", {"output": "TEXT", "id": "TEXT", "count": "INTEGER"}, ("output", "id"))


class Limits(BaseModel, extra="forbid", frozen=True):
    """The section `dead_letters:` of the configuration."""

    max_bytes: int = Field(default=1 << 30, ge=1 << 16, description="How much room they may take on the disk.")
    max_days: float | None = Field(
        default=None, gt=0, description="Those that were set aside longer ago are removed; null: never."
    )
    when_full: Literal["wait", "drop_oldest"] = Field(
        default="wait",
        description="What happens when the room is used up: inputs wait until `aiologs dead retry` or `purge` makes "
        "some, and the daemon is not ready; or the oldest are removed, which loses them for good.",
    )


_LIMITS = Limits()
Letters = list[Letter]
Groups = list[Group]
Select = Callable[[sqlite3.Connection, Table, str, Mapping[str, Any]], list[Row]]


class DeadLetters:
    """The dead letters of a daemon, within `limits`, which may be replaced at any time.

    `count` is told of those that were removed because of them: the metric `dead_letters_dropped`.
    """

    def __init__(
        self,
        data_dir: Path,
        limits: Limits = _LIMITS,
        count: Callable[[str, int, Mapping[str, str]], None] = lambda *_: None,
    ) -> None:
        self._database = Database(data_dir / NAME, [_LETTERS, _REPEATS], rest=_REST)
        self.limits, self._tell, self._looked_for_old = limits, count, 0.0
        self._count = self._bytes = 0
        self._expiring: asyncio.Task[None] | None = None

    @property
    def damaged(self) -> bool:
        """Whether letters were lost to damage of the file."""
        return self._database.damaged

    def count(self) -> int:
        """How many there are."""
        return self._count

    def bytes(self) -> int:
        """How much room they take on the disk."""
        return self._bytes

    @property
    def full(self) -> str | None:
        """Why nothing more can be set aside, and what to do; None: something can."""
        return self._full(self._bytes)

    def _full(self, used: int) -> str | None:
        if used < self.limits.max_bytes or self.limits.when_full == "drop_oldest":
            return None
        return (
            f"{self._database.path} is full ({used} of {self.limits.max_bytes} bytes): see `aiologs dead list`, then "
            "make room with `aiologs dead retry` or `aiologs dead purge`"
        )

    async def start(self) -> None:
        """Open the file; raises `Unusable`."""
        await self._database.start()
        self._count = await self._database.read(_count)
        await self.put([])
        self._expiring = asyncio.create_task(self._expire(), name="expire dead letters")

    async def _expire(self) -> None:
        """Have those that are too old removed, also while nothing is set aside."""
        while True:
            await asyncio.sleep(_EXPIRY_SECONDS + 1)
            with suppress(StorageError):  # the database has said so in the log
                await self.put([])

    async def stop(self) -> None:
        """Close the file."""
        if self._expiring:
            self._expiring.cancel()
            await asyncio.wait({self._expiring})
        await self._database.stop()

    async def put(self, letters: Sequence[Letter]) -> None:
        """Keep letters, durably; raises `StorageError` where the disk is full, or the room for them."""
        old, pushed, more, used = await self._database.write(partial(self._put, letters))
        self._changed(more - old - pushed, used)
        for reason, n in (("old", old), ("full", pushed)):
            if n:
                self._tell("dead_letters_dropped", n, {"reason": reason})
                log.warning("%d dead letters are removed for good: %s", n, _REMOVED[reason])

    async def list(self, filters: Filters = ALL, limit: int = _PAGE, after: int = 0) -> Letters:
        """The oldest letters that are meant, from behind the number `after`."""
        return await self._database.read(partial(_page, self._database.select, filters, limit, after))

    async def summary(self, filters: Filters = ALL) -> Groups:
        """The letters that are meant, grouped by cause, the most frequent first."""
        return await self._database.read(partial(grouped, filters))

    async def remove(self, keys: Sequence[Key]) -> None:
        """Forget the letters with these keys."""
        self._changed(*await self._database.write(partial(_remove, keys)))

    async def purge(self, filters: Filters) -> int:
        """Forget the letters that are meant; returns how many."""
        change = await self._database.write(partial(_purge, MEANT, asdict(filters)))
        self._changed(*change)
        return -change[0]

    def _changed(self, more: int, used: int) -> None:
        self._count += more
        self._bytes = used

    def _put(self, letters: Sequence[Letter], connection: sqlite3.Connection) -> tuple[int, int, int, int]:
        """Returns how many letters were too old, how many had to make room, how many are new, and the bytes of all."""
        old, pushed = self._remove_old(connection), 0
        if letters and (full := self._full(size(connection))):
            raise StorageError(full)
        while letters and size(connection) >= self.limits.max_bytes and (some := _push_out(connection)):
            pushed += some
        return old, pushed, _insert(letters, connection), size(connection)

    def _remove_old(self, connection: sqlite3.Connection) -> int:
        """Remove the letters that are too old, from time to time; returns how many."""
        now = time.time()
        if self.limits.max_days is None or now - self._looked_for_old < _EXPIRY_SECONDS:
            return 0
        self._looked_for_old = now
        return -_purge("time < :oldest", {"oldest": now - self.limits.max_days * _DAY}, connection)[0]


class Reader:
    """The dead letters for another process than the daemon."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.damaged = 0
        """How many letters were left out because they are not as they were written."""

    def each(self, filters: Filters = ALL) -> Iterator[Letter]:
        """All letters that are meant, the oldest first."""
        after = 0
        while letters := _page(self._select, filters, _PAGE, after, self._connection):
            yield from letters
            after = letters[-1].number

    def summary(self, filters: Filters = ALL) -> Groups:
        """The letters that are meant, grouped by cause, the most frequent first."""
        return grouped(filters, self._connection)

    def _select(self, connection: sqlite3.Connection, table: Table, rest: str, values: Mapping[str, Any]) -> list[Row]:
        rows = connection.execute(table.select(rest), values).fetchall()
        good = [row[:-1] for row in rows if sound(row[1:])]
        self.damaged += len(rows) - len(good)
        return good


@contextmanager
def reading(data_dir: Path) -> Iterator[Reader]:
    """Read the letters, whether or not a daemon runs; raises `Unusable` where they can't be read."""
    path = data_dir / NAME
    if not path.exists():
        raise Unusable(f"{path} does not exist: no daemon has run with this data_dir")
    try:
        with closing(connect(path, "ro")) as connection:
            yield Reader(connection)
    except sqlite3.Error as error:
        raise Unusable(f"{path} can't be read: {error} (its owner can; a daemon repairs it when it starts)") from error


def _row(letter: Letter) -> Row:
    texts = letter.output, letter.id, letter.input, letter.stage, letter.reason, letter.index, letter.identity
    origin = orjson.dumps(dict(letter.origin)).decode()
    blobs = _text(letter.traceback), letter.record, letter.document
    return (*map(_text, texts), letter.place, letter.time, origin, *blobs)


def _text(text: str) -> str:
    """What SQLite takes as text: the message of an error may quote what is not valid."""
    return text.encode(errors="backslashreplace").decode()


def _letter(row: Row, repeats: int) -> Letter:
    number, output, id_, input_, stage, reason, index, identity, place, at, origin, traceback, record, document = row
    causes = output, stage, reason, traceback, index, identity, place, document
    return Letter(id_, input_, record, orjson.loads(origin), at, *causes, number, repeats)


def _page(select: Select, filters: Filters, limit: int, after: int, connection: sqlite3.Connection) -> Letters:
    values = asdict(filters) | {"after": after, "limit": limit}
    rows = select(connection, _LETTERS, f"WHERE n > :after AND {MEANT} ORDER BY n LIMIT :limit", values)
    return [_letter(row, _repeats((row[1], row[2]), connection)) for row in rows]


def _repeats(key: Key, connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT count FROM repeats WHERE output = ? AND id = ?", key).fetchone()
    return row[0] if row else 0


def _insert(letters: Sequence[Letter], connection: sqlite3.Connection) -> int:
    """Keep letters; returns how many. Those of which there is one already are counted there."""
    before = _last(connection)
    inserted = _LETTERS.insert_all(connection, [sealed(_row(letter)) for letter in letters], "IGNORE")
    if inserted < len(letters):
        again = Counter(letter.key for letter in letters)
        again.subtract(connection.execute("SELECT output, id FROM letters WHERE n > ?", (before,)))
        counted = [(*key, n + _repeats(key, connection)) for key, n in again.items() if n]
        _REPEATS.insert_all(connection, list(map(sealed, counted)), "REPLACE")
    return inserted


def _last(connection: sqlite3.Connection) -> int:
    """The number of the last letter."""
    return int(connection.execute("SELECT max(n) FROM letters").fetchone()[0] or 0)


def _remove(keys: Sequence[Key], connection: sqlite3.Connection) -> Change:
    connection.executemany("DELETE FROM repeats WHERE output = ? AND id = ?", keys)
    removed = connection.executemany("DELETE FROM letters WHERE output = ? AND id = ?", keys).rowcount
    shrink(connection)
    return -max(removed, 0), size(connection)


def _purge(condition: str, values: Mapping[str, Any], connection: sqlite3.Connection) -> Change:
    found = connection.execute(f"SELECT output, id FROM letters WHERE {condition}", values)  # noqa: S608 - constants
    return _remove(found.fetchall(), connection)


def _push_out(connection: sqlite3.Connection) -> int:
    """Remove some of the oldest letters; returns how many."""
    return -_purge("n IN (SELECT n FROM letters ORDER BY n LIMIT :some)", {"some": _PUSHED_OUT}, connection)[0]


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM letters").fetchone()[0])

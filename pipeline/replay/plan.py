"""What a replay would write: an output that only counts by index, and looks up what is there already."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline import registry
from pipeline.config import OutputPart
from pipeline.contract import Context, Output, Payload, Unusable, Written
from pipeline.outputs import indices, local
from pipeline.outputs._answers import Failed


@dataclass(slots=True)
class Row:
    """What an index would get."""

    output: str
    index: str
    documents: int = 0
    already: int = 0
    """How many of them are there, in the index or in a replay index of its day."""
    exists: bool = False
    read_only: bool = False
    phase: str | None = None
    """Of its lifecycle; None: it has none, or is not there."""
    deleted: float | None = None
    """When its lifecycle deletes it, or would delete it if it was made now, in seconds since 1970; None: never."""

    @property
    def notes(self) -> list[str]:
        """What to know before it is written to."""
        notes = [] if self.exists else ["not there yet"]
        notes += ["read-only"] * self.read_only
        notes += [self.phase] if self.phase else []
        if self.deleted is not None:
            day = time.strftime("%Y-%m-%d", time.gmtime(self.deleted))
            notes.append("DELETED AT ONCE by its lifecycle" if self.deleted <= time.time() else f"deleted on {day}")
        return notes


def built(part: OutputPart, context: Context) -> Output:
    """An output as configured."""
    output: Output = registry.find("output", part.type)(part.options, context)
    return output


class Planned:
    """Stands for an output; see `contract.Output`. Nothing is written."""

    def __init__(self, part: OutputPart, output: Output) -> None:
        self._name = part.name
        self._store: _Cluster | _File | None = None
        match part.type:
            case "elasticsearch":
                self._store = _Cluster(output)
            case "local":
                self._store = _File(part.options)
        self._around: dict[str, Sequence[str]] = {}
        self.rows: dict[str, Row] = {}
        """What each index would get."""

    async def start(self) -> None:
        """Open what is asked."""
        if isinstance(self._store, _Cluster):
            await self._store.output.start()

    async def write(self, payload: Payload) -> Written:
        """Count and look up; raises `Unusable` where that does not work."""
        written = Written()
        for documents in payload:
            row = self.rows.setdefault(documents.index, Row(self._name, documents.index))
            with self._told():
                found = await self._existing(documents.index, [id_ for id_, _ in documents.pairs()])
            row.documents += documents.count
            row.already += found
            written.already += found
            written.stored += documents.count - found
        return written

    async def _existing(self, index: str, ids: list[str]) -> int:
        if not self._store:
            return 0
        if index not in self._around:
            self._around[index] = await self._store.around(index)
        found: set[str] = set()
        for each in self._around[index]:
            found |= await self._store.existing(each, ids)
        return len(found)

    async def stop(self) -> None:
        """Ask what holds for the indices, and close everything."""
        if not self._store:
            return
        try:
            with self._told():
                await self._store.describe(self.rows)
        finally:
            if isinstance(self._store, _Cluster):
                await self._store.output.stop()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Failed as error:
            raise Unusable(f"output {self._name} can't be asked: {error.reason}") from error


class _Cluster:
    """An Elasticsearch."""

    def __init__(self, output: Any) -> None:
        self.output, self._ask = output, output.ask
        self.existing = partial(indices.existing, self._ask)

    async def around(self, index: str) -> Sequence[str]:
        """The index, and the replay indices of its day."""
        same = indices.daily(index)
        names = [index] if same is None else [same[0], f"{same[0]}-*"]
        found = await indices.standings(self._ask, names, lifecycle=False)
        return [each for each in found if same is None or (indices.daily(each) or ("",))[0] == same[0]]

    async def describe(self, rows: dict[str, Row]) -> None:
        """Blocks and lifecycle of the indices that are there, and of those that would be made."""
        found = await indices.standings(self._ask, rows) if rows else {}
        for index, row in rows.items():
            if standing := found.get(index):
                row.exists, row.read_only = True, bool(standing.blocks)
                row.phase, row.deleted = standing.phase, standing.deleted
            else:
                row.deleted = await indices.foreseen(self._ask, index, time.time())


class _File:
    """An embedded store."""

    def __init__(self, options: Any) -> None:
        self._path = options.path

    async def around(self, index: str) -> Sequence[str]:
        """The index alone."""
        return [index]

    async def existing(self, index: str, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there."""
        return local.existing(self._path, index, ids)

    async def describe(self, rows: dict[str, Row]) -> None:
        """Which indices are there."""
        there = local.counts(self._path) if self._path.exists() else {}
        for index, row in rows.items():
            row.exists = index in there

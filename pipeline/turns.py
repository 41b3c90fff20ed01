"""Who is next: what waits is taken from each source in turn, and of one source from each batch in turn.

So a flood from one input, or one enormous batch, makes others wait for a piece of it, never for all of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from pipeline.contract import Batch

_RECORD = 256
"""The least that a record weighs: processing a tiny one costs about as much as processing one of this size."""


class Weighed(Protocol):
    """What may wait for its turn."""

    @property
    def weight(self) -> int:
        """How much work it is, in bytes."""
        ...


T = TypeVar("T", bound=Weighed)


class Turns(Generic[T]):
    """A queue that is fair to its sources."""

    def __init__(self) -> None:
        # The next one to be served first. One of which nothing waits keeps its place: what comes of it does not wait
        # for those that were served since.
        self._sources: dict[str, deque[deque[T]]] = {}

    def __bool__(self) -> bool:
        return any(self._sources.values())

    def add(self, source: str, pieces: Sequence[T]) -> None:
        """Have the pieces of one batch, at least one, wait for their turns."""
        self._sources.setdefault(source, deque()).append(deque(pieces))

    def take(self, most: int) -> list[T]:
        """The next pieces, together no heavier than `most`, or one alone; there must be one."""
        taken = [self._next()]
        room = most - taken[0].weight
        while self and self._head().weight <= room:
            taken.append(self._next())
            room -= taken[-1].weight
        return taken

    def _head(self) -> T:
        return next(filter(None, self._sources.values()))[0][0]

    def _next(self) -> T:
        source = next(source for source, batches in self._sources.items() if batches)
        batches = self._sources.pop(source)
        pieces = batches.popleft()
        piece = pieces.popleft()
        if pieces:
            batches.append(pieces)
        self._sources[source] = batches
        return piece


def weight(batch: Batch) -> int:
    """How much work a batch is, in bytes: those of its records, of which tiny ones count for more than they have."""
    return max(len(batch.block), _RECORD * len(batch))


def pieces(batch: Batch, most: int) -> list[tuple[int, Batch]]:
    """The batch in pieces of this weight where it is twice as heavy or more, else as it is; each with the place of
    its first record in the batch.
    """
    if weight(batch) < 2 * most:
        return [(0, batch)]
    starts, found, first = batch.starts(), [], 0
    ends = [*starts[1:], len(batch.block)]
    while first < len(ends):
        last = bisect_right(ends, starts[first] + most, first, min(len(ends), first + max(1, most // _RECORD)))
        last = max(last, first + 1)
        found.append((first, batch.slice(first, last, starts)))
        first = last
    return found

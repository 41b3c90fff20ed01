"""Who is next: what waits is taken from each source in turn, and of one source from each batch in turn.

So a flood from one input, or one enormous batch, makes others wait for a piece of it, never for all of it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
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
    ends, found, first = _ends(batch), [], 0
    while first < len(ends):
        begin = ends[first - 1] if first else 0
        last = bisect_right(ends, begin + most, first, min(len(ends), first + max(1, most // _RECORD)))
        last = max(last, first + 1)
        found.append((first, _piece(batch, ends, first, last)))
        first = last
    return found


def split(batch: Batch, first: int) -> tuple[Batch, Batch]:
    """The records before `first`, at least one, and those from there on, at least one."""
    ends = _ends(batch)
    return _piece(batch, ends, 0, first), _piece(batch, ends, first, len(ends))


def _ends(batch: Batch) -> array[int]:
    return batch.ends or array("Q", accumulate(len(line) + 1 for line in _lines(batch.block)))


def _lines(block: bytes) -> list[bytes]:
    return block.removesuffix(b"\n").split(b"\n")


def _piece(batch: Batch, ends: array[int], first: int, last: int) -> Batch:
    """The records from `first` up to `last`, as a batch of their own."""
    begin = ends[first - 1] if first else 0
    return replace(
        batch,
        block=batch.block[begin : ends[last - 1]],
        base=batch.base + begin,
        ends=None if batch.ends is None else array("Q", (end - begin for end in ends[first:last])),
        positions=None if batch.positions is None else batch.positions[first:last],
        ids=None if batch.ids is None else batch.ids[first:last],
    )

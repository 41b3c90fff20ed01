"""Small batches of the same kind as one: each costs the chain, and the way there, as much as some dozen records."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from pipeline.contract import Batch

_SMALL = 32 << 10
"""Bytes of a batch that is worth being put together with others: of a larger one its records are the cost."""


@dataclass(slots=True)
class Together:
    """A batch that was put together from some."""

    batch: Batch
    members: list[int]
    """Which of the batches given it has."""
    starts: list[int]
    """The number of each one's first record."""

    def where(self, record: int) -> tuple[int, int]:
        """Which of the batches given a record comes from, and its number there."""
        n = bisect_right(self.starts, record) - 1
        return self.members[n], record - self.starts[n]


def together(batches: Sequence[Batch]) -> list[Together]:
    """The batches, small ones that have ids and differ in nothing but their records as one."""
    kinds: dict[object, list[int]] = {}
    for n, batch in enumerate(batches):
        kind: object = n
        if batch.ids is not None and len(batch.block) <= _SMALL:
            kind = batch.input, batch.refuse, batch.ends is None, tuple(batch.origin.items())
        kinds.setdefault(kind, []).append(n)
    return [_joined(batches, members) for members in kinds.values()]


def _joined(batches: Sequence[Batch], members: list[int]) -> Together:
    some = [batches[n] for n in members]
    if len(some) == 1:
        return Together(some[0], members, [0])
    starts, count = [], 0
    for batch in some:
        starts.append(count)
        count += len(batch)
    ids = [*chain.from_iterable(batch.ids or () for batch in some)]
    if some[0].ends is None:
        blocks = [batch.block if batch.block.endswith(b"\n") else batch.block + b"\n" for batch in some]
        return Together(replace(some[0], block=b"".join(blocks), ids=ids), members, starts)
    ends, size = array("Q"), 0
    for batch in some:
        ends.extend(size + end for end in batch.ends or ())
        size += len(batch.block)
    block = b"".join([batch.block for batch in some])
    return Together(replace(some[0], block=block, ends=ends, ids=ids), members, starts)

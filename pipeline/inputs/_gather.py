"""Puts records of clients that expect no answer together into batches, and delivers them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from array import array
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from pipeline.contract import Batch, Deliver

_BATCH = 1 << 20  # bytes: what delivery works on at once
_TINY = 256  # bytes for which a record counts at least: see pipeline.turns
_RECORD = 128  # bytes that a record takes beside its own, with its id and its place in lists
_LINGER = 0.05  # seconds that the first record of a batch waits for others
_DELIVERIES = 8  # at once; beyond that batches grow instead

Spawn = Callable[[Coroutine[None, None, None]], object]


@dataclass(slots=True, eq=False)
class _Growing:
    records: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    size: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z")


class Gather:
    """Collects records; each batch is delivered when it is full or its first record has waited long enough.

    `spawn` starts a task that the input awaits before it ends. `changed(bytes, batches)` is told what came under way
    (positive) and what is done with (negative).
    """

    def __init__(self, name: str, deliver: Deliver, spawn: Spawn, changed: Callable[[int, int], None]) -> None:
        self._name, self._deliver, self._spawn, self._changed = name, deliver, spawn, changed
        self._batch: _Growing | None = None
        self._slots = asyncio.Semaphore(_DELIVERIES)

    def add(self, records: list[bytes], ids: Sequence[str] = ()) -> None:
        """Take records and their document ids, always or never; without any they are random."""
        if not records:
            return
        if (batch := self._batch) is None:
            batch = self._batch = _Growing()
            self._changed(0, 1)
            self._spawn(self._store(batch))
        size = sum(map(len, records)) + _RECORD * len(records)
        batch.records += records
        batch.ids += ids
        batch.size += size
        self._changed(size, 0)
        if max(batch.size, _TINY * len(batch.records)) >= _BATCH:
            batch.full.set()
            self._batch = None

    async def _store(self, batch: _Growing) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await batch.full.wait()
        async with self._slots:
            if self._batch is batch:
                self._batch = None
            await self._deliver(self._made(batch))
        self._changed(-batch.size, -1)

    def _made(self, batch: _Growing) -> Batch:
        block, ends = b"".join(batch.records), array("Q", accumulate(map(len, batch.records)))
        batch.records.clear()  # else they would be held twice until they are stored
        origin = {"event.created": batch.created}
        identity = os.urandom(12).hex()
        return Batch(self._name, block, identity, ends=ends, ids=batch.ids or None, origin=origin)

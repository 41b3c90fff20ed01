"""How fast, and how much: what stands between the inputs of a replay and delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.contract import Batch, Deliver, Outcome

_STEPS = 10
"""Portions a second that a rate is kept with."""


class Pace:
    """Delivers no more than `rate` records a second and, of all inputs together, the first `limit`.

    Replay inputs do not look at outcomes: nothing is refused to a client.
    """

    def __init__(self, deliver: Deliver, rate: float | None, limit: int | None, enough: Callable[[], None]) -> None:
        self._deliver, self._rate, self._left, self._enough = deliver, rate, limit, enough
        self._turn = asyncio.Lock()
        self._next = 0.0

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`."""
        if self._rate is None and self._left is None:
            return await self._deliver(batch, wait=wait)
        count = len(batch.places())
        portion = count if self._rate is None else max(1, round(self._rate / _STEPS))
        for start in range(0, count, portion):
            size = await self._take(min(portion, count - start))
            if size:
                await self._deliver(batch.slice(start, start + size), wait=wait)
        return Outcome()

    async def _take(self, count: int) -> int:
        """Wait for the turn of so many records; returns how many of them may go."""
        async with self._turn:
            if self._left is not None:
                count = min(count, self._left)
                self._left -= count
                if count and not self._left:
                    self._enough()
            if self._rate is not None:
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(self._next - now)
                self._next = max(self._next, now) + count / self._rate
        return count

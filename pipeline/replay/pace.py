"""How fast, and how much: what stands between the inputs of a replay and delivery.

A batch's place is remembered when all of it is stored. So with a rate the batch that came first goes first: if all of
them shared the rate, a replay that is interrupted would have got nowhere with many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from pipeline.contract import Batch, Deliver, Outcome

_STEPS = 10
"""Portions a second that a rate is kept with."""


class Pace:
    """Delivers no more than `rate` records a second and, of all inputs together, the first `limit`.

    Replay inputs do not look at outcomes: nothing is refused to a client.
    """

    def __init__(self, deliver: Deliver, rate: float | None, limit: int | None, enough: Callable[[], None]) -> None:
        self._deliver, self._rate, self._left, self._enough = deliver, rate, limit, enough
        self._batches = count()
        self._busy = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # a heap
        self._next = 0.0

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`."""
        if self._rate is None and self._left is None:
            return await self._deliver(batch, wait=wait)
        number, records = next(self._batches), len(batch.places())
        portion = records if self._rate is None else max(1, round(self._rate / _STEPS))
        for start in range(0, records, portion):
            await self._turn(number)
            if size := self._take(min(portion, records - start)):
                await self._deliver(batch.slice(start, start + size), wait=wait)
        return Outcome()

    async def _turn(self, number: int) -> None:
        """Wait until records may go, and no earlier batch has some that wait."""
        if self._busy:
            turn = asyncio.get_running_loop().create_future()
            heappush(self._waiting, (number, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._pass()
                raise
        self._busy = True

    def _take(self, records: int) -> int:
        """How many of these records may go now; the next turn is when their time is over."""
        loop = asyncio.get_running_loop()
        if self._left is not None:
            records = min(records, self._left)
            self._left -= records
            if records and not self._left:
                self._enough()
        if self._rate is not None:
            self._next = max(self._next, loop.time()) + records / self._rate
        loop.call_at(self._next, self._pass)
        return records

    def _pass(self) -> None:
        self._busy = False
        while self._waiting and not self._busy:
            _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self._busy = True

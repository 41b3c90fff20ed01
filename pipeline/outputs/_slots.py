"""How many requests are under way at once: as many as the cluster takes well (AIMD).

Additive increase: each round of good answers allows one more, up to `most`. Multiplicative decrease: an answer that
says "too much" (429), none in time, or one that takes longer than `slow` seconds halves it, down to one; all that was
sent before the decrease counts as one event, for it tells of the same moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """Used as `async with slots:` around a request; `judge()` tells how it fared."""

    def __init__(self, most: int, slow: float, changed: Callable[[int], None]) -> None:
        self._most, self._slow, self._changed = most, slow, changed
        self._limit = float(most)
        self._busy = 0
        self._narrowed = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        changed(most)

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return int(self._limit)

    def judge(self, sent: float, *, good: bool) -> None:
        """A request sent at this time of the loop was answered, well or not."""
        now, before = asyncio.get_running_loop().time(), self.limit
        if good and now - sent <= self._slow:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif sent >= self._narrowed:
            self._limit, self._narrowed = max(1.0, self._limit / 2), now
        if self.limit != before:
            self._changed(self.limit)
            self._wake()

    async def __aenter__(self) -> None:
        while self._busy >= self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()  # if it was this one's turn, it is the next one's now
                raise
        self._busy += 1

    async def __aexit__(self, *_: object) -> None:
        self._busy -= 1
        self._wake()

    def _wake(self) -> None:
        free = self.limit - self._busy
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

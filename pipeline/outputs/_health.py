"""Whether an output's server takes anything: what is logged, shown in /status and waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

log = logging.getLogger("aiologs.output")

GRACE_SECONDS = 1.0
"""A failure so soon after a success is no outage yet."""
EVERY_SECONDS = 60.0
"""How often the same trouble is logged again."""
_TROUBLES = 1000


class Health:
    """Knows of an outage from the first failure to the first success, and wakes those who wait for its end.

    Times are those of the running event loop. `waiting` is to hold how many documents wait.
    """

    def __init__(self, name: str, gauge: Callable[[str, float, Mapping[str, str]], None]) -> None:
        self.blocked: str | None = None
        """Why nothing at all is taken now; None: something is."""
        self.waiting = 0
        self._name, self._gauge = name, gauge
        self._success = float("-inf")
        self._since = self._logged = 0.0
        self._over = asyncio.Event()
        self._troubles: dict[str, tuple[float, int]] = {}

    def took(self) -> None:
        """Something was taken."""
        self._success = _now()
        if self.blocked is not None:
            log.info("output %s takes documents again, after %.0f s", self._name, self._success - self._since)
            self.blocked = None
            self._gauge("output_blocked", 0, {"output": self._name})
            self._over.set()

    def took_since(self, time: float) -> bool:
        """Whether anything was taken at `time` or later."""
        return self._success >= time

    def failed(self, reason: str) -> None:
        """Nothing was taken of a request; an outage begins, or goes on."""
        now = _now()
        if now - self._success < GRACE_SECONDS:
            return
        if self.blocked is None:
            self._since = now
            self._over.clear()
            self._gauge("output_blocked", 1, {"output": self._name})
            log.warning("output %s takes nothing: %s. It is tried again; inputs wait", self._name, reason)
            self._logged = now
        elif now - self._logged >= EVERY_SECONDS:
            log.warning(
                "output %s has taken nothing for %.0f s, %d documents wait: %s",
                self._name,
                now - self._since,
                self.waiting,
                reason,
            )
            self._logged = now
        self.blocked = reason

    async def pause(self, seconds: float) -> None:
        """Wait before the next try; during an outage, at most until it ends."""
        if self.blocked is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    def trouble(self, what: str, count: int) -> None:
        """Log that something concerns `count` documents: at once, then once a minute with the sum."""
        now = _now()
        last, sum_ = self._troubles.get(what, (float("-inf"), 0))
        sum_ += count
        if now - last >= EVERY_SECONDS:
            log.warning("output %s: %s (%d documents)", self._name, what, sum_)
            last, sum_ = now, 0
        if len(self._troubles) >= _TROUBLES:
            self._troubles.clear()
        self._troubles[what] = last, sum_


def _now() -> float:
    return asyncio.get_running_loop().time()

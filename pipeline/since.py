"""What goes on at the moment, and since when: for /status."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Since:
    """What goes on at the moment, by name, and since when (seconds since 1970)."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Count something as going on under this name."""
        now = time.time()
        times = self._times.setdefault(name, [])
        times.append(now)
        try:
            yield
        finally:
            times.remove(now)
            if not times:
                del self._times[name]

    def oldest(self) -> dict[str, float]:
        """For each name, since when the oldest goes on that has not ended."""
        return {name: min(times) for name, times in self._times.items()}

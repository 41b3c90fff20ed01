"""What the daemon does beside its inputs: try parked documents again, and keep the gauges that nobody else sets."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.app import App

_UNPARK_SECONDS = 5.0
_MEASURE_SECONDS = 1.0


async def unpark(app: App) -> None:
    """Try parked documents again, for as long as there are some."""
    while True:
        await asyncio.gather(*(app.delivery.storing.unpark(*each) for each in app.outputs.items()))
        await asyncio.sleep(_UNPARK_SECONDS)


async def measure(app: App) -> None:
    """Keep the gauges that nobody else sets."""
    gauge, started = app.metrics.gauge, time.monotonic()
    while True:
        gauge("in_flight_bytes", app.delivery.in_flight_bytes, {})
        gauge("workers", app.processor.alive, {})
        gauge("dead_letters", app.dead.count(), {})
        gauge("dead_letter_bytes", app.dead.bytes(), {})
        gauge("parked_bytes", app.parked.bytes, {})
        gauge("parked_oldest_seconds", time.time() - app.parked.oldest if app.parked.oldest else 0, {})
        for (output, index), documents in app.parked.counts().items():
            gauge("parked", documents, {"output": output, "index": index})
        await asyncio.sleep(_MEASURE_SECONDS)
        app.blocked.look(app.outputs)
        for name in app.blocked.since:
            app.metrics.count("blocked_seconds", time.monotonic() - started, {"output": name})
        started = time.monotonic()

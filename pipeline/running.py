"""An input at work: its task, and how to end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import InputPart
    from pipeline.contract import Input

log = logging.getLogger("aiologs")

_CANCEL_SECONDS = 2.0
"""How long an input that is cut off may take to let go of what it holds."""


class Running:
    """An input that reads until it is told to end."""

    def __init__(
        self, part: InputPart, source: Input, work: Callable[[asyncio.Event], Coroutine[None, None, None]]
    ) -> None:
        self.part, self.source = part, source
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(work(self.stop), name=f"input {part.name}")

    async def opened(self) -> None:
        """Wait until clients can connect, where it takes some; raises what it failed with."""
        listening: asyncio.Event | None = getattr(self.source, "listening", None)
        if listening is None:
            return
        opening = asyncio.create_task(listening.wait())
        await asyncio.wait({opening, self.task}, return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if self.task.done():
            self.task.result()

    async def end(self, seconds: float) -> bool:
        """Have it finish what is under way and return; False: it took longer and was cut off.

        What an input that is cut off has read and not delivered is read again by the next one of its name.
        """
        self.stop.set()
        done, _ = await asyncio.wait({self.task}, timeout=max(0, seconds))
        if not done:
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=_CANCEL_SECONDS)
        return bool(done)

    @property
    def failure(self) -> Exception | None:
        """What it ended with, where that was an error."""
        if not self.task.done() or self.task.cancelled():
            return None
        error = self.task.exception()
        return error if isinstance(error, Exception) else None

"""What a reload exchanges while it is in use: the processor, and outputs, behind objects that stay.

What began with the old one ends with it, then the old one is stopped: nothing is sent again because of a reload.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, Protocol, TypeVar

from pipeline.chain import Processed
from pipeline.contract import Batch, Output, Payload, Written
from pipeline.workers import Processor

_REPLACED = "the output was replaced by a reload before it had stored this"


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


T = TypeVar("T", bound=_Startable)
R = TypeVar("R")


class Use(Generic[T]):
    """A processor or output, and what is under way in it."""

    def __init__(self, it: T) -> None:
        self.it, self._started = it, False
        self.given_up = False
        """What was under way in it was cut off."""
        self.turn = asyncio.Event()
        """Set when what it replaces is done: two of them never write to one file."""
        self.turn.set()
        self._tasks: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Start it."""
        await self.it.start()
        self._started = True

    async def stop(self) -> None:
        """Stop it, where it was started."""
        if self._started:
            await self.it.stop()

    async def run(self, work: asyncio.Future[R]) -> R:
        """Wait for work in it, counted as under way; cancelling the wait cancels the work."""
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        return await work

    async def retire(self, seconds: float | None) -> int:
        """Let what is under way end, within so many seconds, and stop it; returns how much was cut off."""
        _, late = await asyncio.wait(self._tasks, timeout=seconds) if self._tasks else (set(), set())
        self.given_up = True
        for task in late:
            task.cancel()
        await self.stop()
        return len(late)


class SwapProcessor:
    """A processor that can be exchanged; see `workers.Processor`."""

    def __init__(self, use: Use[Processor]) -> None:
        self.use = use

    @property
    def alive(self) -> int:
        """How many processes it has."""
        return self.use.it.alive

    async def start(self) -> None:
        """Be ready to process."""
        await self.use.start()

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches, one result each."""
        use = self.use
        return await use.run(asyncio.ensure_future(use.it.process(batches)))

    async def stop(self) -> None:
        """Give everything back."""
        await self.use.stop()


class SwapOutput:
    """An output that can be exchanged; see `contract.Output`."""

    def __init__(self, use: Use[Output]) -> None:
        self.use = use

    @property
    def blocked(self) -> str | None:
        """Why nothing at all is taken now; None: something is, or it does not tell."""
        blocked: str | None = getattr(self.use.it, "blocked", None)
        return blocked

    async def start(self) -> None:
        """Open what is needed."""
        await self.use.start()

    async def write(self, payload: Payload) -> Written:
        """Store the payload; what a replaced output could not store in time is late, to be stored by its successor."""
        while not (use := self.use).turn.is_set():  # a reload that fails gives the turn back to the one before
            await use.turn.wait()
        try:
            return await use.run(asyncio.ensure_future(use.it.write(payload)))
        except asyncio.CancelledError:
            if not use.given_up:
                raise
            return Written(late=[(documents, _REPLACED) for documents in payload])

    async def stop(self) -> None:
        """Close everything."""
        await self.use.stop()

"""Blocking writes in a thread; those that come meanwhile are put together, so that one fsync makes all durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.contract import Payload, Written
from pipeline.outputs._health import Health

PAUSE_SECONDS = 0.5
MOST_SECONDS = 10.0

T = TypeVar("T")


class Group:
    """Runs `work` in one thread, on all the payloads that came during its last run.

    `work` gives what became of each payload, durably, or raises one of `errors` and has done nothing: then it is
    tried again for as long as it takes. What else it raises, each writer gets.
    """

    def __init__(
        self, work: Callable[[list[Payload]], list[Written]], health: Health, errors: tuple[type[Exception], ...]
    ) -> None:
        self._work, self._health, self._errors = work, health, errors
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[Payload, asyncio.Future[Written]]] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run something else in the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def write(self, payload: Payload) -> Written:
        """Hand a payload to the next run; cancelling this leaves the run under way."""
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append((payload, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._runs(), name="output group")
        return await done

    async def _runs(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                results = await self._persist([payload for payload, _ in taken])
            except asyncio.CancelledError:
                for _, done in taken:
                    done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - the writers get it
                for _, done in taken:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), written in zip(taken, results, strict=True):
                if not done.done():
                    done.set_result(written)

    async def _persist(self, payloads: list[Payload]) -> list[Written]:
        pause = PAUSE_SECONDS
        self._health.waiting = sum(documents.count for payload in payloads for documents in payload)
        while True:
            try:
                results = await self.run(lambda: self._work(payloads))
            except self._errors as error:
                self._health.failed(str(error))
                await self._health.pause(pause)
                pause = min(2 * pause, MOST_SECONDS)
            else:
                self._health.took()
                self._health.waiting = 0
                return results

    async def stop(self, last: Callable[[], None] = lambda: None) -> None:
        """Finish what is under way, then run `last` in the thread; what can't be written now is given up."""
        if self._task is not None and self._health.blocked is not None:
            self._task.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})
        for _, done in self._waiting:
            done.cancel()
        await self.run(last)
        self._thread.shutdown()

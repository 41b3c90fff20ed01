"""A window: some batches of one file or partition under way, their positions committed in the order read.

An input that can read ahead puts its batches through a window for each of its sources. Batches are delivered at the
same time and may end in any order; a position is committed when its batch and all before it are delivered. Room is
freed when a position is committed, not when its batch is done: else read-ahead would grow without bound behind a
batch that hangs.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.contract import Batch, Deliver, Outcome

Position = TypeVar("Position")
Ended = Callable[[BaseException | None], None]


class Window(Generic[Position]):
    """Up to `limit` batches under way.

    `commit` is called with each position in the order submitted, on the event loop. `ended`, where given, is called
    after each delivery that ended, with its error or None: an input with many windows learns there that one of them
    has room or has failed. After a failed delivery nothing behind it is committed.
    """

    def __init__(
        self, deliver: Deliver, commit: Callable[[Position], None], limit: int, ended: Ended | None = None
    ) -> None:
        self._deliver, self._commit, self._limit, self._ended = deliver, commit, limit, ended
        self._under_way: deque[tuple[asyncio.Task[Outcome], Position]] = deque()
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        """How many batches are under way: delivered ones count until their position is committed."""
        return len(self._under_way)

    def has_room(self) -> bool:
        """Whether a batch may be submitted now; raises the error of a delivery that failed."""
        if self._failure:
            raise self._failure
        return len(self._under_way) < self._limit

    async def room(self) -> None:
        """Wait until a batch may be submitted; raises the error of a delivery that failed."""
        while not self.has_room():
            pending = [task for task, _ in self._under_way if not task.done()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    def submit(self, batch: Batch, position: Position) -> None:
        """Start the delivery of a batch; `position` is what to commit after it. The caller has asked for room."""
        task = asyncio.ensure_future(self._deliver(batch))
        self._under_way.append((task, position))
        task.add_done_callback(self._done)

    async def drain(self) -> None:
        """Wait for everything under way; raises the error of a delivery that failed, without waiting further."""
        if tasks := [task for task, _ in self._under_way]:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        self.has_room()

    def cancel(self) -> None:
        """Give up what is under way: nothing of it is committed any more."""
        for task, _ in self._under_way:
            task.remove_done_callback(self._done)
            task.cancel()
        self._under_way.clear()

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        error = RuntimeError("a delivery was cancelled") if task.cancelled() else task.exception()
        self._failure = self._failure or error
        while self._under_way and self._delivered(self._under_way[0][0]):
            self._commit(self._under_way.popleft()[1])
        if self._ended:
            self._ended(error)

    @staticmethod
    def _delivered(task: asyncio.Task[Outcome]) -> bool:
        return task.done() and not task.cancelled() and not task.exception()

"""`buffer.db`: batches of inputs whose clients can't wait (`buffer: disk`), until they are delivered.

An input's `deliver()` then returns when its batch is on the disk, fsynced together with those that came meanwhile. A
task in the background takes the batches out in the order in which they came, some at a time, and removes each when it
is delivered. A batch keeps its document ids, random ones too, so one that is delivered again after a crash is known to
be there already. When a buffer is full, inputs wait or answer that it is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline import batches
from pipeline.batches import Entry, Usage
from pipeline.contract import Batch, Deliver, Full, Input, Outcome
from pipeline.database import Database, StorageError

log = logging.getLogger("aiologs.buffer")

T = TypeVar("T")
Gauge = Callable[[str, float, Mapping[str, str]], None]
Count = Callable[[str, int, Mapping[str, str]], None]

NAME = "buffer.db"
WINDOW = 256
"""Batches of one buffer that are being delivered: many, since those of HTTP may be small."""
WINDOW_BYTES = 4 << 20

_TAKEN = 1 << 20  # bytes that are read at once
_RETRY_SECONDS = 1.0


class Buffers:
    """The file, and the buffers of all inputs in it."""

    def __init__(self, data_dir: Path, gauge: Gauge, count: Count) -> None:
        self.database = Database(data_dir / NAME, [batches.TABLE])
        self.gauge, self.count = gauge, count
        self.numbers = itertools.count(1)
        """Numbers of batches, taken in the database's thread: later ones are greater, also when the file was empty."""
        self._path, self._open = data_dir / NAME, False
        self._buffers: dict[str, Buffer] = {}

    def add(self, name: str, max_bytes: int) -> None:
        """Have a buffer for an input."""
        self._buffers[name] = Buffer(name, self, max_bytes)

    def get(self, name: str) -> Buffer | None:
        """The buffer of an input, None where it has none."""
        return self._buffers.get(name)

    async def start(self) -> None:
        """Open the file, where it is needed or there from before; raises `Unusable`."""
        await self._find(lambda _: True)

    async def change(self, name: str, max_bytes: int | None) -> None:
        """Have a new buffer for an input that does not run now, or none; raises `Unusable`."""
        self._buffers.pop(name, None)
        if max_bytes is not None:
            self.add(name, max_bytes)
        await self._find(lambda each: each == name)

    async def _find(self, wanted: Callable[[str], bool]) -> None:
        """Open the file, and see what waits in it for inputs."""
        if not self._buffers and not self._path.exists():
            return
        await self.database.start()
        last, usages = await self.database.read(batches.everything)
        if not self._open:
            self._open, self.numbers = True, itertools.count(last + 1)
        for name, usage in usages.items():
            if not wanted(name):
                continue
            if name in self._buffers:
                self._buffers[name].found(usage)
            else:
                log.error(
                    "%s holds %d batches of input %s, which has no `buffer: disk` now: they stay there until it has",
                    self._path, usage.batches, name,
                )  # fmt: skip

    async def stop(self) -> None:
        """Close the file."""
        await self.database.stop()


class Buffer:
    """What was taken from one input and is not delivered yet, up to `max_bytes`."""

    def __init__(self, name: str, buffers: Buffers, max_bytes: int) -> None:
        self._name, self._buffers, self._max_bytes = name, buffers, max_bytes
        self._database = buffers.database
        self._usage = self._passing = Usage()
        self._room = asyncio.Condition()
        self._filled, self._closed = asyncio.Event(), False
        self._writing: set[asyncio.Task[None]] = set()
        self._last = 0  # the number of the last batch that was taken out

    @property
    def usage(self) -> Usage:
        """What waits in it."""
        return self._usage

    def found(self, usage: Usage) -> None:
        """Note what an earlier run has left."""
        log.info("buffer of input %s: %d batches are left from before", self._name, usage.batches)
        self._filled.set()
        self._changed(usage)

    # --- in ---

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`; nothing is refused, since what the chain says of it comes later."""
        if not batch.block:
            return Outcome()
        size = batches.size(batch)
        if not self._fits(size) and not wait:
            raise Full(retry_after=_RETRY_SECONDS)
        async with self._room:
            await self._room.wait_for(lambda: self._fits(size))
            self._changed(self._usage.plus(size))
        # On its own: what is being written counts, even if nobody waits for it any more.
        writing = asyncio.create_task(self._put(batch, size, wait=wait), name=f"buffer a batch of {self._name}")
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)
        return Outcome()

    async def _put(self, batch: Batch, size: int, *, wait: bool) -> None:
        row = batches.row(batch, size)

        def put(connection: sqlite3.Connection) -> None:
            connection.execute(batches.INSERT, (next(self._buffers.numbers), *row))

        try:
            await (self._durably(put) if wait else self._database.write(put))
        except StorageError as error:
            await self._give_back(size)
            raise Full(retry_after=5.0) from error
        self._filled.set()

    def _fits(self, size: int) -> bool:
        # One batch may be larger than the whole buffer: it goes in alone.
        return not self._usage.batches or self._usage.bytes + size <= self._max_bytes

    async def _give_back(self, size: int) -> None:
        async with self._room:
            self._changed(self._usage.plus(-size, -1))
            self._room.notify_all()

    def _changed(self, usage: Usage) -> None:
        self._usage = usage
        labels = {"input": self._name}
        self._buffers.gauge("buffered_bytes", usage.bytes, labels)
        self._buffers.gauge("buffered_batches", usage.batches, labels)

    # --- out ---

    async def run(self, source: Input, deliver: Deliver, stop: asyncio.Event, *, once: bool = False) -> None:
        """Run an input with this buffer behind it; return when both have ended.

        When the input has ended, what is being delivered is waited for, and with `once` all that is in the buffer.
        The rest stays there until the next start.
        """
        draining = asyncio.create_task(self._drain(deliver, once=once), name=f"buffer of {self._name}")
        reading = asyncio.create_task(source.run(self.deliver, stop), name=f"input {self._name}")
        try:
            await asyncio.wait({draining, reading}, return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                draining.result()
            await reading
            self._closed = True
            self._filled.set()
            await draining
        finally:
            for task in (reading, draining):
                task.cancel()
            await asyncio.gather(reading, draining, return_exceptions=True)

    async def _drain(self, deliver: Deliver, *, once: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while not self._closed or once:
                    self._filled.clear()
                    entries, damaged = await self._durably(self._take)
                    for entry in entries:
                        await self._turn()
                        if self._closed and not once:
                            return
                        self._last, self._passing = entry.key, self._passing.plus(entry.size)
                        group.create_task(self._pass_on(entry, deliver))
                    if damaged:
                        self._buffers.count("buffer_damaged", damaged, {"input": self._name})
                    elif not entries:
                        await self._nothing_left()
                        if self._closed:
                            return
                        await self._filled.wait()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _turn(self) -> None:
        """Wait until another batch may be delivered."""
        async with self._room:
            await self._room.wait_for(lambda: self._passing.bytes < WINDOW_BYTES and self._passing.batches < WINDOW)

    async def _pass_on(self, entry: Entry, deliver: Deliver) -> None:
        await deliver(entry.batch)
        await self._durably(partial(batches.remove, entry.key))
        self._passing = self._passing.plus(-entry.size, -1)
        await self._give_back(entry.size)
        if not self._passing.batches:
            self._filled.set()  # to see whether anything is left

    async def _nothing_left(self) -> None:
        """Where everything is delivered, nothing is in the buffer: also what was lost to damage takes no room."""
        if self._usage.batches and not (self._passing.batches or self._writing or self._filled.is_set()):
            async with self._room:
                self._changed(Usage())
                self._room.notify_all()

    async def _durably(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work on the file, for as long as the disk refuses."""
        while True:
            try:
                return await self._database.write(work)
            except StorageError:  # the database has said so in the log
                await asyncio.sleep(_RETRY_SECONDS)

    # --- in the thread of the database ---

    def _take(self, connection: sqlite3.Connection) -> tuple[list[Entry], int]:
        """The next batches, about `_TAKEN` bytes, and how many of them were damaged and are put apart."""
        here = (self._name, self._last)
        last, wanted, room = 0, 0, _TAKEN
        for n, length in connection.execute(
            "SELECT n, length(block) FROM batches WHERE input = ? AND n > ? ORDER BY n LIMIT 256", here
        ):
            room -= length or 0
            if wanted and room < 0:
                break
            last, wanted = n, wanted + 1
        rows = self._database.select(
            connection, batches.TABLE, "WHERE input = ? AND n > ? AND n <= ? ORDER BY n", (*here, last)
        )
        return [batches.entry(row) for row in rows], wanted - len(rows)

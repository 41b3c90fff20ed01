"""Where the chain runs: in the daemon, or in chain processes, which hold no state, take batches as bytes and give
documents as bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.chain import Chain, ChainSpec, Processed
from pipeline.contract import Batch
from pipeline.failure import Failure
from pipeline.messages import Link
from pipeline.nursery import REFRESH, Nursery

log = logging.getLogger("aiologs.workers")


class Processor(Protocol):
    """Runs the chain somewhere."""

    @property
    def alive(self) -> int:
        """How many processes it has."""
        ...

    async def start(self) -> None:
        """Be ready to process."""
        ...

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches, one result each."""
        ...

    async def stop(self) -> None:
        """Give everything back."""
        ...


class Inline:
    """The chain in the daemon's own process: `workers: 0`, for tests and tiny machines."""

    def __init__(self, chain: Chain, gauge: Callable[[str, float], None] = lambda *_: None) -> None:
        self._chain, self._gauge, self._refreshed = chain, gauge, 0.0

    @property
    def alive(self) -> int:
        """It has no process of its own."""
        return 0

    async def start(self) -> None:
        """Nothing to start."""

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches, at once."""
        if time.monotonic() - self._refreshed > REFRESH:
            self._refreshed = time.monotonic()
            for name, value in self._chain.refresh().items():
                self._gauge(name, value)
        return [self._chain.run(batch) for batch in batches]

    async def stop(self) -> None:
        """Nothing to stop."""


class _Died(Exception):
    """A worker has ended, or was killed for hanging, with a batch under way."""


@dataclass(slots=True)
class _Worker:
    pid: int
    link: Link

    async def ask(self, batches: list[Batch]) -> tuple[list[Processed], dict[str, float]]:
        """Have batches processed; the stages' gauges come along now and then."""
        try:
            await self.link.send_soon(batches)
            reply: tuple[list[Processed], dict[str, float]] = await self.link.receive_soon()
        except (OSError, EOFError) as error:
            raise _Died(str(error)) from error
        return reply

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.link.close()


class Workers:
    """N chain processes. A batch waits for a free one.

    A worker that dies, or that does not answer within `deadline` seconds and is killed, is replaced and its batch is
    run again. A batch that ends two workers is halved until the one record that does it is found; that fails.
    """

    def __init__(
        self,
        nursery: Nursery,
        spec: ChainSpec,
        count: int,
        *,
        deadline: float = 30.0,
        gauge: Callable[[str, float], None] = lambda *_: None,
        restarted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._nursery, self._spec, self._count, self._deadline = nursery, spec, count, deadline
        self._gauge, self._restarted = gauge, restarted
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._all: dict[int, _Worker] = {}
        self._refilling = asyncio.Lock()
        self._stopped = False

    @property
    def alive(self) -> int:
        """How many workers there are."""
        return len(self._all)

    async def start(self) -> None:
        """Fork the workers."""
        await self._refill()

    async def _refill(self) -> None:
        """Have as many workers as there should be; a nursery that is gone is made anew."""
        while len(self._all) < self._count:
            try:
                worker = _Worker(*self._nursery.fork())
            except OSError:
                log.warning("the nursery of the workers has died: a new one is started")
                self._restarted("nursery")
                self._nursery.close()
                self._nursery = await Nursery.started(self._spec)
                continue
            self._all[worker.pid] = worker
            self._free.put_nowait(worker)

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches in a free worker."""
        for _ in range(2):
            with contextlib.suppress(_Died):
                return await self._try(batches)
        if len(batches) > 1:
            return [result for batch in batches for result in await self.process([batch])]
        return [await self._find(batches[0])]

    async def _find(self, batch: Batch) -> Processed:
        """Process a batch of which one record ends its worker."""
        records = len(batch.records())
        if records == 1:
            log.error(
                "a record of input %s (id %s) ends its worker: it is set aside", batch.input, batch.document_ids()[0]
            )
            reason = f"the chain process died or did not answer within {self._deadline:g} s, twice"
            return Processed(failures=[Failure(0, "worker", reason, "")], records=1)
        whole = Processed()
        half, start = (records + 1) // 2, 0
        while start < records:
            size = min(half, records - start)
            [result] = await self.process([batch.slice(start, start + size)])
            _merge(whole, result, start)
            start += size if result.rest is None else result.rest
        return whole

    async def _try(self, batches: list[Batch]) -> list[Processed]:
        worker = await self._free.get()
        clean = False
        try:
            async with asyncio.timeout(self._deadline):
                results, gauges = await worker.ask(batches)
            clean = True
        except TimeoutError:
            log.warning("worker %d has not answered for %g s: it is killed and replaced", worker.pid, self._deadline)
            self._restarted("hung")
            raise _Died from None
        except _Died:
            log.warning("worker %d has died: it is replaced and its batch is run again", worker.pid)
            self._restarted("died")
            raise
        finally:
            if clean:
                self._free.put_nowait(worker)
            else:  # also when cancelled: the answer that is still to come would be taken for that of the next batch
                await asyncio.shield(self._replace(worker))
        for name, value in gauges.items():
            self._gauge(name, value)
        return results

    async def _replace(self, worker: _Worker) -> None:
        worker.kill()
        self._all.pop(worker.pid, None)
        if not self._stopped:
            async with self._refilling:
                await self._refill()

    async def stop(self) -> None:
        """End the workers and the nursery."""
        self._stopped = True
        for worker in self._all.values():
            worker.link.close()
        self._all.clear()
        self._nursery.close()


def _merge(result: Processed, part: Processed, start: int) -> None:
    result.documents += part.documents
    result.failures += [failure._replace(record=failure.record + start) for failure in part.failures]
    result.records += part.records
    result.counts += part.counts
    for stage, seconds in part.seconds.items():
        result.seconds[stage] = result.seconds.get(stage, 0.0) + seconds

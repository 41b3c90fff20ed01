"""Delivery: from an input's batch to the return that acknowledges it.

Small batches that arrive while others are under way are processed and written together: nobody waits for a timer, and
the busier it gets, the larger the bulks. Inputs, and the batches of an input, have their turns (`pipeline.turns`): a
large batch is processed in pieces, and a good one waits neither for all of a flood, nor until all bad records of one
are found, nor for what its neighbours set aside. What is in flight is bounded in bytes. A batch is released when all
its records are stored by every output, or parked or set aside on disk; cancelling one `deliver()` leaves it, and its
neighbours, under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import letters
from pipeline.contract import Batch, Full, Outcome, Output, Refusal
from pipeline.dead import DeadLetters
from pipeline.ledger import Account, Ledger
from pipeline.runs import Piece, Run, Whole
from pipeline.since import Since
from pipeline.storing import Storing
from pipeline.tap import Taps
from pipeline.together import together
from pipeline.turns import Turns, pieces, weight

if TYPE_CHECKING:
    from pipeline.chain import Processed
    from pipeline.failure import Failure
    from pipeline.metrics import Metrics
    from pipeline.parked import Parked
    from pipeline.workers import Processor

log = logging.getLogger("aiologs.delivery")

_PASS = 4
"""Runs that may pass one of records behind bad ones."""


@dataclass(slots=True, frozen=True)
class Limits:
    """How much delivery takes on."""

    bytes: int = 8 << 20
    """Undecoded bytes in flight, of all inputs together; tiny records count for more, since what is made of them takes
    more room. A batch counts for half at most, and an input that has less than its share is let in: so nobody waits for
    ever."""
    run_bytes: int = 1 << 20
    """Small batches are put together up to this weight; large ones are cut into pieces of it."""
    runs: int = 12
    """Runs (chain, then outputs) under way at once."""
    park_after: float = 30.0
    """Seconds after which what one output has not stored, though another has, is parked."""


class Delivery:
    """Takes batches from all inputs through the chain to all outputs."""

    def __init__(
        self,
        processor: Processor,
        outputs: Mapping[str, Output],
        dead: DeadLetters,
        parked: Parked,
        metrics: Metrics,
        limits: Limits = Limits(),
    ) -> None:
        self.processor, self._metrics, self._limits = processor, metrics, limits
        self._ledger = Ledger(metrics, outputs)
        self.storing = Storing(outputs, dead, parked, metrics, self._ledger, limits.park_after)
        self._turns = Turns[Piece]()
        self._again = Turns[Piece]()  # what the chain has left behind bad records
        self._passed = 0  # runs since the last one of these
        self._held = Counter[str]()  # what is in flight of each input, as it counts
        self._freed = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        self._processing = self._busy = 0  # runs in the chain; runs in the chain or in the outputs
        self.in_flight_bytes = self.in_flight_batches = 0
        self.taps = Taps()
        self.waiting = Since()
        """Inputs that wait for an acknowledgement."""

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`."""
        if not batch.block:
            return Outcome()
        with self.waiting.during(batch.input):
            whole = await self._admitted(batch, wait=wait)
            parts = [Piece(whole, piece, first) for first, piece in pieces(batch, self._limits.run_bytes)]
            whole.left = len(parts)
            self._ledger.take(batch, sum(part.records for part in parts))
            self.taps.offer(batch)
            self._turns.add(batch.input, parts)
            self._start_runs()
            return await asyncio.shield(whole.done)

    def in_flight(self, output: str) -> int:
        """How many records and events have no fate yet at an output."""
        return self._ledger.in_flight[output]

    async def drain(self) -> None:
        """Wait for everything that is under way."""
        while self._runs:
            await asyncio.wait(self._runs)

    def abandon(self) -> None:
        """Give up what is under way, unacknowledged: it will be read again."""
        self._turns, self._again = Turns(), Turns()  # else the end of one run would begin the next
        for task in self._runs:
            task.cancel()

    # --- room ---

    async def _admitted(self, batch: Batch, *, wait: bool) -> Whole:
        """The batch, once there is room for it."""
        size = min(weight(batch), self._limits.bytes // 2)
        while not self._has_room(batch.input, size):
            if not wait:
                raise Full(retry_after=1.0)
            await self._freed.wait()
        self._held[batch.input] += size
        self.in_flight_bytes += len(batch.block)
        self.in_flight_batches += 1
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        return Whole(batch, size, done)

    def _has_room(self, name: str, size: int) -> bool:
        own, room = self._held[name], self._limits.bytes
        if not own or self._held.total() + size <= room:
            return True
        return own + size <= room // len(+self._held)

    def _release(self, whole: Whole) -> None:
        self._held[whole.batch.input] -= whole.held
        self.in_flight_bytes -= len(whole.batch.block)
        self.in_flight_batches -= 1
        self._freed.set()  # those who wait look again, in the order in which they came
        self._freed.clear()

    # --- runs ---

    def _start_runs(self) -> None:
        # More in the chain than are worked on would only take others' turns; until then small ones come together.
        most = max(1, self.processor.alive)
        while (self._turns or self._again) and self._processing < most and self._busy < self._limits.runs:
            self._processing += 1
            self._busy += 1
            taken = self._take()
            account = Account(self._ledger, sum(piece.records for piece in taken))
            task = asyncio.create_task(self._run(Run(taken, account)), name="run")
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)

    def _take(self) -> list[Piece]:
        """The pieces of the next run; what may be nothing but bad records lets some others pass, but not all."""
        if self._again and (self._passed >= _PASS or not self._turns):
            self._passed = 0
            return self._again.take(0)
        self._passed += 1
        return self._turns.take(self._limits.run_bytes)

    async def _run(self, run: Run) -> None:
        """Take the run's pieces all the way, then tell those who wait for them."""
        try:
            await self._store(run)
            # Only those who sent them wait until bad records are set aside.
            for piece in run.pieces:
                if not piece.letters:
                    self._end(piece)
            found = [letter for piece in run.pieces for letter in piece.letters]
            await self.storing.set_aside(found)
            run.account.decide("set_aside", len(found))
            for piece in run.pieces:
                self._end(piece)
        except BaseException as error:
            for piece in run.pieces:
                self._end(piece, error)
            if not isinstance(error, Exception):
                raise
        finally:
            run.account.close()

    def _end(self, piece: Piece, error: BaseException | None = None) -> None:
        """A piece is durable, or has failed; only its first end counts."""
        whole = piece.whole
        if piece.ended:
            return
        piece.ended = True
        whole.left -= 1
        whole.refused += piece.refused
        if not whole.left:
            self._release(whole)
        if whole.done.done():
            return
        if isinstance(error, asyncio.CancelledError):
            whole.done.cancel()
        elif error:
            whole.done.set_exception(error)
        elif not whole.left:
            whole.done.set_result(Outcome(sorted(whole.refused)))

    async def _store(self, run: Run) -> None:
        """Process the run's pieces, and write what was made of them."""
        try:
            await self._process(run)
            documents = [part for processed in run.processed for part in processed.documents]
            await self.storing.store(documents, [piece.batch for piece in run.pieces], run.account)
        finally:
            self._busy -= 1
            self._start_runs()

    async def _process(self, run: Run) -> None:
        started, joined = time.perf_counter(), together([piece.batch for piece in run.pieces])
        try:
            run.processed = await self.processor.process([each.batch for each in joined])
        finally:
            self._processing -= 1
            self._start_runs()
        self._metrics.observe("chain_seconds", time.perf_counter() - started, {})
        for stage in run.processed[0].seconds:
            seconds = sum(each.seconds.get(stage, 0.0) for each in run.processed)
            self._metrics.observe("stage_seconds", seconds, {"stage": stage})
        failures: dict[int, list[Failure]] = {}
        left: list[Piece] = []
        for each, processed in zip(joined, run.processed, strict=True):
            self._count(each.batch, processed, run.account)
            for failure in processed.failures:
                n, record = each.where(failure.record)
                failures.setdefault(n, []).append(failure._replace(record=record))
            if processed.rest is not None:
                left += run.left(each, processed.rest)
        for n, failed in failures.items():
            piece = run.pieces[n]
            if piece.batch.refuse:
                piece.refused = [Refusal(piece.first + failure.record, failure.reason) for failure in failed]
            else:
                piece.letters = letters.failed(piece.batch, failed)
        if left:
            self._put_back(run, left)

    def _put_back(self, run: Run, left: list[Piece]) -> None:
        """Have pieces wait for another turn, in small parts."""
        for piece in left:
            run.account.put_back(piece.records)
            self._again.add(piece.batch.input, piece.parts(self._limits.run_bytes // 4))
        run.pieces = [piece for piece in run.pieces if piece not in left]
        self._start_runs()

    def _count(self, batch: Batch, processed: Processed, account: Account) -> None:
        count = self._metrics.count
        taken = len(batch) if processed.rest is None else processed.rest
        if blank := taken - processed.records:
            processed.counts["dropped", "decode"] += blank
        for (what, label), n in processed.counts.items():
            match what:
                case "dropped":
                    count("events_dropped", n, {"stage": label})
                    account.decide("dropped", n)
                case "made":
                    account.made(label, n)
                case _:
                    count("redactions", n, {"rule": label})
        if batch.refuse and processed.failures:
            count("records_refused", len(processed.failures), {"input": batch.input})
            account.decide("refused", len(processed.failures))


def _seen(done: asyncio.Future[Outcome]) -> None:
    """Look at an error, so that asyncio does not complain where the one who waited for it has been cancelled."""
    if not done.cancelled():
        done.exception()

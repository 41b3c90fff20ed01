"""Delivery: from an input's batch to the return that acknowledges it.

Small batches that arrive while others are under way are processed and written together: nobody waits for a timer, and
the busier it gets, the larger the bulks. Inputs, and the batches of an input, have their turns (`pipeline.turns`): a
large batch is processed in pieces, and a good one waits neither for all of a flood nor for what its neighbours set
aside. What is in flight is bounded in bytes. A batch is released when all its records are stored by every output, or
parked or set aside on disk; cancelling one `deliver()` leaves it, and its neighbours, under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pipeline import letters
from pipeline.contract import Batch, Documents, Full, Outcome, Output, Refusal, Written
from pipeline.database import StorageError
from pipeline.dead import DeadLetters
from pipeline.ledger import Account, Ledger
from pipeline.letters import Letter
from pipeline.since import Since
from pipeline.tap import Taps
from pipeline.together import together
from pipeline.turns import Turns, pieces, weight

if TYPE_CHECKING:
    from pipeline.chain import Failure, Processed
    from pipeline.ledger import Fate
    from pipeline.metrics import Metrics
    from pipeline.parked import Entry, Parked
    from pipeline.workers import Processor

log = logging.getLogger("aiologs.delivery")

T = TypeVar("T")


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


@dataclass(slots=True)
class _Whole:
    """A batch, which is released when every piece of it has ended."""

    batch: Batch
    held: int
    """For how many bytes it counts."""
    done: asyncio.Future[Outcome]
    left: int = 0
    """Pieces that have not ended."""
    refused: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class _Piece:
    """Some records of a batch, or all of them."""

    whole: _Whole
    batch: Batch
    first: int
    """Where its first record stands in the whole batch."""
    refused: list[Refusal] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    """For the records that the chain could not process."""
    ended: bool = False
    weight: int = 0
    records: int = 0

    def __post_init__(self) -> None:
        self.weight, self.records = weight(self.batch), len(self.batch)


@dataclass(slots=True)
class _Run:
    """Pieces that are processed and written together."""

    pieces: list[_Piece]
    account: Account
    processed: list[Processed] = field(default_factory=list)


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
        self.processor, self._outputs = processor, outputs
        self._dead, self._parked, self._metrics, self._limits = dead, parked, metrics, limits
        self._ledger = Ledger(metrics, outputs)
        self._turns = Turns[_Piece]()
        self._held = Counter[str]()  # what is in flight of each input, as it counts
        self._freed = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        self._processing = self._busy = 0  # runs in the chain; runs in the chain or in the outputs
        self.in_flight_bytes = self.in_flight_batches = 0
        self.taps = Taps()
        self.waiting, self.writing = Since(), Since()
        """Inputs that wait for an acknowledgement; outputs that have a write under way."""
        self.troubles: dict[str, tuple[str, float]] = {}
        """What can't be written to our own databases: the purpose, the message, since when (seconds since 1970)."""

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`."""
        if not batch.block:
            return Outcome()
        with self.waiting.during(batch.input):
            whole = await self._admitted(batch, wait=wait)
            parts = [_Piece(whole, piece, first) for first, piece in pieces(batch, self._limits.run_bytes)]
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
        self._turns = Turns()  # else the end of one run would begin the next
        for task in self._runs:
            task.cancel()

    # --- room ---

    async def _admitted(self, batch: Batch, *, wait: bool) -> _Whole:
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
        return _Whole(batch, size, done)

    def _has_room(self, name: str, size: int) -> bool:
        own, room = self._held[name], self._limits.bytes
        if not own or self._held.total() + size <= room:
            return True
        return own + size <= room // len(+self._held)

    def _release(self, whole: _Whole) -> None:
        self._held[whole.batch.input] -= whole.held
        self.in_flight_bytes -= len(whole.batch.block)
        self.in_flight_batches -= 1
        self._freed.set()  # those who wait look again, in the order in which they came
        self._freed.clear()

    # --- runs ---

    def _start_runs(self) -> None:
        # More in the chain than are worked on would only take others' turns; until then small ones come together.
        while self._turns and self._busy < self._limits.runs and self._processing < max(1, self.processor.alive):
            self._processing += 1
            self._busy += 1
            taken = self._turns.take(self._limits.run_bytes)
            account = Account(self._ledger, sum(piece.records for piece in taken))
            task = asyncio.create_task(self._run(_Run(taken, account)), name="run")
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)

    async def _run(self, run: _Run) -> None:
        """Take the run's pieces all the way, then tell those who wait for them."""
        try:
            await self._store(run)
            # Only those who sent them wait until bad records are set aside.
            for piece in run.pieces:
                if not piece.letters:
                    self._end(piece)
            found = [letter for piece in run.pieces for letter in piece.letters]
            await self._set_aside(found)
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

    def _end(self, piece: _Piece, error: BaseException | None = None) -> None:
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

    async def _store(self, run: _Run) -> None:
        """Process the run's pieces, and write what was made of them."""
        try:
            await self._process(run)
            await self._write_all(run)
        finally:
            self._busy -= 1
            self._start_runs()

    async def _process(self, run: _Run) -> None:
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
        for each, processed in zip(joined, run.processed, strict=True):
            self._count(each.batch, processed, run.account)
            for failure in processed.failures:
                n, record = each.where(failure.record)
                failures.setdefault(n, []).append(failure._replace(record=record))
        for n, failed in failures.items():
            piece = run.pieces[n]
            if piece.batch.refuse:
                piece.refused = [Refusal(piece.first + failure.record, failure.reason) for failure in failed]
            else:
                piece.letters = letters.failed(piece.batch, failed)

    def _count(self, batch: Batch, processed: Processed, account: Account) -> None:
        count = self._metrics.count
        if blank := len(batch) - processed.records:
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

    async def _set_aside(self, found: list[Letter]) -> None:
        if not found:
            return
        await self._durably(partial(self._dead.put, found), "set aside records")
        for where, n in Counter(letter.stage or letter.output for letter in found).items():
            self._metrics.count("set_aside", n, {"stage": where})

    async def _durably(self, write: Callable[[], Awaitable[T]], purpose: str) -> T:
        """Write to a database of ours, waiting for as long as the disk refuses: nothing is acknowledged meanwhile."""
        pause = 0.5
        while True:
            try:
                written = await write()
            except StorageError as error:
                if purpose not in self.troubles:
                    log.error("can't %s: %s. Inputs wait until it can be done", purpose, error)  # noqa: TRY400
                self.troubles[purpose] = str(error), self.troubles.get(purpose, ("", time.time()))[1]
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                self.troubles.pop(purpose, None)
                return written

    # --- outputs ---

    async def _write_all(self, run: _Run) -> None:
        writes = [asyncio.create_task(self._write(name, self._outputs[name], run)) for name in run.account.begin()]
        try:
            await asyncio.gather(*writes)
        except BaseException:
            # One has failed, or the run is given up: the others must not go on behind its end.
            for write in writes:
                write.cancel()
            await asyncio.wait(writes)
            raise

    async def _write(self, name: str, output: Output, run: _Run) -> None:
        payload = merge([part for processed in run.processed for part in processed.documents])
        if not payload:
            return
        with self.writing.during(name):
            written = await self._write_or_park(name, output, payload)
        run.account.decide_at(name, "stored", written.stored)
        run.account.decide_at(name, "already", written.already)
        if written.refused:
            await self._set_aside(letters.refused(name, written.refused, [piece.batch for piece in run.pieces]))
            run.account.decide_at(name, "set_aside", len(written.refused))
        if written.late:
            await self._durably(partial(self._parked.put, name, written.late), "park documents")
            run.account.decide_at(name, "parked", sum(documents.count for documents, _ in written.late))

    async def write_parked(self, name: str, output: Output, entries: list[Entry]) -> set[str]:
        """Try parked documents of one output again; returns the indices of which something is still late."""
        by_index: dict[str, list[Entry]] = {}
        for entry in entries:
            by_index.setdefault(entry.documents.index, []).append(entry)
        late = set()
        for index, same in by_index.items():
            written = await output.write(merge([entry.documents for entry in same]))
            if written.late:
                late.add(index)
                continue
            await self._set_aside([letters.parked(name, refused) for refused in written.refused])
            await self._durably(partial(self._parked.done, [entry.key for entry in same]), "take out parked documents")
            self._ledger.unparked(name, _fates(written))
        return late

    async def _write_or_park(self, name: str, output: Output, payload: list[Documents]) -> Written:
        """Write; but park everything when only this output does not get it stored while another does."""
        write = asyncio.ensure_future(output.write(payload))
        try:
            while True:
                await asyncio.wait({write}, timeout=self._limits.park_after if len(self._outputs) > 1 else None)
                if write.done():
                    return write.result()
                if self._another_stores(name):
                    log.warning("output %s does not store while others do: its documents are parked on disk", name)
                    reason = f"output {name} has not stored it within {self._limits.park_after:g} s"
                    return Written(late=[(documents, reason) for documents in payload])
        finally:
            write.cancel()

    def _another_stores(self, name: str) -> bool:
        return any(not getattr(output, "blocked", None) for other, output in self._outputs.items() if other != name)


def _fates(written: Written) -> dict[Fate, int]:
    return {"stored": written.stored, "already": written.already, "set_aside": len(written.refused)}


def _seen(done: asyncio.Future[Outcome]) -> None:
    """Look at an error, so that asyncio does not complain where the one who waited for it has been cancelled."""
    if not done.cancelled():
        done.exception()


def merge(parts: list[Documents]) -> list[Documents]:
    """One section an index."""
    by_index: dict[str, list[Documents]] = {}
    for part in parts:
        by_index.setdefault(part.index, []).append(part)
    return [
        same[0]
        if len(same) == 1
        else Documents(index, b"".join(part.body for part in same), sum(part.count for part in same))
        for index, same in by_index.items()
    ]

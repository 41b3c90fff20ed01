"""Delivery: from an input's batch to the return that acknowledges it.

Small batches that arrive while others are under way are processed and written together: nobody waits for a timer, and
the busier it gets, the larger the bulks. What is in flight is bounded in bytes. A batch is released when all its
records are stored by every output, or parked or set aside on disk; cancelling one `deliver()` leaves it, and its
neighbours, under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pipeline.contract import Batch, Documents, Full, Outcome, Output, Refusal, Refused, Written
from pipeline.database import StorageError
from pipeline.dead import DeadLetters, Letter

if TYPE_CHECKING:
    from pipeline.chain import Processed
    from pipeline.metrics import Metrics
    from pipeline.parked import Entry, Parked
    from pipeline.workers import Processor

log = logging.getLogger("aiologs.delivery")

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Limits:
    """How much delivery takes on."""

    bytes: int = 8 << 20
    """Undecoded bytes in flight, of all inputs together."""
    run_bytes: int = 1 << 20
    """Small batches are put together up to this size."""
    runs: int = 12
    """Runs (chain, then outputs) under way at once."""
    park_after: float = 30.0
    """Seconds after which what one output has not stored, though another has, is parked."""


@dataclass(slots=True)
class _Waiting:
    batch: Batch
    done: asyncio.Future[Outcome]


@dataclass(slots=True)
class _Run:
    """Batches that are processed and written together."""

    waiting: list[_Waiting]
    processed: list[Processed] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


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
        self._queue: deque[_Waiting] = deque()
        self._room = asyncio.Condition()
        self._runs: set[asyncio.Task[None]] = set()
        self.in_flight_bytes = self.in_flight_batches = 0

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        """See `contract.Deliver`."""
        if not batch.block:
            return Outcome()
        await self._reserve(len(batch.block), wait=wait)
        waiting = _Waiting(batch, asyncio.get_running_loop().create_future())
        waiting.done.add_done_callback(_seen)
        self._queue.append(waiting)
        self._start_runs()
        return await asyncio.shield(waiting.done)

    async def drain(self) -> None:
        """Wait for everything that is under way."""
        while self._runs:
            await asyncio.wait(self._runs)

    def abandon(self) -> None:
        """Give up what is under way, unacknowledged: it will be read again."""
        for task in self._runs:
            task.cancel()

    # --- room ---

    async def _reserve(self, size: int, *, wait: bool) -> None:
        if not self._has_room(size) and not wait:
            raise Full(retry_after=1.0)
        async with self._room:
            await self._room.wait_for(lambda: self._has_room(size))
            self.in_flight_bytes += size
            self.in_flight_batches += 1

    def _has_room(self, size: int) -> bool:
        # One batch may be larger than the whole room: it goes alone.
        return not self.in_flight_bytes or self.in_flight_bytes + size <= self._limits.bytes

    async def _release(self, run: _Run) -> None:
        async with self._room:
            self.in_flight_bytes -= sum(len(each.batch.block) for each in run.waiting)
            self.in_flight_batches -= len(run.waiting)
            self._room.notify_all()

    # --- runs ---

    def _start_runs(self) -> None:
        while self._queue and len(self._runs) < self._limits.runs:
            task = asyncio.create_task(self._run(_Run(self._take())), name="run")
            self._runs.add(task)
            task.add_done_callback(self._ended)

    def _take(self) -> list[_Waiting]:
        taken = [self._queue.popleft()]
        size = len(taken[0].batch.block)
        while self._queue and size + len(self._queue[0].batch.block) <= self._limits.run_bytes:
            taken.append(self._queue.popleft())
            size += len(taken[-1].batch.block)
        return taken

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        self._start_runs()

    async def _run(self, run: _Run) -> None:
        """Take the run's batches all the way, then tell those who wait for them."""
        try:
            await self._process(run)
            await asyncio.gather(*(self._write(name, output, run) for name, output in self._outputs.items()))
        except BaseException as error:
            for each in run.waiting:
                if not each.done.done():
                    if isinstance(error, asyncio.CancelledError):
                        each.done.cancel()
                    else:
                        each.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for each, outcome in zip(run.waiting, run.outcomes, strict=True):
                if not each.done.done():
                    each.done.set_result(outcome)
        finally:
            await self._release(run)

    async def _process(self, run: _Run) -> None:
        started = time.perf_counter()
        run.processed = await self.processor.process([each.batch for each in run.waiting])
        run.outcomes = [Outcome() for _ in run.waiting]
        self._metrics.observe("chain_seconds", time.perf_counter() - started, {})
        letters: list[Letter] = []
        for each, processed, outcome in zip(run.waiting, run.processed, run.outcomes, strict=True):
            self._count(each.batch, processed)
            if not processed.failures:
                continue
            if each.batch.refuse:
                outcome.refused += [Refusal(failure.record, failure.reason) for failure in processed.failures]
            else:
                letters += _failed(each.batch, processed)
        await self._set_aside(letters)

    def _count(self, batch: Batch, processed: Processed) -> None:
        count = self._metrics.count
        count("records", processed.records, {"input": batch.input})
        count("record_bytes", len(batch.block), {"input": batch.input})
        for (what, label), n in processed.counts.items():
            match what:
                case "dropped":
                    count("events_dropped", n, {"stage": label})
                case "made":
                    count("events_made", n, {"stage": label})
                case _:
                    count("redactions", n, {"rule": label})
        if batch.refuse and processed.failures:
            count("records_refused", len(processed.failures), {"input": batch.input})

    async def _set_aside(self, letters: list[Letter]) -> None:
        if not letters:
            return
        await self._durably(partial(self._dead.put, letters), "set aside records")
        for letter in letters:
            self._metrics.count("set_aside", 1, {"stage": letter.stage or letter.output})

    async def _durably(self, write: Callable[[], Awaitable[T]], purpose: str) -> T:
        """Write to a database of ours, waiting for as long as the disk refuses: nothing is acknowledged meanwhile."""
        pause = 0.5
        while True:
            try:
                return await write()
            except StorageError as error:
                log.error("can't %s: %s. Inputs wait; the next try is in %g s", purpose, error, pause)  # noqa: TRY400
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    # --- outputs ---

    async def _write(self, name: str, output: Output, run: _Run) -> None:
        payload = merge([part for processed in run.processed for part in processed.documents])
        if not payload:
            return
        written = await self._write_or_park(name, output, payload)
        if written.refused:
            await self._set_aside(_refused(name, written.refused, run))
        if written.late:
            await self._durably(partial(self._parked.put, name, written.late), "park documents")
        self._count_fates(name, written)

    def _count_fates(self, name: str, written: Written) -> None:
        fates = {
            "stored": written.stored,
            "already": written.already,
            "set_aside": len(written.refused),
            "parked": sum(documents.count for documents, _ in written.late),
        }
        for fate, n in fates.items():
            if n:
                self._metrics.count("documents", n, {"output": name, "fate": fate})

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
            await self._set_aside([_parked_letter(name, refused) for refused in written.refused])
            await self._durably(partial(self._parked.done, [entry.key for entry in same]), "take out parked documents")
            self._count_fates(name, written)
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


def _parked_letter(output: str, refused: Refused) -> Letter:
    """A dead letter for a document that waited on disk, whose record is no longer at hand."""
    letter = Letter(id=refused.id, input="", record=b"", origin={}, time=time.time())
    return _for_document(letter, output, refused)


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


def _letter(batch: Batch, number: int, records: list[bytes], ids: list[str], places: Sequence[int]) -> Letter:
    """A dead letter with all that is known of a record's origin."""
    return Letter(
        id=ids[number],
        input=batch.input,
        record=records[number],
        origin=dict(batch.origin),
        time=time.time(),
        identity=batch.identity,
        place=places[number],
    )


def _failed(batch: Batch, processed: Processed) -> list[Letter]:
    """Dead letters for the records that the chain could not process."""
    records, ids, places = batch.records(), batch.document_ids(), batch.places()
    letters = []
    for failure in processed.failures:
        letter = _letter(batch, failure.record, records, ids, places)
        letter.stage, letter.reason, letter.traceback = failure.stage, failure.reason, failure.traceback
        letters.append(letter)
    return letters


def _refused(output: str, refused: list[Refused], run: _Run) -> list[Letter]:
    """Dead letters for the documents that an output will never take, each with its original record."""
    of_id: dict[str, Letter] = {}
    for waiting in run.waiting:
        records, ids, places = waiting.batch.records(), waiting.batch.document_ids(), waiting.batch.places()
        wanted = {each.id for each in refused} | {record_id(each.id) for each in refused}
        of_id |= {id_: _letter(waiting.batch, n, records, ids, places) for n, id_ in enumerate(ids) if id_ in wanted}
    return [_for_document(of_id.get(each.id) or of_id[record_id(each.id)], output, each) for each in refused]


def _for_document(letter: Letter, output: str, refused: Refused) -> Letter:
    return replace(
        letter,
        id=refused.id,
        output=output,
        index=refused.index,
        document=refused.document,
        reason=refused.reason,
    )


def record_id(document_id: str) -> str:
    """The id of the record of which an event with `.1`, `.2` … behind its id was made."""
    return document_id.rpartition(".")[0] or document_id

"""Runs a replay: the daemon's delivery, stores and outputs, with inputs that end and a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import OutputPart
from pipeline.contract import Context, Output
from pipeline.dead import DeadLetters
from pipeline.delivery import Delivery
from pipeline.metrics import Metrics
from pipeline.parked import Parked
from pipeline.replay.job import PERIOD, WHERE, Job
from pipeline.replay.pace import Pace
from pipeline.replay.plan import Planned, Row, built
from pipeline.state import InputPositions, State, positions_of

if TYPE_CHECKING:
    from pipeline.replay.reading import Reading
    from pipeline.workers import Processor

log = logging.getLogger("aiologs.replay")

_FATES = ("stored", "already", "set_aside", "parked")
_MEMORY = "replay"
"""The name of what a replay remembers of itself, among the positions of its inputs."""


@dataclass(slots=True)
class Counts:
    """What became of everything so far. For each output, its fates and the rest add up to the records and `made`."""

    records: int = 0
    bytes: int = 0
    """Of the records, undecoded."""
    made: int = 0
    """Events that stages made beyond one a record."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Events that a stage dropped, by its name."""
    left_out: int = 0
    """Events that --from, --to and --where left out."""
    failed: int = 0
    """Records that the chain could not process: set aside."""
    outputs: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each output its documents by fate: stored, already (there), set_aside, parked."""

    @property
    def set_aside(self) -> int:
        """Records and documents that were set aside."""
        return self.failed + sum(fates["set_aside"] for fates in self.outputs.values())

    @property
    def parked(self) -> int:
        """Documents that wait on disk."""
        return sum(fates["parked"] for fates in self.outputs.values())


@dataclass(slots=True)
class Summary:
    """How a replay ended."""

    counts: Counts
    seconds: float
    finished: bool
    """Everything was read; else it can be gone on with."""
    folder: str
    """Where its positions, dead letters and parked documents are; nothing is kept of a plan."""
    errors: int = 0
    """Errors that are in the log: a damaged file, for instance."""
    letters: int = 0
    """Dead letters in the folder, of this run and of those before."""
    before: float | None = None
    """When it was finished once already, in seconds since 1970."""
    plan: list[Row] | None = None
    """What would be written where; None: it was written."""

    @property
    def well(self) -> bool:
        """Whether everything was read and has its place."""
        return self.finished and not (self.errors or self.letters or self.counts.set_aside or self.counts.parked)


class Replay:
    """One run of a job; `fresh` forgets what an earlier one has read.

    `plan`: a folder that is not kept; nothing is written to outputs, only looked up there.
    """

    def __init__(
        self,
        job: Job,
        readings: Sequence[Reading],
        processor: Callable[[Metrics], Processor],
        *,
        fresh: bool = False,
        plan: Path | None = None,
    ) -> None:
        self.job, self._folder, self._fresh = job, plan or job.folder, fresh
        self.metrics = Metrics()
        self._state = State(self._folder)
        self._dead, self._parked = DeadLetters(self._folder), Parked(self._folder)
        self.planned: list[Planned] = []
        self.outputs = {part.name: self._output(part, plan=plan is not None) for part in job.outputs()}
        self._processor = processor(self.metrics)
        self._delivery = Delivery(self._processor, self.outputs, self._dead, self._parked, self.metrics)
        self._inputs = [each.input(job, self._source) for each in readings]
        self._enough = False
        self.stop = asyncio.Event()

    def _output(self, part: OutputPart, *, plan: bool) -> Output:
        output = built(part, self._context(part.name, self._state.positions(f"output {part.name}")))
        if plan:
            self.planned.append(Planned(part, output))
            return self.planned[-1]
        return output

    def _source(self, name: str, key: str) -> Context:
        live = positions_of(self.job.config.data_dir, name)
        return self._context(name, self._positions(f"input {key}"), live)

    def _context(self, name: str, positions: InputPositions, live: dict[str, dict[str, Any]] | None = None) -> Context:
        return Context(
            name=name,
            host=self.job.config.host,
            positions=positions,
            gauge=self.metrics.gauge,
            count=self.metrics.count,
            once=True,
            live=live,
            settled=self._state.settled,
        )

    def _positions(self, name: str) -> InputPositions:
        """What it remembers under a name; nothing where it begins afresh."""
        positions = self._state.positions(name)
        for key in positions.load() if self._fresh else ():
            positions.remove(key)
        return positions

    async def run(self) -> Summary:
        """Read everything, or until `stop` is set; raises what an input or output fails with."""
        started = time.monotonic()
        memory = self._positions(_MEMORY)
        before = memory.load().get("finished", {}).get("at")
        async with contextlib.AsyncExitStack() as stack:
            parts: list[Any] = [self._state, self._dead, self._parked, self._processor, *self.outputs.values()]
            for part in parts:
                await part.start()
                stack.push_async_callback(part.stop)
            pace = Pace(self._delivery.deliver, self.job.rate, self.job.limit, self._end)
            await self._read(pace)
            finished = self._enough or not self.stop.is_set()
            if finished:
                await self._unpark()
                memory.put("finished", {"at": time.time()})
            counts = self.counts()
            letters = self._dead.count()
        return Summary(
            counts,
            time.monotonic() - started,
            finished,
            "" if self.planned else str(self._folder),
            letters=letters,
            before=before,
            plan=[row for each in self.planned for row in each.rows.values()] if self.planned else None,
        )

    async def _read(self, pace: Pace) -> None:
        """Have all inputs read; where one fails the others stop, and what it failed with is raised."""
        tasks = [asyncio.create_task(each.run(pace.deliver, self.stop)) for each in self._inputs]
        _, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if rest:
            self.stop.set()
            await asyncio.wait(rest)
        await self._delivery.drain()
        for task in tasks:
            task.result()

    def _end(self) -> None:
        """The limit is reached."""
        self._enough = True
        self.stop.set()

    async def _unpark(self) -> None:
        """Try once more what an output did not take."""
        for name, output in self.outputs.items():
            await self._delivery.storing.unpark(name, output)

    def counts(self) -> Counts:
        """What became of everything so far."""
        total = {
            name: int(sum(self.metrics.values(name).values())) for name in ("records", "record_bytes", "events_made")
        }
        dropped = {stage: int(n) for (stage,), n in self.metrics.values("events_dropped").items()}
        left_out = sum(dropped.pop(name, 0) for name in (PERIOD, WHERE))
        documents = self.metrics.values("documents")
        outputs = {name: {fate: int(documents.get((name, fate), 0)) for fate in _FATES} for name in self.outputs}
        waiting, aside = self._parked.counts(), self.metrics.values("set_aside")
        for name, fates in outputs.items():
            fates["set_aside"] = int(aside.get((name,), 0))  # not what no output was given
            fates["parked"] = sum(n for (output, _), n in waiting.items() if output == name)
        failed = int(sum(n for (by,), n in aside.items() if by not in self.outputs))
        return Counts(
            records=total["records"],
            bytes=total["record_bytes"],
            made=total["events_made"],
            dropped=dropped,
            left_out=left_out,
            failed=failed,
            outputs=outputs,
        )

    def blocked(self) -> dict[str, str]:
        """Which outputs take nothing now, and why."""
        found: dict[str, Any] = {name: getattr(output, "blocked", None) for name, output in self.outputs.items()}
        return {name: reason for name, reason in found.items() if reason}

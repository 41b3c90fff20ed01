"""The chain: decode → stages → encode. Synchronous, free of I/O, bytes in and bytes out.

A batch is worked on in slices, so that its events stay in the processor's cache (decoding a megabyte at once costs
three times as much a record). A slice that raises is run again record by record from the
original bytes; exactly the bad records end as failures, and what the first run counted is thrown away. That takes
milliseconds, so a batch ends where many are bad: its `rest` is to be given again, when others have had their turn, and
slices of an input are small until its records are good again.

Where the stages say what they read and add, most records take a short way (see `short`); all others are decoded and
encoded whole, with the same result.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from time import perf_counter
from typing import cast

from pydantic import BaseModel

from pipeline import registry
from pipeline.bodies import Bodies, Line, number_ids
from pipeline.columns import ByValues
from pipeline.condition import Condition
from pipeline.contract import ID, Batch, Decoder, Documents, Event, Stage
from pipeline.failure import Failure, failure
from pipeline.part import SLICE, Part
from pipeline.short import Short, Taken

log = logging.getLogger("aiologs.chain")

MANY = 32
"""Bad records at which a batch ends: for a few, its documents are not sent in more requests."""
_WARY = 128
"""Records of a slice after one with a bad record: trying each of them alone takes a millisecond or two."""


@dataclass(slots=True, frozen=True)
class StageSpec:
    """A stage as the configuration names it; `options` is an instance of its class' `Options`."""

    name: str
    type: str
    options: BaseModel
    when: str | None = None


@dataclass(slots=True, frozen=True)
class ChainSpec:
    """All that a worker needs to build its chain: the stages, and each input's decoder."""

    stages: Sequence[StageSpec]
    decoders: dict[str, StageSpec]


@dataclass(slots=True)
class Processed:
    """What the chain made of a batch."""

    documents: list[Documents] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    rest: int | None = None
    """The first record that was left for later, since many before it failed; None: all were taken."""
    records: int = 0
    """Records that were taken, without blank lines."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What stages counted: (metric, label) → n, for the metrics `dropped`, `made` (label: the stage) and
    `redactions` (label: the rule)."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""


@dataclass(slots=True)
class Step:
    """A stage in its place in a chain."""

    spec: StageSpec
    stage: Stage
    condition: Condition | None
    holds: ByValues[bool] | None = None
    """The condition, for records by column."""
    seconds: float = 0.0
    """How long it took since this was last set back."""

    def __post_init__(self) -> None:
        if self.condition is not None:
            self.holds = ByValues(self.condition, self.condition.fields, int)

    def __call__(self, events: list[Event]) -> list[Event]:
        """Run the stage on the events that its condition concerns."""
        chosen = events if self.condition is None else [event for event in events if self.condition(event)]
        if len(chosen) == len(events):
            return self.stage(events)
        if not chosen:
            return events
        concerned = set(map(id, chosen))
        after = self.stage(chosen)
        if concerned == set(map(id, after)):
            return events
        return [event for event in events if id(event) not in concerned] + after

    @property
    def selective(self) -> bool:
        """Whether the stage tells from the undecoded bytes which records it is to see."""
        return hasattr(self.stage, "touches")


class Chain:
    """One configured chain. Raises what the stages' constructors raise (`contract.Unusable` for a missing file)."""

    def __init__(self, spec: ChainSpec, *, splice: bool = True) -> None:
        self.spec = spec
        self.steps = [
            Step(each, registry.find("stage", each.type)(each.options), Condition(each.when) if each.when else None)
            for each in spec.stages
        ]
        self._decoders = {
            name: cast("Decoder", registry.find("stage", each.type)(each.options))
            for name, each in spec.decoders.items()
        }
        self._short = Short.through(self.steps) if splice else None
        self._at = "decode"
        self._slices: dict[str, int] = {}
        """How many records of an input are worked on together, while some of them are bad."""

    @property
    def warnings(self) -> list[str]:
        """What the stages have to say about their files at start."""
        return [text for step in self.steps for text in getattr(step.stage, "warnings", ())]

    def decode(self, name: str, records: list[bytes]) -> list[Event]:
        """Decode records as the input of that name does; raises on a bad one."""
        return self._decoders[name].decode(records)

    def refresh(self) -> dict[str, float]:
        """Let stages notice changed files, and return their gauges; to be called now and then."""
        gauges: dict[str, float] = {}
        for step in self.steps:
            for name in ("refresh", "gauges"):
                if call := getattr(step.stage, name, None):
                    gauges.update(call() or {})
        return gauges

    def run(self, batch: Batch) -> Processed:
        """Process a batch, or its slices until many records are bad. Never raises for a record: it fails alone."""
        result, bodies = Processed(), Bodies(batch)
        short = self._short if self._short and self._may_splice(batch) else None
        size = self._slices.get(batch.input, SLICE)
        for part in Part.slices(batch, size):
            end = part.numbers[-1] + 1
            part.drop_blank()
            result.records += len(part)
            taken = self._take_short(short, part, result, bodies) if short else None
            if taken is None:
                for _, index, line in self._take_full(part, result, bodies):
                    bodies.add(index, line)
            elif not taken.rest:
                bodies.add_all(taken.indices, taken.lines)
            else:
                numbers = [part.numbers[row] for row in taken.rows]
                both = self._take_full(part.some(taken.rest), result, bodies)
                both += zip(numbers, taken.indices, taken.lines, strict=True)
                for _, index, line in sorted(both, key=itemgetter(0)):
                    bodies.add(index, line)
            if len(result.failures) >= MANY and end < len(batch):
                result.rest = end
                break
        if result.failures:
            self._slices[batch.input] = _WARY
        elif len(batch) >= size:
            self._slices[batch.input] = min(2 * size, SLICE)
        result.documents = bodies.documents()
        for step in self.steps:
            result.seconds[step.spec.name] = result.seconds.get(step.spec.name, 0.0) + step.seconds
            step.seconds = 0.0
        return result

    def _may_splice(self, batch: Batch) -> bool:
        """Whether the records are JSON that may go into documents as it is: valid UTF-8, to be decoded as JSON."""
        if self.spec.decoders[batch.input].type != "json":
            return False
        if batch.block.isascii():
            return True
        try:
            batch.block.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _take_short(self, short: Short, part: Part, result: Processed, bodies: Bodies) -> Taken | None:
        try:
            taken = short.take(part, bodies)
        except Exception:  # noqa: BLE001 - a stage's error API is to raise, whatever it likes
            self._forget_counts()
            return None
        result.counts += taken.counts
        self._take_counts(result.counts)
        return taken

    def _take_full(self, part: Part, result: Processed, bodies: Bodies) -> list[_Numbered]:
        """The documents of records that are decoded whole."""
        decoder = self._decoders[part.batch.input]
        events = self._decode(part, decoder, result)
        try:
            return self._work(events, part, result, bodies)
        except Exception:  # noqa: BLE001 - as above
            self._forget_counts()
            return [line for n in range(len(part)) for line in self._alone(part.some([n]), result, bodies)]

    def _decode(self, part: Part, decoder: Decoder, result: Processed) -> list[Event]:
        """Decode all records; those that can't be are taken out of the part, as failures."""
        records = part.records
        try:
            events = decoder.decode(records) if len(part) > 1 else []  # a single one is only tried below, once
            if len(events) == len(part):
                part.label(events)
                return events
        except Exception:  # noqa: BLE001 - as above; the loop below finds which record it was
            log.debug("a record of %s can't be decoded", part.batch.input)
        all_events, good = [], []
        for n, record in enumerate(records):
            try:
                events = decoder.decode([record])
            except Exception as error:  # noqa: BLE001 - as above
                if record.isspace():  # a blank line with white space in it
                    result.records -= 1
                else:
                    result.failures.append(failure(part.numbers[n], "decode", error))
                continue
            part.label_as(events, n)
            all_events += events
            good.append(n)
        part.keep(good)
        return all_events

    def _work(self, events: list[Event], part: Part, result: Processed, bodies: Bodies) -> list[_Numbered]:
        """Run stages and encoder over events; adds to the result only when all went well."""
        counts: Counter[tuple[str, str]] = Counter()
        if more := len(events) - len(part):
            counts["made" if more > 0 else "dropped", "decode"] += abs(more)
        for step in self.steps:
            self._at = step.spec.name
            before, started = len(events), perf_counter()
            events = step(events)
            step.seconds += perf_counter() - started
            if len(events) < before:
                counts["dropped", self._at] += before - len(events)
            elif len(events) > before:
                counts["made", self._at] += len(events) - before
        self._at = "encode"
        owners = {part.id(n): number for n, number in enumerate(part.numbers)}
        numbers = [owners.get(event[ID], -1) for event in events]
        if part.batch.ids is None or len(events) > len(part):
            number_ids(events)
        lines = [(number, *bodies.encode(event)) for number, event in zip(numbers, events, strict=True)]
        result.counts += counts
        self._take_counts(result.counts)
        return lines

    def _alone(self, part: Part, result: Processed, bodies: Bodies) -> list[_Numbered]:
        """The same for a single record, which may fail."""
        self._at = "decode"
        try:
            events = self._decoders[part.batch.input].decode(part.records)
            part.label_as(events, 0)
            return self._work(events, part, result, bodies)
        except Exception as error:  # noqa: BLE001 - as above
            self._forget_counts()
            result.failures.append(failure(part.numbers[0], self._at, error))
            return []

    def _take_counts(self, counts: Counter[tuple[str, str]]) -> None:
        for step in self.steps:
            if taken := getattr(step.stage, "counts", None):
                counts.update({("redactions", rule): n for rule, n in taken.items()})
                taken.clear()

    def _forget_counts(self) -> None:
        for step in self.steps:
            if counts := getattr(step.stage, "counts", None):
                counts.clear()


_Numbered = tuple[int, str, Line]
"""The number of a record in its batch, and the index and line of a document of it."""

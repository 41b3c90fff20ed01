"""One record through the chain, stage by stage: what each changed, how long it took, and where the record ends.

What a `redact` stage would take out is not shown at the stages before it either.
"""

from __future__ import annotations

import traceback
from array import array
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import orjson

from pipeline.chain import Step
from pipeline.check import build
from pipeline.condition import Condition
from pipeline.config import Config
from pipeline.contract import ID, Batch, Event

HIDDEN = "(hidden)"
_RUNS = 3
_MISSING = object()


@dataclass(slots=True)
class Change:
    """A field that a stage added (`+`), removed (`-`) or changed (`~`)."""

    sign: str
    path: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        """One line for people."""
        values = {"+": [self.after], "-": [self.before], "~": [self.before, self.after]}[self.sign]
        return f"{self.sign} {self.path}: {' → '.join(map(_shown, values))}"


@dataclass(slots=True)
class Stop:
    """What one stage did with the record's events."""

    stage: str
    type: str
    microseconds: float = 0.0
    """The best of three runs."""
    changes: list[list[Change]] = field(default_factory=list)
    """For each event that came out."""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Failed:
    """Why the record is set aside, and which line of code said so."""

    stage: str
    reason: str
    where: str


@dataclass(slots=True)
class Stored:
    """A document as the outputs get it."""

    index: str
    id: str
    document: Any


@dataclass(slots=True)
class Explanation:
    """A record's way from its bytes to documents."""

    input: str
    record_bytes: int
    stops: list[Stop] = field(default_factory=list)
    documents: list[Stored] = field(default_factory=list)
    failed: Failed | None = None

    def __str__(self) -> str:
        """The whole way, for people; without what would control a terminal."""
        text = "\n".join(self._lines())
        return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)

    def _lines(self) -> Iterator[str]:
        yield f"{self.record_bytes} bytes, as the input {self.input!r} would read them"
        for stop in self.stops:
            label = stop.stage if stop.stage == stop.type else f"{stop.stage} ({stop.type})"
            yield f"\n{label:<24}{stop.microseconds:>9.1f} µs{''.join(f'   {note}' for note in stop.notes)}"
            for n, changes in enumerate(stop.changes, 1):
                if len(stop.changes) > 1:
                    yield f"    event {n}"
                yield from (f"    {change}" for change in changes)
        yield ""
        if self.failed:
            yield f"set aside by {self.failed.stage}: {self.failed.reason}"
            yield f"    {self.failed.where}"
        elif not self.documents:
            yield "dropped: nothing is stored"
        for each in self.documents:
            yield f"stored in {each.index} as {each.id}"
        if self.documents:
            yield "    (in a real run the id is made from the record's place in its source)"


def explain(config: Config, record: bytes, name: str | None = None) -> Explanation:
    """Follow one record as the input `name` (else the first one) would have read it. Raises `contract.Unusable`."""
    return Walk(config).follow(record, name or next(iter(config.inputs)))


class Walk:
    """Explains records with one chain."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.chain = build(config, splice=False)

    def follow(self, record: bytes, name: str) -> Explanation:
        """Explain a record of the input `name`."""
        batch = Batch(name, record, "explain", ends=array("Q", [len(record)]))
        result, at = Explanation(name, len(record)), "decode"
        try:
            events = self._decode(batch, result)
            for n, step in enumerate(self.chain.steps):
                at = step.spec.name
                events = self._step(n, step, events, result)
        except Exception as error:  # noqa: BLE001 - a stage's error API is to raise, whatever it likes
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
            result.failed = Failed(at, f"{type(error).__name__}: {error}", where)
            return result
        self._store(batch, result)
        return result

    def _decode(self, batch: Batch, result: Explanation) -> list[Event]:
        decoder = self.config.inputs[batch.input].decode
        events, took = _timed(lambda: self.chain.decode(batch.input, [batch.block]))
        for event in events:
            event[ID] = batch.document_ids()[0]
        changes = [_diff({}, event, {}, self._safe(event, 0)) for event in events]
        result.stops.append(Stop(f"decode: {decoder.type}", f"decode: {decoder.type}", took, changes))
        return events

    def _step(self, n: int, step: Step, events: list[Event], result: Explanation) -> list[Event]:
        """Run one stage and note what it did; raises what it raises."""
        stop = Stop(step.spec.name, step.spec.type, notes=_notes(step, events))
        copies = [deepcopy(events) for _ in range(_RUNS - 1)]
        work = deepcopy(events)
        after, stop.microseconds = _timed(lambda: step(copies.pop() if copies else work))
        if counts := getattr(step.stage, "counts", None):
            counts.clear()
        hides = step.spec.type == "redact"
        for new, old in _paired(after, work, events):
            changes = _diff(old, new, self._safe(old, n), self._safe(new, n + 1))
            for change in changes if hides else ():
                change.before = None if change.sign == "+" else HIDDEN
            stop.changes.append(changes)
        if len(after) != len(events):
            stop.notes.append(f"{len(events)} → {len(after)} events" if after else "dropped")
        result.stops.append(stop)
        return after

    def _safe(self, event: Event, n: int) -> Event:
        """The event without what the stages from the nth on would redact, whatever their conditions say; nothing
        of it where they can't.
        """
        safe = deepcopy(event)
        try:
            for step in self.chain.steps[n:]:
                if step.spec.type == "redact":
                    step.stage([safe])
        except Exception:  # noqa: BLE001 - as above; the run of the stage itself will tell
            return {}
        return safe

    def _store(self, batch: Batch, result: Explanation) -> None:
        """What really becomes of the record, from a real run."""
        processed = self.chain.run(batch)
        for failure in processed.failures:
            result.failed = Failed(failure.stage, failure.reason, failure.traceback.strip().splitlines()[-1])
        for documents in processed.documents:
            for id_, body in documents.pairs():
                result.documents.append(Stored(documents.index, id_, orjson.loads(body)))


def _timed(call: Callable[[], list[Event]]) -> tuple[list[Event], float]:
    """What the last of some runs returned, and what the fastest took, in microseconds."""
    times = []
    for _ in range(_RUNS):
        start = perf_counter_ns()
        events = call()
        times.append(perf_counter_ns() - start)
    return events, min(times) / 1000


def _notes(step: Step, events: list[Event]) -> list[str]:
    """Which conditions decide about the first event."""
    notes = []
    if step.spec.when and not any(step.condition(event) for event in events if step.condition):
        notes.append(f"skipped, for this does not hold: {step.spec.when}")
    rules = getattr(step.spec.options, "rules", None)
    if isinstance(rules, list) and events and all(hasattr(rule, "when") for rule in rules):
        held = (n for n, rule in enumerate(rules) if Condition(rule.when)(events[0]))
        n = next(held, None)
        notes.append("no rule holds" if n is None else f"rule {n + 1} of {len(rules)}: {rules[n].when}")
    return notes


def _paired(after: list[Event], work: list[Event], before: list[Event]) -> Iterator[tuple[Event, Event]]:
    """Each event that came out, with what it was before; a made one with the first of the same document id."""
    same = {id(now): was for now, was in zip(work, before, strict=True)}
    by_id = {was[ID]: was for was in reversed(before)}
    for event in after:
        yield event, same.get(id(event)) or by_id.get(event.get(ID), {})


def _diff(old: Event, new: Event, old_shown: Event, new_shown: Event) -> list[Change]:
    """The fields that differ, with the values of the events to show."""
    was, now = dict(_flat(old)), dict(_flat(new))
    shown_was, shown_now = dict(_flat(old_shown)), dict(_flat(new_shown))
    changes = []
    for path in [*was, *(path for path in now if path not in was)]:
        before, after = was.get(path, _MISSING), now.get(path, _MISSING)
        if path == ID or before == after:
            continue
        sign = "+" if before is _MISSING else "-" if after is _MISSING else "~"
        changes.append(Change(sign, path, shown_was.get(path, HIDDEN), shown_now.get(path, HIDDEN)))
    return changes


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, dict) and each:
            yield from _flat(each, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", each


def _shown(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= 160 else f"{text[:159]}…"

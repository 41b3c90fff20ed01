"""The chain: decode → stages → encode. Synchronous, free of I/O, bytes in and bytes out.

A batch is worked on in slices, so that its events stay in the processor's cache (decoding a megabyte at once costs
three times as much a record). A slice that raises is run again record by record from the
original bytes; exactly the bad records end as failures, and what the first run counted is thrown away.

Most stages read a few fields and add others. When every stage of the chain says which (`reads`, `adds`, see
`contract.Stage`), only those fields are decoded, and what was added is spliced into the record's own bytes: a third
of the cost of decoding and encoding all of it. Records that a stage `touches`, that already have a field to be added,
or that are unusual in any way take the full way, with the same result.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypedDict, cast

import msgspec
import orjson
from pydantic import BaseModel

from pipeline import registry
from pipeline.condition import Condition
from pipeline.contract import ID, INDEX, METADATA, RAW, RESERVED, Batch, Decoder, Documents, Event, Stage

SLICE = 128
"""Records worked on together: 64 to 128 cost least, 512 a sixth more (measured with a second-level cache of 1 MiB)."""

log = logging.getLogger("aiologs.chain")


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


class Failure(NamedTuple):
    """A record that the chain could not process: its place in the batch, the stage, why."""

    record: int
    stage: str
    reason: str
    traceback: str


@dataclass(slots=True)
class Processed:
    """What the chain made of a batch."""

    documents: list[Documents] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    records: int = 0
    """Records of the batch, without blank lines."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What stages counted: (metric, label) → n, for the metrics `dropped`, `made` (label: the stage) and
    `redactions` (label: the rule)."""


@dataclass(slots=True)
class Step:
    """A stage in its place in a chain."""

    spec: StageSpec
    stage: Stage
    condition: Condition | None

    def __call__(self, events: list[Event]) -> list[Event]:
        """Run the stage on the events that its condition and its own nature concern."""
        condition, chosen = self.condition, events
        if self.selective:
            chosen = [event for event in chosen if RAW not in event]
        if condition is not None:
            chosen = [event for event in chosen if condition(event)]
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
        self._narrow = _Narrow.of(self.steps) if splice else None
        self._at = "decode"

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
        """Process a batch. Never raises for a record: it fails alone."""
        result, bodies = Processed(), _Bodies(batch)
        records, ids = batch.records(), batch.document_ids()
        narrow = self._narrow if self._narrow and self._may_splice(batch) else None
        for start in range(0, len(records), SLICE):
            part = _Part(batch, start, records[start : start + SLICE], ids[start : start + SLICE])
            self._slice(part, narrow, result, bodies)
        result.documents = bodies.documents()
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

    def _slice(self, part: _Part, narrow: _Narrow | None, result: Processed, bodies: _Bodies) -> None:
        part.drop_blank()
        result.records += len(part.records)
        decoder = self._decoders[part.batch.input]
        decode = partial(self._decode_narrow, narrow) if narrow else self._decode
        events = decode(part, decoder, result)
        try:
            self._work(events, part, result, bodies)
        except Exception:  # noqa: BLE001 - a stage's error API is to raise, whatever it likes
            self._forget_counts()
            self._one_by_one(part, decoder, result, bodies)

    def _decode(self, part: _Part, decoder: Decoder, result: Processed) -> list[Event]:
        """Decode all records whole; those that can't be are taken out of the part, as failures."""
        try:
            events = decoder.decode(part.records)
            if len(events) == len(part.records):
                part.label(events)
                return events
        except Exception:  # noqa: BLE001 - as above; the loop below finds which record it was
            log.debug("a record of %s can't be decoded", part.batch.input)
        all_events, good = [], []
        for n, record in enumerate(part.records):
            try:
                events = decoder.decode([record])
            except Exception as error:  # noqa: BLE001 - as above
                if record.isspace():  # a blank line with white space in it
                    result.records -= 1
                else:
                    result.failures.append(_failure(part.numbers[n], "decode", error))
                continue
            part.label_as(events, part.ids[n])
            all_events += events
            good.append(n)
        part.keep(good)
        return all_events

    def _decode_narrow(self, narrow: _Narrow, part: _Part, decoder: Decoder, result: Processed) -> list[Event]:
        """Decode what the stages read, and the records whole that need it."""
        events, full = narrow.decode(part)
        if full:
            rest = part.some(sorted(full))
            decoded = self._decode(rest, decoder, result)  # takes what it can't decode out of `rest`
            whole = dict(zip(rest.numbers, decoded, strict=True))
            good = [n for n in range(len(events)) if n not in full or part.numbers[n] in whole]
            events = [whole.get(part.numbers[n], events[n]) for n in good]
            part.keep(good)
        return events

    def _work(self, events: list[Event], part: _Part, result: Processed, bodies: _Bodies) -> None:
        """Run stages and encoder over events; adds to result and bodies only when all went well."""
        counts: Counter[tuple[str, str]] = Counter()
        if more := len(events) - len(part.records):
            counts["made" if more > 0 else "dropped", "decode"] += abs(more)
        for step in self.steps:
            self._at = step.spec.name
            before = len(events)
            events = step(events)
            if len(events) < before:
                counts["dropped", self._at] += before - len(events)
            elif len(events) > before:
                counts["made", self._at] += len(events) - before
        self._at = "encode"
        if part.batch.ids is None or len(events) > len(part.records):
            _number(events)
        bodies.add(bodies.encode(events, self._narrow.adds if self._narrow else ()))
        for step in self.steps:
            if taken := getattr(step.stage, "counts", None):
                counts.update({("redactions", rule): n for rule, n in taken.items()})
                taken.clear()
        result.counts += counts

    def _one_by_one(self, part: _Part, decoder: Decoder, result: Processed, bodies: _Bodies) -> None:
        for n in range(len(part.records)):
            alone = part.some([n])
            self._at = "decode"
            try:
                events = decoder.decode(alone.records)
                alone.label_as(events, alone.ids[0])
                self._work(events, alone, result, bodies)
            except Exception as error:  # noqa: BLE001 - as above
                self._forget_counts()
                result.failures.append(_failure(alone.numbers[0], self._at, error))

    def _forget_counts(self) -> None:
        for step in self.steps:
            if counts := getattr(step.stage, "counts", None):
                counts.clear()


class _Part:
    """A slice of a batch: records, their ids, and their places in the batch."""

    def __init__(self, batch: Batch, start: int, records: list[bytes], ids: list[str]) -> None:
        self.batch, self.records, self.ids = batch, records, ids
        self.numbers: Sequence[int] = range(start, start + len(records))
        # A record's own field wins, and so does an object in which the field would stand.
        self.origin = [(key, key.partition(".")[0], value) for key, value in batch.origin.items()]

    def keep(self, good: list[int]) -> None:
        if len(good) < len(self.records):
            self.records = [self.records[n] for n in good]
            self.ids = [self.ids[n] for n in good]
            self.numbers = [self.numbers[n] for n in good]

    def drop_blank(self) -> None:
        # A line may be blank; a record that came with its length is one, even of length 0.
        if b"" in self.records and self.batch.ends is None:
            self.keep([n for n, record in enumerate(self.records) if record])

    def some(self, chosen: list[int]) -> _Part:
        part = _Part(self.batch, 0, self.records, self.ids)
        part.numbers = self.numbers
        part.keep(chosen)
        return part

    def label(self, events: list[Event]) -> None:
        """Give each event its record's id and the batch's origin."""
        for event, id_ in zip(events, self.ids, strict=True):
            event[ID] = id_
            for key, first, value in self.origin:
                if first not in event and key not in event:
                    event[key] = value

    def label_as(self, events: list[Event], id_: str) -> None:
        """Give all events the id of the one record that they come from, and the origin."""
        ids, self.ids = self.ids, [id_] * len(events)
        self.label(events)
        self.ids = ids


Hit = tuple[int, Any]
"""An offset at which a stage may have to change something, and the stage's own mark."""


class _Narrow:
    """Decodes only what the stages read or add, into ordinary dicts that carry their record's bytes as `@raw`."""

    def __init__(self, reads: set[str], adds: list[str], touching: list[Any]) -> None:
        self.reads, self.adds, self._touching = reads, adds, touching
        self._editor = touching[0] if len(touching) == 1 and hasattr(touching[0], "edit") else None
        self._decoders: dict[tuple[str, ...], tuple[Callable[[bytes], Event], frozenset[str]]] = {}

    @classmethod
    def of(cls, steps: list[Step]) -> _Narrow | None:
        """The narrow way through these stages, None where one of them does not say what it does."""
        reads, adds, touching = set[str](), list[str](), []
        for step in steps:
            stage: Any = step.stage
            if step.selective:
                touching.append(stage)
            elif hasattr(stage, "reads") and hasattr(stage, "adds"):
                reads |= stage.reads
                adds += sorted(stage.adds - {*adds})
            else:
                return None
            if step.condition is not None:
                reads |= step.condition.fields
        return cls(reads - {*RESERVED}, adds, touching)

    def decode(self, part: _Part) -> tuple[list[Event], set[int]]:
        """The part's events, and the numbers of the records that must be decoded whole instead."""
        origin, records = part.batch.origin, part.records
        loads, clash = self._decoder(tuple(origin))
        try:
            events = [loads(record) for record in records]
        except _UNREADABLE:
            events = [_or_nothing(loads, record) for record in records]
        full = {
            n
            for n, (event, record) in enumerate(zip(events, records, strict=True))
            # The additions go in front of the closing brace; an empty object, or white space there, goes the full way.
            if record[-1] != 0x7D or record[-2] in b"{ \t\r\n" or not clash.isdisjoint(event)
        }
        records = self._edited(records, events, full, loads)
        seen = {key: origin[key] for key in self.reads & origin.keys()}
        for event, record, id_ in zip(events, records, part.ids, strict=True):
            event[RAW] = record
            event[ID] = id_
            if seen:
                event.update(seen)
        return events, full

    def _edited(
        self, records: list[bytes], events: list[Event], full: set[int], loads: Callable[[bytes], Event]
    ) -> list[bytes]:
        """The records as the stage that `touches` them would leave them; those it has to see are added to `full`."""
        touched = self._touched(records)
        if self._editor is None or not touched:
            full.update(touched)
            return records
        records, counts = [*records], self._editor.counts
        for n, hits in touched.items():
            edited = None if n in full else self._editor.edit(records[n], hits)
            # Where stages read what was changed, it matters whether they stand before or behind this one.
            if edited is None or loads(edited[0]) != events[n]:
                full.add(n)
                continue
            records[n] = edited[0]
            for rule, times in edited[1].items():
                counts[rule] = counts.get(rule, 0) + times
        return records

    def _touched(self, records: list[bytes]) -> dict[int, list[Hit]]:
        """The numbers of the records that a stage may have to change, with the hits in each."""
        if not self._touching:
            return {}
        block = b"\n".join(records)
        hits: list[Hit] = [hit for stage in self._touching for hit in stage.touches(block)]
        if len(self._touching) > 1:
            hits.sort(key=itemgetter(0))
        touched: dict[int, list[Hit]] = {}
        number, start, end = -1, 0, -1
        for offset, mark in hits:
            while offset > end:
                number += 1
                start, end = end + 1, end + 1 + len(records[number])
            touched.setdefault(number, []).append((offset - start, mark))
        return touched

    def _decoder(self, origin: tuple[str, ...]) -> tuple[Callable[[bytes], Event], frozenset[str]]:
        """A decoder for the fields that matter, and those whose presence in a record asks for the full way."""
        if origin not in self._decoders:
            clash = frozenset(self.adds) | {*RESERVED, METADATA} | {*origin} | {key.partition(".")[0] for key in origin}
            fields = dict.fromkeys(self.reads | clash, Any)
            shape = TypedDict("shape", fields, total=False)  # type: ignore[misc]
            self._decoders[origin] = msgspec.json.Decoder(shape).decode, clash  # type: ignore[assignment]
        return self._decoders[origin]


_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def _or_nothing(loads: Callable[[bytes], Event], record: bytes) -> Event:
    """The record's event; one that can't be read gets a reserved key, which sends it the full way."""
    try:
        return loads(record)
    except _UNREADABLE:
        return {INDEX: None}


_NOT_STORED = (INDEX, ID, METADATA)


class _Bodies:
    """The bulk bodies of a batch, by index."""

    def __init__(self, batch: Batch) -> None:
        self._escape = batch.ids is not None
        self._origin = b"," + orjson.dumps(dict(batch.origin))[1:-1] if batch.origin else b""
        self._lines: dict[str, list[bytes]] = {}
        self._heads: dict[str, bytes] = {}

    def encode(self, events: list[Event], adds: Sequence[str]) -> dict[str, list[bytes]]:
        """Action lines and documents by index; raises on an event that is no JSON or has no index.

        Of events that carry their record, the fields `adds` and the origin are spliced into it.
        """
        lines: dict[str, list[bytes]] = {}
        dumps, heads, origin = orjson.dumps, self._heads, self._origin
        for event in events:
            index, id_ = event.get(INDEX), event[ID]
            if index is None:
                raise ValueError("no stage has chosen an index: add a route stage")
            if index not in lines:
                lines[index] = []
                heads[index] = b'{"create":{"_index":' + dumps(index) + b',"_id":"'
            name = dumps(id_)[1:-1] if self._escape else id_.encode()
            if (raw := event.get(RAW)) is None:
                for key in _NOT_STORED:
                    event.pop(key, None)
                lines[index].append(b'%b%b"}}\n%b\n' % (heads[index], name, dumps(event)))
            elif added := {key: event[key] for key in adds if key in event}:
                pieces = heads[index], name, raw[:-1], origin, dumps(added)[1:]
                lines[index].append(b'%b%b"}}\n%b%b,%b\n' % pieces)
            else:
                lines[index].append(b'%b%b"}}\n%b%b}\n' % (heads[index], name, raw[:-1], origin))
        return lines

    def add(self, encoded: dict[str, list[bytes]]) -> None:
        for index, lines in encoded.items():
            self._lines.setdefault(index, []).extend(lines)

    def documents(self) -> list[Documents]:
        """One section an index."""
        return [Documents(index, b"".join(lines), len(lines)) for index, lines in self._lines.items()]


def _number(events: list[Event]) -> None:
    """Give events that were made of one record ids of their own: `.1`, `.2` … behind it, in order."""
    ids = [event[ID] for event in events]
    if len(set(ids)) == len(ids):
        return
    several = {id_ for id_, n in Counter(ids).items() if n > 1}
    seen: Counter[str] = Counter()
    for event in events:
        if (id_ := event[ID]) in several:
            seen[id_] += 1
            event[ID] = f"{id_}.{seen[id_]}"


def _failure(number: int, stage: str, error: Exception) -> Failure:
    return Failure(number, stage, f"{type(error).__name__}: {error}", _trace(error))


def _trace(error: BaseException) -> str:
    """Where an error came from, without the source lines: looking those up costs a millisecond a record."""
    frames = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    cause = f"{_trace(error.__cause__)}\nThat led to:\n" if error.__cause__ else ""
    return "\n".join([f"{cause}Traceback (most recent call last):", *frames, f"{type(error).__name__}: {error}"])

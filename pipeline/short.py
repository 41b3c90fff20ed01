"""The short way through the chain: records keep their own bytes, and what stages add is spliced in.

Most stages read a few fields and add others. When every stage of a chain says which (`reads`, `adds`, see
`contract.Stage`), only those fields are decoded, into columns, and the additions go in front of a record's closing
brace: half the cost of decoding and encoding all of it. Records that already have a field to be added, that
are unusual in any other way, or whose secrets can't be hidden in their bytes are left for the full way, which gives
the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, chain, repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from pipeline.bodies import Bodies, Line
from pipeline.columns import MISSING, Columns
from pipeline.contract import INDEX, METADATA, RESERVED, Edit

if TYPE_CHECKING:
    from pipeline.chain import Step
    from pipeline.part import Part

_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

# How a line ends that can take additions: not an empty object, which may have white space in it.
_ENDS = frozenset(b"%c}\n" % byte for byte in range(256) if byte not in b"{ \t\r\n")


@dataclass(slots=True)
class Taken:
    """What became of a slice's records."""

    rows: Sequence[int]
    """The numbers of those that gave a document each."""
    indices: Sequence[str]
    lines: Iterable[Line]
    rest: Sequence[int]
    """The numbers of those that are left for the full way."""
    counts: Counter[tuple[str, str]]


class Short:
    """The short way through some stages."""

    def __init__(self, steps: list[Step], reads: set[str], adds: list[str], touching: list[Step]) -> None:
        self._steps, self._reads, self._adds = steps, reads, adds
        self._touching_steps = touching
        self._touching: list[Any] = [step.stage for step in touching]
        lone = touching[0] if len(touching) == 1 else None
        self._editor: Any = lone.stage if lone and lone.condition is None and hasattr(lone.stage, "edits") else None
        self._spared = frozenset(field.encode() for field in reads)
        self._keys = {field: b"," + orjson.dumps(field) + b":" for field in adds}
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    @classmethod
    def through(cls, steps: list[Step]) -> Short | None:
        """The short way through these stages, None where one of them does not say what it does."""
        reads, adds, touching = set[str](), list[str](), []
        for step in steps:
            stage: Any = step.stage
            if step.selective:
                touching.append(step)
            elif hasattr(stage, "reads") and hasattr(stage, "adds"):
                reads |= stage.reads
                adds += sorted(stage.adds - {*adds})
            else:
                return None
            if step.condition is not None:
                reads |= step.condition.fields
        return cls(steps, reads - {*RESERVED}, adds, touching)

    def take(self, part: Part, bodies: Bodies) -> Taken:
        """Take the records of a slice that can go this way; raises whatever a stage raises."""
        shape = self._shape(part.batch.origin)
        block = b"".join(part.lines)
        rows, shapes = shape.decode(block, part.lines, whole_lines=part.batch.ends is None)
        lines = part.lines
        if len(rows) < len(lines):
            lines = [lines[row] for row in rows]
            block = b"".join(lines)
        started = perf_counter()
        lines, declined, hidden = self._edited(block, lines, rows, shape, shapes)
        for step in self._touching_steps[:1]:
            step.seconds += perf_counter() - started
        raws = [line[:-2] for line in lines]
        if declined:
            kept = [place for place in range(len(rows)) if place not in declined]
            rows, shapes = [rows[place] for place in kept], [shapes[place] for place in kept]
            raws = [raws[place] for place in kept]
        columns = Columns(rows, part.id, shape.columns(shapes))
        counts = self._run(columns, hidden)
        if columns.rows is not rows:  # some are dropped
            of_row = dict(zip(rows, raws, strict=True))
            raws = [of_row[row] for row in columns.rows]
        rest = () if len(rows) == len(part) else sorted({*range(len(part))}.difference(rows))
        indices = columns[INDEX]
        documents = self._lines(columns, bodies.heads(indices), part.names(columns.rows), raws, bodies.origin)
        return Taken(columns.rows, indices, documents, rest, counts)

    def _shape(self, origin: Mapping[str, str | int]) -> _Shape:
        key = tuple(origin)
        if key not in self._shapes:
            taken = {*self._adds, *RESERVED, METADATA, *origin, *(name.partition(".")[0] for name in origin)}
            self._shapes[key] = _Shape(self._reads - taken, taken, self._reads & origin.keys())
        return self._shapes[key].with_origin(origin)

    def _edited(
        self, block: bytes, lines: list[bytes], rows: Sequence[int], shape: _Shape, shapes: list[Any]
    ) -> tuple[list[bytes], set[int], list[tuple[int, Sequence[str]]]]:
        """The lines, which make up the block, as the stage that `touches` them would change them; the places of those
        that it has to see itself; and by the number of a record what it counts.
        """
        if not self._touching:
            return lines, set(), []
        starts = [*accumulate(map(len, lines), initial=0)]
        if self._editor is None:
            touched = {bisect_right(starts, at) - 1 for stage in self._touching for at, _ in stage.touches(block)}
            return lines, touched, []
        edits, missed = self._editor.edits(block, self._editor.touches(block), self._spared)
        declined = {bisect_right(starts, at) - 1 for at in missed}
        hidden = [(bisect_right(starts, start) - 1, rules) for start, _, _, rules in edits]
        lines = _replaced(block, edits) if edits else lines
        if shape.has_objects:
            # What was changed may stand in one that a stage reads.
            changed = {place for place, _ in hidden}
            declined.update(place for place in changed if shape.one(lines[place]) != shapes[place])
        return lines, declined, [(rows[place], rules) for place, rules in hidden if place not in declined]

    def _run(self, columns: Columns, hidden: list[tuple[int, Sequence[str]]]) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        rows = columns.rows
        for step in self._steps:
            before, started = len(columns), perf_counter()
            if not step.selective:
                _fill(step, columns)
            elif hidden:
                kept = {*columns.rows} if columns.rows is not rows else None
                rules = [rules for row, rules in hidden if kept is None or row in kept]
                counts.update({("redactions", rule): n for rule, n in Counter(chain.from_iterable(rules)).items()})
            if len(columns) < before:
                counts["dropped", step.spec.name] += before - len(columns)
            step.seconds += perf_counter() - started
        return counts

    def _lines(
        self, columns: Columns, heads: list[bytes], names: list[bytes], raws: list[bytes], origin: bytes
    ) -> Iterator[Line]:
        """The action line and the document of each record, in pieces."""
        pieces: list[Iterable[bytes]] = [heads, names, repeat(b'"}}\n'), raws]
        constant = origin
        for field in self._adds:
            json, key = columns.json.get(field), self._keys[field]
            if json is None:
                continue
            if b"" not in json:
                pieces += [repeat(constant + key), json]
                constant = b""
            else:
                pieces += [[key if text else b"" for text in json], json]
        pieces.append(repeat(constant + b"}\n"))
        return zip(*pieces, strict=False)


def _replaced(block: bytes, edits: list[Edit]) -> list[bytes]:
    """The lines of a block after some edits."""
    pieces, done = list[bytes](), 0
    for start, end, text, _ in edits:
        pieces.append(block[done:start])
        pieces.append(text)
        done = end
    pieces.append(block[done:])
    return [*BytesIO(b"".join(pieces))]


class _Shape:
    """Decodes a record's fields that are read; a record that has one of those `taken` is refused."""

    def __init__(self, reads: set[str], taken: set[str], constant: set[str]) -> None:
        self._reads, self._constant = sorted(reads), constant
        self._origin: Mapping[str, Any] = {}
        objects = {name.partition(".")[0] for name in reads if "." in name}
        self.has_objects = bool(objects)
        """Whether fields inside of fields are read. Where not, a record with an object or array in a field that is
        read is refused."""
        kinds = [Any if name in objects else _Scalar for name in self._reads]
        fields: list[tuple[str, Any, Any]] = [(f"r{n}", kind, MISSING) for n, kind in enumerate(kinds)]
        fields += [(f"t{n}", _Taken, None) for n in range(len(taken))]
        rename = dict(zip((name for name, *_ in fields), [*self._reads, *sorted(taken)], strict=True))
        struct = msgspec.defstruct("shape", fields, rename=rename, gc=False)
        decoder = msgspec.json.Decoder(struct, dec_hook=_refuse)
        self.one: Callable[[bytes], Any] = decoder.decode
        self._all: Callable[[bytes], list[Any]] = decoder.decode_lines
        names = [name for name, *_ in fields[: len(reads)]]
        # The same as a comprehension for each name, which is faster than any function that is given the name.
        lists = ", ".join(f"[shape.{name} for shape in shapes]" for name in names)
        code = f"lambda shapes: [{lists}]"
        self._lists: Callable[[list[Any]], list[list[Any]]] = eval(code)  # noqa: S307 - made of our own names

    def with_origin(self, origin: Mapping[str, Any]) -> _Shape:
        self._origin = origin
        return self

    def decode(self, block: bytes, lines: list[bytes], *, whole_lines: bool) -> tuple[Sequence[int], list[Any]]:
        """The numbers of the lines, all of which make up the block, that can be decoded and take additions, and the
        shapes of these. `whole_lines`: no line has a newline inside.
        """
        try:
            if (whole_lines or block.count(b"\n") == len(lines)) and _apart(lines):
                shapes = self._all(block)
                if len(shapes) == len(lines):
                    return range(len(lines)), shapes
        except _UNREADABLE:
            pass
        rows, shapes = [], []
        for n, line in enumerate(lines):
            if line[-3:] in _ENDS and (whole_lines or line.find(b"\n") == len(line) - 1):
                try:
                    shapes.append(self.one(line))
                except _UNREADABLE:
                    continue
                rows.append(n)
        return rows, shapes

    def columns(self, shapes: list[Any]) -> dict[str, Sequence[Any]]:
        """The values of each field."""
        columns = dict(zip(self._reads, self._lists(shapes), strict=True))
        return columns | {field: [self._origin[field]] * len(shapes) for field in self._constant}


def _apart(lines: list[bytes]) -> bool:
    """Whether each line can take additions and, if all of them together are JSON, is an object by itself: to msgspec a
    newline is as any white space, but behind a brace that closes another one can only open what is not inside of it.
    """
    return _ENDS.issuperset([line[-3:] for line in lines]) and {line[0] for line in lines} == {0x7B}


_Scalar = str | int | float | bool | None


class _Taken:
    """The type of a field that a record may not have."""


def _refuse(type_: type, value: object) -> None:  # noqa: ARG001 - msgspec's signature
    raise ValueError


def _fill(step: Step, columns: Columns) -> None:
    """Let a stage add to the records that its condition concerns."""
    stage: Any = step.stage
    fill: Callable[[Columns], None] = getattr(stage, "fill", None) or (lambda part: part.through(stage))
    if step.holds is None:
        fill(columns)
        return
    places = [place for place, holds in enumerate(step.holds(columns)) if holds]
    if len(places) == len(columns):
        fill(columns)
    elif places:
        part = columns.some(places)
        fill(part)
        columns.take_back(part, places)

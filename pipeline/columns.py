"""Columns: some fields of a slice of records, a list of values for each.

This is what stages see of JSON records whose own bytes go into the documents: only the fields that some stage reads
are decoded, and what stages add is spliced in. A helper for authors of stages that declare `reads` and `adds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import orjson

from pipeline.contract import ID, INDEX, Event, Stage

MISSING = msgspec.UNSET
"""The value of a field in a record that does not have it. Null is None."""

T = TypeVar("T")

_MOST_REMEMBERED = 10_000


class Columns:
    """The fields of some records, by column."""

    __slots__ = ("_fields", "_ids", "json", "rows")

    def __init__(self, rows: Sequence[int], ids: Callable[[int], str], fields: dict[str, Sequence[Any]]) -> None:
        self.rows = rows
        """The number of each record in its slice."""
        self._ids, self._fields = ids, fields
        self.json: dict[str, Sequence[bytes]] = {}
        """What was added: the JSON of each value, empty where there is none."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> Sequence[Any]:
        """The field's value in each record, MISSING where there is none: as `fields.getter` finds it."""
        direct = self._column(path)
        if "." not in path:
            return direct
        first, *rest = path.split(".")
        return [
            _inside(value, rest) if own is MISSING else own
            for own, value in zip(direct, self._column(first), strict=True)
        ]

    def add(self, field: str, values: Sequence[Any] | None, json: Sequence[bytes] | None = None) -> None:
        """Set a top-level field, or `@index`, in each record whose value is not MISSING.

        `json` is what to write for each value, empty for MISSING; it is made where it is not given. Where the values
        are not, they are read from it when a stage asks for them.
        """
        if json is None and values is not None and field != INDEX:
            json = [_dumped(value) for value in values]
        if field in self.json:
            values = [*map(_loaded, json or ())] if values is None else values
            before = zip(self._column(field), self.json[field], values, json or (), strict=True)
            merged = [(old, raw) if new is MISSING else (new, text) for old, raw, new, text in before]
            values, json = [value for value, _ in merged], [text for _, text in merged]
        self._fields.pop(field, None)
        if values is not None:
            self._fields[field] = values
        if json is not None:
            self.json[field] = json

    def through(self, stage: Stage, places: Iterable[int] | None = None) -> None:
        """Call a stage with events that have what it `reads` and `adds` of the records, or of those at some places.

        What it adds is added, and what it drops is left out. Raises `ValueError` where it makes more events.
        """
        chosen = [*range(len(self))] if places is None else [*places]
        declared: Any = stage
        events = [*self.events(declared.reads | declared.adds, chosen)]
        for place, event in zip(chosen, events, strict=True):
            event[ID] = self._ids(self.rows[place])
        owners = {id(event): place for place, event in zip(chosen, events, strict=True)}
        made = {owners.get(id(event), -1): event for event in stage([*events])}
        if -1 in made:
            raise ValueError("the stage makes events: only the full way can number them")
        for field in [*declared.adds, INDEX]:
            self._put(field, {place: event.get(field, MISSING) for place, event in made.items()})
        if len(made) < len(chosen):
            self.keep(sorted({*range(len(self))} - {*chosen} | made.keys()))

    def events(self, fields: Iterable[str], places: Iterable[int] | None = None) -> Iterator[Event]:
        """Events with nothing but these top-level fields."""
        columns = [(field, self._column(field)) for field in fields]
        for place in range(len(self)) if places is None else places:
            yield {field: column[place] for field, column in columns if column[place] is not MISSING}

    def tuples(self, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of these top-level fields in each record."""
        return zip(*map(self._column, fields), strict=True) if fields else iter([()] * len(self))

    def some(self, places: Sequence[int]) -> Columns:
        """The records at some places, on their own."""
        part = Columns([self.rows[place] for place in places], self._ids, {})
        part._fields = {field: [column[place] for place in places] for field, column in self._fields.items()}
        part.json = {field: [column[place] for place in places] for field, column in self.json.items()}
        return part

    def take_back(self, part: Columns, places: Sequence[int]) -> None:
        """Take over what became of the records at some places, which were a part of their own meanwhile."""
        where = {row: place for place, row in enumerate(part.rows)}
        left = [(place, where[self.rows[place]]) for place in places if self.rows[place] in where]
        for field in [*part.json, *({INDEX} & part._fields.keys())]:
            column, texts = part._column(field), part.json.get(field)
            json = {place: texts[at] for place, at in left} if texts else None
            self._put(field, {place: column[at] for place, at in left}, json)
        if len(left) < len(places):
            self.keep(sorted({*range(len(self))} - {*places} | {place for place, _ in left}))

    def keep(self, places: Sequence[int]) -> None:
        """Leave out all other records: they are dropped."""
        kept = self.some(places)
        self.rows, self._fields, self.json = kept.rows, kept._fields, kept.json

    def _column(self, field: str) -> Sequence[Any]:
        if field not in self._fields:
            added = self.json.get(field)
            self._fields[field] = [*map(_loaded, added)] if added else [MISSING] * len(self)
        return self._fields[field]

    def _put(self, field: str, values: dict[int, Any], texts: dict[int, bytes] | None = None) -> None:
        """Replace the values at some places."""
        if field not in self._fields and field not in self.json and all(value is MISSING for value in values.values()):
            return
        column, json = [*self._column(field)], [*self.json.get(field, [b""] * len(self))]
        for place, value in values.items():
            column[place] = value
            if field != INDEX:
                json[place] = texts[place] if texts else _dumped(value)
        self._fields[field] = column
        if field != INDEX:
            self.json[field] = json


class ByValues(Generic[T]):
    """A function of events that remembers its results by the values of the top-level fields that it reads.

    Most logs have few combinations of what conditions and templates look at. Only texts, nulls, missing fields and
    `also` are remembered: 1, 1.0 and True are the same key, and not always the same to the function.
    """

    def __init__(self, function: Callable[[Event], T], fields: Iterable[str], *also: type) -> None:
        self._function, self._fields = function, sorted(fields)
        self._kinds = frozenset({str, type(None), type(MISSING), *also})
        self._known: dict[tuple[Any, ...], T] = {}

    def __call__(self, columns: Columns) -> list[T]:
        """The function's result for each record."""
        known = self._known
        try:
            return [known[values] for values in columns.tuples(self._fields)]
        except (KeyError, TypeError):  # TypeError: an object or an array among them
            return [self._find(values) for values in columns.tuples(self._fields)]

    def of(self, event: Event) -> T:
        """The function's result for an event."""
        values = tuple([event.get(field, MISSING) for field in self._fields])
        try:
            return self._known[values]
        except (KeyError, TypeError):
            return self._find(values)

    def _find(self, values: tuple[Any, ...]) -> T:
        usual = self._kinds.issuperset(map(type, values))
        if usual and values in self._known:
            return self._known[values]
        named = zip(self._fields, values, strict=True)
        result = self._function({field: value for field, value in named if value is not MISSING})
        if usual:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[values] = result
        return result


def _dumped(value: Any) -> bytes:
    return b"" if value is MISSING else orjson.dumps(value)


def _loaded(json: bytes) -> Any:
    return orjson.loads(json) if json else MISSING


def _inside(value: Any, path: list[str]) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return MISSING
        value = value.get(key, MISSING)
    return value

"""A slice of a batch: as many records as the chain works on together, with where they stand and their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from pipeline.contract import ID, Batch, Event

SLICE = 512
"""Records worked on together: 256 to 1,024 cost least (with a second-level cache of 1 MiB), 64 a fifth more."""


class Part:
    """A slice of a batch: records, where they stand, and their numbers in the batch."""

    def __init__(self, batch: Batch, lines: list[bytes], places: Sequence[Any], numbers: Sequence[int]) -> None:
        self.batch, self.numbers = batch, numbers
        self.lines = lines
        """The records, with a newline behind each."""
        self._places = places  # or, where the client gave some, the document ids

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def records(self) -> list[bytes]:
        """The records, without their newlines."""
        return [line[:-1] for line in self.lines]

    @classmethod
    def slices(cls, batch: Batch, size: int = SLICE) -> Iterator[Part]:
        """All slices of a batch, of so many records."""
        lines, positions = batch.cut()
        places: Sequence[Any] = positions if batch.ids is None else batch.ids
        for start in range(0, len(lines), size):
            end = min(start + size, len(lines))
            yield cls(batch, lines[start:end], places[start:end], range(start, end))

    def id(self, n: int) -> str:
        """The document id of a record."""
        place = self._places[n]
        return str(place) if self.batch.ids is not None else f"{self.batch.identity}-{place}"

    def names(self, rows: Sequence[int]) -> list[bytes]:
        """What differs in the document ids of some records, as it stands inside of JSON."""
        places = self._places if len(rows) == len(self._places) else [self._places[row] for row in rows]
        if self.batch.ids is not None:
            return [orjson.dumps(id_)[1:-1] for id_ in places]
        return orjson.dumps(places)[1:-1].split(b",")

    def keep(self, good: Sequence[int]) -> None:
        """Leave out all other records."""
        if len(good) < len(self.lines):
            self.lines = [self.lines[n] for n in good]
            self._places = [self._places[n] for n in good]
            self.numbers = [self.numbers[n] for n in good]

    def drop_blank(self) -> None:
        """Leave out blank lines; a record that came with its length is one, even of length 0."""
        if b"\n" in self.lines and self.batch.ends is None:
            self.keep([n for n, line in enumerate(self.lines) if line != b"\n"])

    def some(self, chosen: Sequence[int]) -> Part:
        """Some of the records as a part of their own."""
        part = Part(self.batch, self.lines, self._places, self.numbers)
        part.keep(chosen)
        return part

    def label(self, events: list[Event]) -> None:
        """Give each event its record's id and the batch's origin."""
        # A record's own field wins, and so does an object in which the field would stand.
        origin = [(key, key.partition(".")[0], value) for key, value in self.batch.origin.items()]
        for n, event in enumerate(events):
            event[ID] = self.id(n)
            for key, first, value in origin:
                if first not in event and key not in event:
                    event[key] = value

    def label_as(self, events: list[Event], n: int) -> None:
        """Give all events the id of the one record that they come from, and the origin."""
        for event in events:
            self.some([n]).label([event])

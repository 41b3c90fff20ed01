"""The end of the chain: documents as the bytes of bulk bodies, by index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import orjson

from pipeline.contract import ID, INDEX, METADATA, Batch, Documents, Event

Line = tuple[bytes, ...]
"""The pieces of an action line and its document."""

_NOT_STORED = (INDEX, ID, METADATA)


class Bodies:
    """The bulk bodies of a batch, by index."""

    def __init__(self, batch: Batch) -> None:
        self._escape = batch.ids is not None
        self._prefix = b"" if batch.ids is not None else f"{batch.identity}-".encode()
        self.origin = b"," + orjson.dumps(dict(batch.origin))[1:-1] if batch.origin else b""
        """What the origin adds to a record that is spliced."""
        self._lines: dict[str, list[Line]] = {}
        self._heads: dict[str, bytes] = {}

    def add(self, index: str, line: Line) -> None:
        """Add a document."""
        self._of(index).append(line)

    def add_all(self, indices: Iterable[str], lines: Iterable[Line]) -> None:
        """Add a document for each index, without a call for each."""
        known = self._lines
        for index, line in zip(indices, lines, strict=True):
            try:
                known[index].append(line)
            except KeyError:
                self._of(index).append(line)

    def _of(self, index: str) -> list[Line]:
        return self._lines.setdefault(index, [])

    def heads(self, indices: Iterable[str]) -> list[bytes]:
        """For each index the beginning of an action line, up to where the part of the id begins that differs."""
        known = self._heads
        try:
            return [known[index] for index in indices]
        except KeyError:
            for index in {*indices} - known.keys():
                known[index] = b'{"create":{"_index":%b,"_id":"%b' % (orjson.dumps(index), self._prefix)
            return [known[index] for index in indices]

    def encode(self, event: Event) -> tuple[str, Line]:
        """The index and the line of a whole event; raises where it is no JSON, or has no index."""
        index, id_ = event.pop(INDEX, None), event.pop(ID)
        event.pop(METADATA, None)
        if index is None:
            raise ValueError("no stage has chosen an index: add a route stage")
        name = orjson.dumps(id_) if self._escape else b'"%b"' % id_.encode()
        return index, (b'{"create":{"_index":%b,"_id":%b}}\n%b\n' % (orjson.dumps(index), name, orjson.dumps(event)),)

    def documents(self) -> list[Documents]:
        """One section an index."""
        return [
            Documents(index, b"".join(chain.from_iterable(lines)), len(lines)) for index, lines in self._lines.items()
        ]


def number_ids(events: list[Event]) -> None:
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

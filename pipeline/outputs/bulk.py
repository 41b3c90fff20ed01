"""Bulk requests to Elasticsearch: what is sent together, in pieces of the right size. Decisions only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from pipeline.contract import Documents, Payload


@dataclass(slots=True)
class Request:
    """Documents that are sent together."""

    sections: list[Documents]

    @property
    def count(self) -> int:
        """How many documents."""
        return sum(section.count for section in self.sections)

    def body(self, *, ids: bool = True) -> list[bytes]:
        """The body to send, in pieces; without `ids`, Elasticsearch gives the documents ids of its own."""
        return [section.body if ids else _without_ids(section) for section in self.sections]

    def lines(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Index, action line and document of each."""
        for section in self.sections:
            lines = section.body.split(b"\n")
            for at in range(0, 2 * section.count, 2):
                yield section.index, lines[at], lines[at + 1]

    def halves(self) -> tuple[Request, Request]:
        """Two requests of half the documents each, in their order."""
        left, first, second = self.count // 2, Request([]), Request([])
        for section in self.sections:
            take = min(left, section.count)
            left -= take
            first.sections += _slice(section, 0, take)
            second.sections += _slice(section, take, section.count)
        return first, second


def _without_ids(section: Documents) -> bytes:
    lines = section.body.split(b"\n")
    lines[: 2 * section.count : 2] = [b'{"create":{"_index":%b}}' % orjson.dumps(section.index)] * section.count
    return b"\n".join(lines)


def _slice(section: Documents, start: int, end: int) -> list[Documents]:
    """Some of a section's documents; no section where that is none."""
    if (start, end) == (0, section.count) or start == end:
        return [section] if start < end else []
    lines = section.body.split(b"\n")[2 * start : 2 * end]
    return [Documents(section.index, b"\n".join([*lines, b""]), end - start)]


def requests(payload: Payload, max_bytes: int) -> list[Request]:
    """As few requests of at most `max_bytes` as keep the order; only a larger document makes a larger request."""
    made, size = [Request([])], 0
    for section in payload:
        for piece in _pieces(section, max_bytes):
            if size and size + len(piece.body) > max_bytes:
                made.append(Request([]))
                size = 0
            made[-1].sections.append(piece)
            size += len(piece.body)
    return [request for request in made if request.sections]


def _pieces(section: Documents, max_bytes: int) -> Iterator[Documents]:
    if len(section.body) <= max_bytes:
        yield from _slice(section, 0, section.count)
        return
    lines, start, size = section.body.split(b"\n"), 0, 0
    for at in range(section.count):
        more = len(lines[2 * at]) + len(lines[2 * at + 1]) + 2
        if size and size + more > max_bytes:
            yield from _slice(section, start, at)
            start, size = at, 0
        size += more
    yield from _slice(section, start, section.count)

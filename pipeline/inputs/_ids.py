"""The document ids of records that a client pushed: what it sends again must not become a second document.

The id that the client gave counts first (`@metadata._id`, what Beats call it). Else, where a record carries a time of
its own, its content is its id; the occurrence number tells equal records in one transmission apart. Without a time two
equal records may well be two, so their ids are random.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Literal

import msgspec

Identity = Literal["client", "content", "random"]

DESCRIPTION = (
    "Where document ids come from. client: `@metadata._id` where a record has one, else the content of records with "
    "a field @timestamp or timestamp, else random. content: always the content. random: always random."
)

_SIZE = 12  # bytes: among 10^12 records, two have the same digest once in 10^5 such stores


class _Metadata(msgspec.Struct):
    id: str | None = msgspec.field(name="_id", default=None)


class _Record(msgspec.Struct):
    metadata: _Metadata | None = msgspec.field(name="@metadata", default=None)


_decode = msgspec.json.Decoder(_Record).decode


class Occurrences:
    """How often each content occurred so far; of contents long ago only the last `keep` or more are known."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self.repeated = False
        """Whether any content occurred twice."""

    def number(self, digest: str) -> int:
        """The number of this occurrence, from 0."""
        number = self._now.get(digest, self._before.get(digest, -1)) + 1
        if len(self._now) >= self._keep:
            self._before, self._now = self._now, {}
        self._now[digest] = number
        self.repeated |= number > 0
        return number


def document_ids(records: list[bytes], identity: Identity, occurrences: Occurrences) -> list[str]:
    """An id for each record."""
    chance = _random(len(records))
    if identity == "random":
        return chance
    return [
        (_given(record) if identity == "client" and b'"_id"' in record else None)
        or (_content(record, occurrences) if identity == "content" or b'timestamp"' in record else chance[n])
        for n, record in enumerate(records)
    ]


def _random(count: int) -> list[str]:
    digits = os.urandom(_SIZE * count).hex()
    return [digits[n : n + 2 * _SIZE] for n in range(0, len(digits), 2 * _SIZE)]


def _content(record: bytes, occurrences: Occurrences) -> str:
    digest = blake2b(record, digest_size=_SIZE).hexdigest()
    number = occurrences.number(digest)
    return f"{digest}-{number}" if number else digest


def _given(record: bytes) -> str | None:
    """The id that the client gave, None where there is none (a malformed record is the decoder's to refuse)."""
    try:
        metadata = _decode(record).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return metadata.id if metadata else None

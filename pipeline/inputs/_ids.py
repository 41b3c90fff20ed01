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
    """How often each content occurred so far. Of contents long ago at least the last `keep` are known."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self.repeated = False
        """Whether any content occurred twice."""

    def numbered(self, digests: list[str]) -> list[str]:
        """The digests; a later occurrence of the same one with its number behind it."""
        if len(self._now) >= self._keep:
            self._before, self._now = self._now, {}
        new = dict.fromkeys(digests, 0)
        if len(new) == len(digests) and new.keys().isdisjoint(self._now) and new.keys().isdisjoint(self._before):
            self._now |= new
            return digests
        self.repeated = True
        return [self._numbered(digest) for digest in digests]

    def _numbered(self, digest: str) -> str:
        number = self._now.get(digest, self._before.get(digest, -1)) + 1
        self._now[digest] = number
        return f"{digest}-{number}" if number else digest


def document_ids(records: list[bytes], identity: Identity, occurrences: Occurrences) -> list[str]:
    """An id for each record."""
    if identity == "random":
        return _random(len(records))
    # One search through all records costs half of a search a record.
    given = identity == "client" and b'"_id"' in b"".join(records)
    if not given and (identity == "content" or all(b'timestamp"' in record for record in records)):
        return occurrences.numbered([_digest(record) for record in records])
    return _mixed(records, occurrences)


def _mixed(records: list[bytes], occurrences: Occurrences) -> list[str]:
    """The ids of records some of which have no id or no time."""
    ids = [_given(record) if b'"_id"' in record else None for record in records]
    timed = [n for n, record in enumerate(records) if not ids[n] and b'timestamp"' in record]
    digests = occurrences.numbered([_digest(records[n]) for n in timed])
    named = dict(zip(timed, digests, strict=True))
    return [ids[n] or named.get(n) or chance for n, chance in enumerate(_random(len(records)))]


def _random(count: int) -> list[str]:
    digits = os.urandom(_SIZE * count).hex()
    return [digits[n : n + 2 * _SIZE] for n in range(0, len(digits), 2 * _SIZE)]


def _digest(record: bytes) -> str:
    return blake2b(record, digest_size=_SIZE).hexdigest()


def _given(record: bytes) -> str | None:
    """The id that the client gave, None where there is none (a malformed record is the decoder's to refuse)."""
    try:
        metadata = _decode(record).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return metadata.id if metadata else None

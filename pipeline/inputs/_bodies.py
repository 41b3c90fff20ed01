"""From the body of an HTTP request to records. No I/O.

| content | records |
|---|---|
| `application/x-ndjson`, `application/jsonl` … | one a line |
| `application/json` | an object: one; an array: one an element |
| `text/plain` | one a line; it becomes `{"message": line}` where the input decodes JSON |
| a path that ends in `/_bulk` | the documents of its `create` and `index` actions |
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import msgspec
import orjson
from isal import isal_zlib

NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
                    "application/json-lines"})  # fmt: skip
_CHUNK = 1 << 18  # bytes that are inflated at once
_FED = 1 << 14  # compressed bytes that are taken at once
_ANY_RATIO = 1 << 20  # up to these bytes any ratio is fine: a hundred equal lines compress well, too
_VALUES, _FEW_VALUES = 20, 100_000  # JSON values for each record that a body may have; and in any body
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BodyError(Exception):
    """A body that can't be taken at all, with the status to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TooMany(BodyError):
    """A body with more records than it may have."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"the body has more than {most} records")


@dataclass(slots=True)
class Body:
    """The records of a request."""

    block: bytes
    ends: array[int] | None = None
    """As in `contract.Batch`; None: one record a line."""
    ids: list[str | None] | None = None
    """The ids that a bulk request gave, one a record."""
    items: list[Item] = field(default_factory=list)
    """The actions of a bulk request, in order."""

    def count(self) -> int:
        """How many records there are, without blank lines."""
        if self.ends is not None:
            return len(self.ends)
        return sum(map(bool, map(bytes.strip, self.block.split(b"\n"))))

    def lines(self) -> int:
        """How many records there are, with blank lines: quickly found, however many there are."""
        return self.block.count(b"\n") + 1 if self.ends is None else len(self.ends)


@dataclass(slots=True)
class Item:
    """An action of a bulk request: its name, what it named, and why it can't be done (empty: it can)."""

    action: str
    index: str
    id: str | None
    error: str = ""


def joined(records: list[bytes]) -> tuple[bytes, array[int]]:
    """Records one after the other, and where each ends."""
    ends, at = array("Q"), 0
    for record in records:
        at += len(record)
        ends.append(at)
    return b"".join(records), ends


def is_known(content_type: str) -> bool:
    """Whether `split` takes it."""
    return (
        content_type in NDJSON or content_type in {"application/json", "text/plain"} or content_type.endswith("+json")
    )


def split(content_type: str, data: bytes, most: int, *, text: bool) -> Body:
    """The records of a body that is no bulk request; `text`: the input decodes text, so lines stay as they are.

    Raises `BodyError` with 415 for another type of content, 400 for JSON that can't be split, 413 where there are so
    many more than `most` records that splitting them would take too much memory.
    """
    if content_type in NDJSON:
        return Body(data)
    if content_type == "application/json" or content_type.endswith("+json"):
        return _json(data, most)
    if content_type == "text/plain":
        return Body(data if text else _messages(data, most))
    raise BodyError(
        415,
        f"{content_type or 'no content type'}: send application/x-ndjson, application/json or text/plain, "
        "an Elasticsearch bulk request to …/_bulk, or OTLP to /v1/logs",
    )


def check_values(data: bytes, most: int) -> None:
    """Raise `BodyError` where JSON for at most so many records has more values than those may have: each takes some
    dozen bytes when it is parsed, so that a body of nothing but `[],` takes thirty times its size.
    """
    values = max(_FEW_VALUES, _VALUES * most)
    if data.count(b",") > values:
        raise BodyError(413, f"the body has more than {values} JSON values; send fewer records at once")


def _json(data: bytes, most: int) -> Body:
    if not data.strip():
        return Body(b"")
    if data.lstrip()[:1] != b"[":
        return Body(*joined([data]))
    check_values(data, most)
    try:
        elements = _elements(data)
        if len(elements) > most:
            raise TooMany(most)
        return Body(*joined([bytes(element) for element in elements]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BodyError(400, f"the array is no valid JSON: {error}") from error


def _messages(data: bytes, most: int) -> bytes:
    if data.count(b"\n") > most:
        raise TooMany(most)
    return b"".join(
        orjson.dumps({"message": line.decode(errors="replace")}) + b"\n" for line in data.splitlines() if line
    )


def bulk(data: bytes, index: str, most: int) -> Body:
    """The records, no more than `most`, of an Elasticsearch bulk request to `index` (empty: each action names its own).

    Only `create` and `index` bring documents; an `update` or `delete` is answered as an error, and its lines skipped.
    Raises `BodyError` with 400 where actions and documents can't be told apart.
    """
    records: list[bytes] = []
    ids: list[str | None] = []
    items: list[Item] = []
    lines = (line.removesuffix(b"\n") for line in BytesIO(data) if line.strip())
    for number, line in enumerate(lines, 1):
        if number > most:
            raise TooMany(most)
        name, target = _action(line, number)
        item = Item(name, target.get("_index") or index, target.get("_id"))
        items.append(item)
        if name in {"update", "delete"}:
            item.error = f"{name} is not possible here: aiologs only adds documents"
        if name == "delete":
            continue
        document = next(lines, None)
        if document is None:
            raise BodyError(400, f"line {number}: the document of the last action is missing")
        if not item.error:
            records.append(document)
            ids.append(item.id)
    return Body(*joined(records), ids, items)


def _action(line: bytes, number: int) -> tuple[str, dict[str, Any]]:
    try:
        [(name, target)] = orjson.loads(line).items()
    except (orjson.JSONDecodeError, AttributeError, ValueError) as error:
        raise BodyError(400, f"action {number}: malformed action line: {error}") from error
    if name not in {"create", "index", "update", "delete"} or not isinstance(target, dict):
        raise BodyError(400, f"action {number}: unknown action {name!r}")
    return name, target


def bulk_answer(body: Body, refused: dict[int, str], took: int) -> bytes:
    """What Elasticsearch answers: an item an action; `refused` has the reasons by record."""
    items, record = [], -1
    for item in body.items:
        error = item.error
        if not error:
            record += 1
            error = refused.get(record, "")
        fate: dict[str, Any] = {"_index": item.index, "_id": item.id, "status": 400 if error else 201}
        if error:
            kind = "document_parsing_exception" if not item.error else "illegal_argument_exception"
            fate["error"] = {"type": kind, "reason": error}
        else:
            fate["result"] = "created"
        items.append({item.action: fate})
    failed = any("error" in next(iter(item.values())) for item in items)
    return orjson.dumps({"took": took, "errors": failed, "items": items})


def inflate(data: bytes, encoding: str, limit: int, ratio: int) -> bytes:
    """A body without its compression (gzip, deflate or zstd, also several).

    Raises `BodyError`: 413 beyond `limit` bytes, or as soon as `ratio` times as much has come out as has gone in (from
    1 MiB on), 400 where it is damaged, 415 for another encoding.
    """
    for name in reversed([name.strip().lower() for name in encoding.split(",") if name.strip()]):
        if name == "identity":
            continue
        if name not in _CODECS:
            raise BodyError(415, f"content encoding {name!r}: send gzip, deflate, zstd or none")
        try:
            data = _bounded(_CODECS[name](data), limit, ratio)
        except (isal_zlib.error, EOFError, ValueError) as error:  # type: ignore[misc]  # its stub: an instance
            raise BodyError(400, f"the {name} body is damaged: {error}") from error
    return data


Steps = Iterator[tuple[int, bytes]]
"""How many bytes of the body have been taken by now, and what came out of the last ones."""


def _bounded(steps: Steps, limit: int, ratio: int) -> bytes:
    inflated, size = BytesIO(), 0  # not a list of parts: joining them takes their memory twice
    for taken, chunk in steps:
        size += len(chunk)
        if size > min(limit, max(_ANY_RATIO, taken * ratio)):
            inflated.close()  # the error's traceback would keep it
            bound = f"{limit} bytes" if size > limit else f"{ratio} times its compressed size"
            raise BodyError(413, f"the body is larger than {bound} when inflated")
        inflated.write(chunk)
    return inflated.getvalue()


def _inflated(data: bytes, wbits: int) -> Steps:
    at = 0
    while at < len(data):  # gzip may have several members
        inflater, rest = isal_zlib.decompressobj(wbits), b""
        while not inflater.eof:
            if not rest:
                rest = data[at : at + _FED]
                at += len(rest)
            ended = not rest
            chunk = inflater.decompress(rest, _CHUNK)
            rest = inflater.unconsumed_tail
            yield at - len(rest), chunk
            if ended and not inflater.eof and len(chunk) < _CHUNK:
                raise EOFError("it ends too early")
        at = at - len(inflater.unused_data) if wbits > zlib.MAX_WBITS else len(data)


def _deflated(data: bytes) -> Steps:
    # "deflate" is zlib's format (RFC 9110, 8.4.1.2), but some clients send the bare one.
    zlibbed = len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
    return _inflated(data, zlib.MAX_WBITS if zlibbed else -zlib.MAX_WBITS)


def _unzstd(data: bytes) -> Steps:
    import zstandard  # noqa: PLC0415 - few clients use it

    source = BytesIO(data)
    try:
        # 8 MiB is the window that every decoder must support (RFC 8878, 3.1.1.1.2); more is memory a client chooses.
        unpacker = zstandard.ZstdDecompressor(max_window_size=8 << 20)
        reader = unpacker.stream_reader(source, read_size=_FED, read_across_frames=True)
        while chunk := reader.read(_CHUNK):
            yield source.tell(), chunk
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


_CODECS: dict[str, Callable[[bytes], Steps]] = {
    "gzip": lambda data: _inflated(data, 16 + zlib.MAX_WBITS),
    "x-gzip": lambda data: _inflated(data, 16 + zlib.MAX_WBITS),
    "deflate": _deflated,
    "zstd": _unzstd,
}

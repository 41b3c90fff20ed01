"""What Elasticsearch's answer to a bulk request means for each of its documents. Decisions only, no I/O.

A 200 says nothing about the documents: each has a status of its own in the answer, in the order of the request
(https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk). `fates` sorts them:

| status of the item, type of the error | fate |
|---|---|
| 200, 201 | stored; by the failure store of a data stream (`failure_store: used`): stored, and counted apart |
| 409 version_conflict | it is already there: only `create` is sent, with ids of our own |
| 429 | again: `BUSY` |
| 403 cluster_block of a read-only index | again, elsewhere or later: `READ_ONLY` |
| 403 other cluster_block, 404 index_not_found, 400 index_closed, what else is in an index's way | again: `BLOCKED` |
| 401, 403 security_exception | again: `DENIED` |
| 500 | again: `FAULT` |
| other 5xx | again: `BLOCKED`, for instance 503 unavailable_shards |
| every other one, for instance 400 document_parsing_exception | refused |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from pipeline.contract import Documents, Refused
from pipeline.outputs.bulk import Request

FILTER = ",".join(
    [
        "errors",
        "items.*.status",
        "items.*.failure_store",
        *(f"items.*.error.{key}" for key in ("type", "reason", "caused_by.type", "caused_by.reason")),
    ]
)
"""The `filter_path` that leaves in an answer what is read here: some 30 bytes a document."""


class Kind(StrEnum):
    """Why a document, or a whole request, is to be sent again."""

    AWAY = "away"
    """No answer: refused connection, time-out, cut answer."""
    BUSY = "busy"
    """The cluster has too much to do, or is not complete."""
    DENIED = "denied"
    """The credentials don't do."""
    BLOCKED = "blocked"
    """An index takes nothing."""
    READ_ONLY = "read_only"
    """An index only lets read: its lifecycle, or somebody, wants it so."""
    MOVED = "moved"
    """It was refused; it can be sent again at once, to another place or in another form."""
    FAULT = "fault"
    """Elasticsearch failed on a document."""
    ODD = "odd"
    """No answer as Elasticsearch gives to a bulk request."""
    TOO_LARGE = "too_large"
    """Whole requests: the documents are to be sent in smaller ones."""
    MALFORMED = "malformed"
    """Whole requests: one of the documents makes Elasticsearch refuse all of them."""


class Failed(Exception):
    """A request was not taken as a whole, or it is not known what became of it."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(slots=True)
class Again:
    """Documents of one index to be sent again, and why."""

    documents: Documents
    kind: Kind
    reason: str


@dataclass(slots=True)
class Fates:
    """What became of the documents of a request."""

    stored: int = 0
    already: int = 0
    failure_store: int = 0
    """How many of `stored` are in the failure store of a data stream."""
    refused: list[Refused] = field(default_factory=list)
    again: list[Again] = field(default_factory=list)
    indices: set[str] = field(default_factory=set)
    """Those that have at least one of the documents now."""

    @property
    def decided(self) -> int:
        """How many documents need not be sent again."""
        return self.stored + self.already + len(self.refused)


def fates(request: Request, status: int, answer: bytes) -> Fates:
    """What became of each document; raises `Failed` where the answer is not about the single ones."""
    if status != 200:
        raise failed(status, answer)
    if _all_created(request, answer):
        return Fates(stored=request.count, indices={section.index for section in request.sections})
    return _sorted(request, _items(request, answer))


def _all_created(request: Request, answer: bytes) -> bool:
    """Whether every item is a plain 201, without parsing: 0.05 µs an item.

    A quotation mark inside a JSON string is escaped, so these bytes can only be a key and its value, and an item has
    one status; an answer that was cut lacks some of them. Whatever else there is to see goes the long way.
    """
    return (
        b'"errors":false' in answer[:200]
        and answer.count(b'"status":201') == request.count
        and b'"failure_store":"used"' not in answer
    )


def _items(request: Request, answer: bytes) -> list[dict[str, Any]]:
    try:
        items = [dict(next(iter(item.values()))) for item in orjson.loads(answer)["items"]]
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        raise Failed(Kind.ODD, f"the answer is not one to a bulk request: {_shown(answer)}") from None
    if len(items) != request.count:
        raise Failed(Kind.ODD, f"the answer has {len(items)} items for {request.count} documents")
    return items


def _sorted(request: Request, items: Sequence[dict[str, Any]]) -> Fates:
    result = Fates()
    again: dict[tuple[str, Kind], tuple[str, list[bytes]]] = {}
    for (index, action, document), item in zip(request.lines(), items, strict=True):
        status, type_, text = item.get("status", 0), *_error(item.get("error"))
        if status in {200, 201}:
            result.stored += 1
            result.failure_store += item.get("failure_store") == "used"
            result.indices.add(index)
        elif status == 409 and type_.startswith("version_conflict"):
            result.already += 1
            result.indices.add(index)
        elif kind := _kind(status, type_, text):
            _, lines = again.setdefault((index, kind), (_reason(item, index, advise=True), []))
            lines += (action, document)
        else:
            id_ = orjson.loads(action)["create"]["_id"]
            result.refused.append(Refused(index, id_, document, _reason(item, index)))
    for (index, kind), (reason, lines) in again.items():
        body = b"\n".join([*lines, b""])
        result.again.append(Again(Documents(index, body, len(lines) // 2), kind, reason))
    return result


_IN_THE_WAY = re.compile(
    r"pipeline with id \[.*\] does not exist|no write index is defined for alias|maximum [a-z ]*shards open"
)
"""What comes as 400 on every document of an index until an operator mends the cluster."""


_READ_ONLY = re.compile("FORBIDDEN/(5|8)/")
"""The blocks `index.blocks.read_only` and `index.blocks.write`; the other ones are not lifted by us: a full disk's
(12) ends by itself."""


def _kind(status: int, type_: str, text: str) -> Kind | None:
    """Why to send a document again; None: never."""
    if type_ == "cluster_block_exception":
        return _block(text)
    if type_ in {"index_not_found_exception", "index_closed_exception"} or _IN_THE_WAY.search(text):
        return Kind.BLOCKED
    if type_ == "security_exception" or status == 401:
        return Kind.DENIED
    if status in {0, 408, 409, 429}:
        return Kind.BUSY
    if status == 500:
        return Kind.FAULT
    return Kind.BLOCKED if status == 403 or status > 500 else None


def _block(text: str) -> Kind:
    """Whether it is an index that is blocked, and how, or the whole cluster."""
    if not text.startswith("index ["):
        return Kind.BUSY
    return Kind.READ_ONLY if _READ_ONLY.search(text) else Kind.BLOCKED


def _error(error: Any) -> tuple[str, str]:
    """Type and reason of an error; some old versions give only a text."""
    if isinstance(error, dict):
        return str(error.get("type")), str(error.get("reason"))
    return "", str(error or "")


def _reason(item: dict[str, Any], index: str, *, advise: bool = False) -> str:
    """`type: reason; caused by …`, with the index, and with what to do, where it is the index that is in the way."""
    error = item.get("error")
    type_, text = _error(error)
    text = f"{type_}: {text}" if type_ else text or f"status {item.get('status')}"
    if isinstance(error, dict) and "caused_by" in error:
        text += "; caused by {}: {}".format(*_error(error["caused_by"]))
    if not advise:
        return f"{text} ({_TOO_MANY})" if "Limit of total fields" in text else text
    advice = f" ({_privileges(text)})" if type_ == "security_exception" else _advice(text)
    return f"index {index}: {text}{advice}"


_TOO_MANY = (
    "raise index.mapping.total_fields.limit, or set index.mapping.total_fields.ignore_dynamic_beyond_limit,"
    " in the index's template; then `aiologs dead retry`"
)
_ADVICE = {
    r"FORBIDDEN/(5|8)/": "it is read-only, perhaps by its lifecycle; see the option read_only, or lift the block"
    " `index.blocks.write` or `index.blocks.read_only`",
    r"/12/": "a disk of the cluster is full (flood stage); make room, then Elasticsearch lifts the block itself",
    "^index_closed": "open it with POST /INDEX/_open",
    "^index_not_found": "create the index or the alias; `action.auto_create_index` may forbid to make it on the way",
    "does not exist": "create the ingest pipeline, or take it out of the index's settings",
    "no write index": "mark one index of the alias with is_write_index",
    "shards open": "delete or merge old indices, or raise cluster.max_shards_per_node",
}


def _advice(text: str) -> str:
    return next((f" ({advice})" for pattern, advice in _ADVICE.items() if re.search(pattern, text)), "")


_WRITING = "create_doc on the index, and auto_configure to make it and new fields"
_ACTIONS = {
    "indices:admin/(auto_create|create|mapping)": "auto_configure on the index",
    "indices:data/read": "read on the index",
    "indices:admin/settings/update": "manage on the index",
    "indices:(monitor|admin/get|admin/ilm/explain)": "view_index_metadata on the index",
    "cluster:admin/ilm/get": "read_ilm on the cluster",
    "cluster:monitor": "monitor on the cluster",
}
"""Actions, by how their names begin, and the privilege that allows each
(https://www.elastic.co/docs/deploy-manage/users-roles/cluster-or-deployment-auth/elasticsearch-privileges)."""


def _privileges(text: str) -> str:
    """Which privilege a refusal by the security of Elasticsearch is about, from the action that it names."""
    action = re.search(r"action \[([^]]+)]", text)
    found = next((name for pattern, name in _ACTIONS.items() if action and re.match(pattern, action[1])), _WRITING)
    return f"the user or API key needs the privilege {found}"


def failed(status: int, answer: bytes) -> Failed:
    """What a status other than 200 says of a whole request."""
    reason = f"answers {status}: {_shown(answer)}"
    if status == 413:
        return Failed(Kind.TOO_LARGE, f"{reason} (a request is larger than the server or a proxy before it takes)")
    if status == 401:
        return Failed(Kind.DENIED, f"{reason} (look at api_key, or username and password)")
    if status == 403:
        return Failed(Kind.DENIED, f"{reason} ({_privileges(answer.decode(errors='replace'))})")
    if status == 429 or status >= 500:
        return Failed(Kind.BUSY, reason)
    # Elasticsearch refuses all for one document with, for instance, an id of more than 512 bytes. A proxy's 400, or
    # one for the headers, has another form: that is nothing that a document could be blamed for.
    if status == 400 and b'"root_cause"' in answer and b"media_type_header_exception" not in answer:
        return Failed(Kind.MALFORMED, reason)
    return Failed(Kind.ODD, f"{reason} (is that the address of an Elasticsearch?)")


def _shown(answer: bytes) -> str:
    """An answer's error, without the middle of a long one, or its beginning."""
    try:
        text = ": ".join(_error(orjson.loads(answer)["error"])).removeprefix(": ")
    except (ValueError, LookupError, TypeError):
        return repr(answer[:200].decode(errors="replace"))
    return text if len(text) <= 500 else f"{text[:250]} … {text[-250:]}"


_PLACE = re.compile(r"\[\d+:\d+\] ")
_CONTENT = re.compile(r"( in document with id |\.? ?Preview of field's value|; caused by ).*", re.DOTALL)


def summary(reason: str) -> str:
    """A refusal's reason without what differs from document to document, and without contents of a document."""
    return _CONTENT.sub("", _PLACE.sub("", reason))

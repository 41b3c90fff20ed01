"""An Elasticsearch for tests: it keeps documents by (index, id) in memory and fails as it is told to.

    async with FakeElasticsearch() as fake:
        fake.next(Status(503), Cut())        # how the next requests go wrong, in this order
        fake.indices["old"] = READ_ONLY      # what every document of an index meets
        …
        assert fake.documents["logs", "id-1"] == b'{"a":1}'

What it answers is what Elasticsearch 9.2 answers; `tests/integration/test_elasticsearch.py` runs the same on both.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import orjson
from aiohttp import web


class Error(NamedTuple):
    """What becomes of a document instead of being stored."""

    status: int
    type: str
    reason: str


READ_ONLY = Error(403, "cluster_block_exception", "index [{index}] blocked by: [FORBIDDEN/8/index write (api)];")
FLOOD_STAGE = Error(
    429,
    "cluster_block_exception",
    "index [{index}] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has"
    " read-only-allow-delete block];",
)
CLOSED = Error(400, "index_closed_exception", "closed")
MISSING = Error(
    404,
    "index_not_found_exception",
    "no such index [{index}] and [action.auto_create_index] contains [-{index}] which forbids automatic creation of"
    " the index",
)
REJECTED = Error(429, "es_rejected_execution_exception", "rejected execution of primary operation")
NO_SHARD = Error(503, "unavailable_shards_exception", "[{index}][0] primary shard is not active")
BROKEN = Error(500, "null_pointer_exception", "Cannot invoke something because it is null")
FORBIDDEN = Error(403, "security_exception", "action [indices:data/write/bulk[s]] is unauthorized for API key")


@dataclass
class Status:
    """The whole request is answered with a status, and nothing of it is stored."""

    status: int
    body: bytes = b'{"error":{"root_cause":[],"type":"made_up_exception","reason":"as the test wants it"},"status":0}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Cut:
    """The documents are stored, but the answer ends in the middle."""


@dataclass
class Hang:
    """The documents are stored, but no answer comes until `release`, or ever."""

    release: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Reset:
    """The connection is closed without an answer, and nothing is stored."""


@dataclass
class Items:
    """The documents are stored, but the answer has a wrong number of items."""

    count: int


@dataclass
class Each:
    """Errors for single documents of one request, by their number in it."""

    errors: dict[int, Error]


Trouble = Status | Cut | Hang | Reset | Items | Each


@dataclass
class Request:
    """A bulk request as it came."""

    ids: list[str | None]
    size: int
    """In bytes, as it was sent."""
    headers: dict[str, str]


class FakeElasticsearch:
    """Serves on a free port of the loopback while the context is open."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.documents: dict[tuple[str, str], bytes] = {}
        self.log: list[tuple[str, str]] = []
        """Each document that was stored, in order."""
        self.requests: list[Request] = []
        self.indices: dict[str, Error] = {}
        """What each document of an index meets."""
        self.long_fields: set[str] = set()
        """Fields that the mapping of every index wants as numbers."""
        self.changes: list[tuple[str, dict[str, Any]]] = []
        """The settings of indices that were changed, in order."""
        self.refusal: Status | None = None
        """What is answered to everything but bulk requests."""
        self.max_content_length = 100 << 20
        self.always: Trouble | None = None
        self.headers = {"X-Elastic-Product": "Elasticsearch"}
        self.url = ""
        self.nodes: list[str] = []
        """URLs of the nodes that it says its cluster has."""
        self._next: list[Trouble] = []
        self._made_up = itertools.count()
        self._runner: web.AppRunner | None = None
        self._port = 0

    def next(self, *troubles: Trouble) -> None:
        """How the next requests go wrong."""
        self._next += troubles

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; after a `stop` at the same address."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/", self._about)
        app.router.add_post("/_bulk", self._bulk)
        app.router.add_get("/_nodes/_all/http", self._nodes)
        app.router.add_post("/{index}/_mget", self._mget)
        app.router.add_get("/{names}/_settings", self._settings)
        app.router.add_put("/{index}/_settings", self._change)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Be away; the documents stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _about(self, _: web.Request) -> web.Response:
        version = {"number": "9.2.0", "build_flavor": "default"}
        about = {"name": "fake", "cluster_name": "fake", "version": version, "tagline": "You Know, for Search"}
        return web.json_response(about, headers=self.headers)

    async def _nodes(self, _: web.Request) -> web.Response:
        nodes = {url: {"roles": ["data"], "http": {"publish_address": url.partition("//")[2]}} for url in self.nodes}
        return web.json_response({"nodes": nodes}, headers=self.headers)

    async def _mget(self, request: web.Request) -> web.Response:
        if self.refusal:
            return self._status(self.refusal)
        index, ids = request.match_info["index"], (await request.json())["ids"]
        docs = [{"_id": id_, "found": (index, id_) in self.documents} for id_ in ids]
        return web.json_response({"docs": docs}, headers=self.headers)

    async def _settings(self, request: web.Request) -> web.Response:
        if self.refusal:
            return self._status(self.refusal)
        patterns = request.match_info["names"].split(",")
        names = {index for index, _ in self.documents} | self.indices.keys()
        found = {
            name: {"settings": {"index": {"blocks": {"write": "true"} if self.indices.get(name) == READ_ONLY else {}}}}
            for name in sorted(names)
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        return web.json_response(found, headers=self.headers)

    async def _change(self, request: web.Request) -> web.Response:
        if self.refusal:
            return self._status(self.refusal)
        index, settings = request.match_info["index"], await request.json()
        self.changes.append((index, settings))
        if settings["index.blocks.write"]:
            self.indices[index] = READ_ONLY
        else:
            self.indices.pop(index, None)
        return web.json_response({"acknowledged": True}, headers=self.headers)

    def _status(self, status: Status) -> web.Response:
        headers = {"content-type": "application/json", **self.headers, **status.headers}
        return web.Response(status=status.status, body=status.body, headers=headers)

    async def _bulk(self, request: web.Request) -> web.StreamResponse:
        if request.content_length is not None and request.content_length > self.max_content_length:
            return web.Response(status=413, headers=self.headers)
        lines = (await request.read()).split(b"\n")
        actions = [orjson.loads(line)["create"] for line in lines[:-1:2]]
        ids = [action.get("_id") for action in actions]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(ids, int(headers["content-length"]), headers))
        trouble = self._next.pop(0) if self._next else self.always
        if long := next((id_ for id_ in ids if len((id_ or "").encode()) > 512), None):
            trouble = _too_long(long)
        match trouble:
            case Status():
                return self._status(trouble)
            case Reset():
                _close(request)
                return web.Response()
        special = trouble.errors if isinstance(trouble, Each) else {}
        items = [
            {"create": self._item(action, document, special.get(n))}
            for n, (action, document) in enumerate(zip(actions, lines[1::2], strict=True))
        ]
        return await self._answer(request, items, trouble)

    def _item(self, action: dict[str, Any], document: bytes, error: Error | None) -> dict[str, Any]:
        index, id_ = action["_index"], action.get("_id") or f"made-up-{next(self._made_up)}"
        known = {"_index": index, "_id": id_}
        if error := error or self._error(index, id_, document):
            reason = {"type": error.type, "reason": error.reason.format(index=index, id=id_)}
            return known | {"status": error.status, "error": reason}
        self.documents[index, id_] = document
        self.log.append((index, id_))
        return known | {"_version": 1, "result": "created", "status": 201}

    def _error(self, index: str, id_: str, document: bytes) -> Error | None:
        if error := self.indices.get(index):
            return error
        for name in self.long_fields:
            value = orjson.loads(document).get(name, 0)
            if not isinstance(value, int):
                text = f"[1:6] failed to parse field [{name}] of type [long] in document with id '{id_}'."
                return Error(400, "document_parsing_exception", f"{text} Preview of field's value: '{value}'")
        if (index, id_) in self.documents:
            text = f"[{id_}]: version conflict, document already exists (current version [1])"
            return Error(409, "version_conflict_engine_exception", text)
        return None

    async def _answer(
        self, request: web.Request, items: list[dict[str, Any]], trouble: Trouble | None
    ) -> web.StreamResponse:
        if isinstance(trouble, Items):
            items = (items * (trouble.count + 1))[: trouble.count]
        errors = any("error" in item["create"] for item in items)
        if "items.*.status" in request.query.get("filter_path", ""):
            kept = [{key: item["create"][key] for key in _KEPT & item["create"].keys()} for item in items]
            answer = {"errors": errors, "items": [{"create": item} for item in kept]}
        else:
            answer = {"errors": errors, "took": 1, "items": items}
        body = orjson.dumps(answer)
        if isinstance(trouble, Hang):
            await trouble.release.wait()
        response = web.StreamResponse(headers={"content-type": "application/json", **self.headers})
        response.content_length = len(body)
        await response.prepare(request)
        if isinstance(trouble, Cut):
            await response.write(body[: len(body) // 2])
            _close(request)
        else:
            await response.write(body)
        return response


_KEPT = {"status", "error", "failure_store"}


def _too_long(id_: str) -> Status:
    reason = f"Validation Failed: 1: id [{id_}] is too long, must be no longer than 512 bytes but was: {len(id_)};"
    error = {"type": "action_request_validation_exception", "reason": reason}
    return Status(400, orjson.dumps({"error": {"root_cause": [error], **error}, "status": 400}))


def _close(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()

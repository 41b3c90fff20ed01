"""Takes records over HTTP: POST or PUT to any path.

    web: {type: http, listen: "0.0.0.0:8080"}

`application/x-ndjson`, `application/json` (an object or an array), `text/plain` (lines), Elasticsearch bulk requests
(`…/_bulk`) and OTLP logs (`/v1/logs`, protobuf or JSON), each plain or as gzip, deflate or zstd.

| answer | means |
|---|---|
| 200 | every record is stored (or set aside, where `malformed: set_aside`), or on the disk with `buffer: disk` |
| 400 | some records were refused: `{"stored": 2, "errors": [{"line": 2, "reason": …}]}`; or the body can't be read |
| 401 | a user, token, API key or client certificate is wanted |
| 413, 415 | the body is too large or has too many records, or is of a kind that is not taken |
| 429 | there is no room now, nor in the disk buffer: send it again after `Retry-After` seconds |
| 503 | the daemon has been stopping for half a second: send it again, to another one or after `Retry-After` seconds |

A log record of OTLP becomes an event with `timestamp`, `level`, `severity`, `message` (`body`, where it is no text),
`attributes`, `resource`, `scope`, `traceId`, `spanId` and `eventName`, without those that are empty.

A client that sends a request again, because the answer was lost, makes no second documents where it names the request
(`Idempotency-Key`), gives ids (bulk requests, `@metadata._id`) or its records carry a time; see `identity`.
Every answer carries `x-correlation-id`: the client's own, or one that was made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

import orjson
from pydantic import Field

from pipeline import registry
from pipeline.address import Address
from pipeline.contract import Batch, Context, Decoder, Deliver, Full, Outcome, Refusal
from pipeline.inputs import _aiohttp, _bodies, _otlp
from pipeline.inputs._auth import Auth, known
from pipeline.inputs._bodies import Body, BodyError, TooMany
from pipeline.inputs._buffering import Buffering
from pipeline.inputs._ids import DESCRIPTION, Identity, Occurrences, document_ids
from pipeline.inputs._intake import Intake
from pipeline.inputs._listen import Endpoint
from pipeline.inputs._peers import Peers, Room
from pipeline.tls import TLS

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, Response

log = logging.getLogger("aiologs.input.http")

_CORRELATION = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_RETRY_AFTER = {"Retry-After": "1"}
_PAUSE = 0.001
"""Seconds before a GET is answered: some clients send thousands at once. Without a real pause the loop would give the
interpreter's lock away for microseconds at a time only, and the threads that write to disks would never get it.
"""


class Http:
    """A server for records."""

    class Options(Room, Buffering):
        """The options of the input."""

        listen: Address = Field(description="Address and port; `:8080` listens on all addresses.")
        tls: TLS | None = Field(default=None, description="Speak TLS, with this certificate.")
        auth: Auth = Field(default=Auth(), description="Who may send; empty: everybody who reaches the port.")
        malformed: Literal["refuse", "refuse_all", "set_aside"] = Field(
            default="refuse",
            description="Records that can't be processed: answer 400 and name them, or set them aside and answer 200, "
            "as always with `buffer: disk`. With refuse_all nothing of a request is taken in which a record can't be "
            "decoded, but for bulk requests and OTLP, which are answered by record.",
        )
        compatible: Literal["logstash"] | None = Field(
            default=None,
            description="logstash: answer every accepted request with 200 and `ok`, set aside, and take a body of an "
            "unknown type as text.",
        )
        identity: Identity = Field(default="client", description=f"{DESCRIPTION} `Idempotency-Key` counts as client.")
        max_body_bytes: int = Field(default=32 << 20, ge=1, description="The largest body, also when inflated.")
        max_records: int = Field(default=100_000, ge=1, description="The most records of a body.")
        max_ratio: int = Field(
            default=200, ge=1, description="How many times its size a compressed body may grow to, from 1 MiB on."
        )
        in_flight: int = Field(
            default=64 << 20, ge=1, description="Bytes of all bodies that are read and not yet answered; then 429."
        )
        body_seconds: float = Field(default=30.0, gt=0, description="How long a client may take to send a body.")
        idle_seconds: float = Field(default=75.0, gt=0, description="How long a connection may stay without a request.")

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self._credentials = options.auth.credentials()
        self._identity = f"http-{uuid4().hex[:16]}"
        told = options.compatible is None and options.buffer == "memory"
        self._refuse = options.malformed != "set_aside" and told
        whole = options.malformed == "refuse_all" and options.compatible is None
        self._decoder = _decoder(context.decode) if whole else None
        self._leaving = self._stopping = False
        self._peers = Peers(options, context)
        self._intake = Intake(options, self._peers)
        self.endpoint = Endpoint(context.name, options)
        self.listening, self.sockets = self.endpoint.listening, self.endpoint.sockets

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Serve until told to stop; then answer what is under way and return."""
        web = await asyncio.to_thread(_aiohttp.web)
        self._deliver, self._web = deliver, web
        server = _aiohttp.server(web, self._handle, self._peers, self.endpoint.coming, self._options.idle_seconds)
        runner = web.ServerRunner(server, shutdown_timeout=20.0)
        await runner.setup()
        try:
            await self.endpoint.open(server)
            await stop.wait()
            self._leaving = True
            await self.endpoint.leave(lambda: server.connections)
            self._stopping = True
        except asyncio.CancelledError:
            await server.shutdown(0.1)  # the deadline: else it would wait 40 seconds for what is under way
            raise
        finally:
            self.endpoint.close()
            await runner.cleanup()

    # --- one request ---

    async def _handle(self, request: BaseRequest) -> Response:
        given = request.headers.get("x-correlation-id", "")
        correlation = given if _CORRELATION.fullmatch(given) else os.urandom(16).hex()
        try:
            response = await self._answer(request)
        except BodyError as error:
            response = self._error(error.status, str(error))
        except Full as full:
            response = self._error(429, str(full))
            response.headers["Retry-After"] = str(max(1, round(full.retry_after)))
        finally:
            self._intake.release(request)
        if self._leaving:
            response.force_close()  # who sends many requests over a connection learns that we stop
        response.headers["x-correlation-id"] = correlation
        # Clients of Elasticsearch refuse to talk to a server without it.
        response.headers["X-Elastic-Product"] = "Elasticsearch"
        if response.status >= 300:
            self._context.count("http_errors", 1, {"input": self._context.name, "status": str(response.status)})
        return response

    async def _answer(self, request: BaseRequest) -> Response:
        if self._stopping:
            response = self._error(503, "this daemon stops; send the request again")
            response.headers.update(_RETRY_AFTER)
            return response
        if self._credentials and not known(request.headers, self._credentials):
            response = self._error(401, "a user, token or API key is wanted")
            response.headers["WWW-Authenticate"] = 'Basic realm="aiologs", charset="UTF-8"'
            return response
        if request.method in {"GET", "HEAD"}:
            await asyncio.sleep(_PAUSE)
            return self._greet(request)
        if request.method not in {"POST", "PUT"}:
            response = self._error(405, f"{request.method}: send records with POST or PUT")
            response.headers["Allow"] = "POST, PUT, GET, HEAD"
            return response
        return await self._take(request, await self._intake.read(request))

    def _greet(self, request: BaseRequest) -> Response:
        """Answer what clients of Elasticsearch ask first, and what a load balancer looks at."""
        if request.path in {"/", "/_license"}:
            return self._json(200, orjson.dumps(_GREETINGS[request.path]))
        return self._error(404, "nothing is here; send records with POST or PUT")

    async def _take(self, request: BaseRequest, data: bytes) -> Response:
        path, kind, started = request.path.rstrip("/"), request.content_type.lower(), time.monotonic()
        key = request.headers.get("Idempotency-Key", "")
        body, batch, outcome = await self._intake.work(len(data), self._parsed, path, kind, key, data)
        del data  # what was made of it is enough to hold
        if batch:
            outcome = await self._deliver(batch, wait=False)
        if path.endswith("/_bulk"):
            took = round((time.monotonic() - started) * 1000)
            return self._json(200, _bodies.bulk_answer(body, dict(outcome.refused), took))
        if path.endswith("/v1/logs"):
            answer = _otlp.answer(kind, [reason for _, reason in outcome.refused])
            return self._response(body=answer, content_type=kind)
        return self._told(body.count() - len(outcome.refused) if batch else 0, outcome)

    def _parsed(self, path: str, kind: str, key: str, data: bytes) -> tuple[Body, Batch | None, Outcome]:
        """A body, its records, None where none is to be delivered, and why; raises `BodyError`."""
        most = self._options.max_records
        if path.endswith("/_bulk"):
            body = _bodies.bulk(data, path.removesuffix("/_bulk").strip("/"), most)
        elif path.endswith("/v1/logs"):
            body = _otlp.records(kind, data, most)
        else:
            if self._options.compatible == "logstash" and not _bodies.is_known(kind):
                kind = "text/plain"  # as Logstash takes what it has no codec for
            body = _bodies.split(kind, data, most, text=self._context.decode != "json")
        if not body.block:
            return body, None, Outcome()
        if body.lines() > most:
            raise TooMany(most)
        batch = Batch(self._context.name, body.block, self._identity, ends=body.ends, refuse=self._refuse)
        records = batch.records()
        by_record = path.endswith(("/_bulk", "/v1/logs"))
        if self._decoder and not by_record and (bad := _undecodable(self._decoder, records)):
            return body, None, Outcome(bad)
        batch.ids = self._ids(key, body, records)
        return body, batch, Outcome()

    def _ids(self, key: str, body: Body, records: list[bytes]) -> list[str]:
        if self._options.identity == "client" and _KEY.fullmatch(key):
            named = blake2b(key.encode(), digest_size=12).hexdigest()
            return [f"{named}-{n}" for n in range(len(records))]
        ids = document_ids(records, self._options.identity, Occurrences(len(records)))
        if body.ids is None or self._options.identity != "client":
            return ids
        return [given or made for given, made in zip(body.ids, ids, strict=True)]

    # --- answers ---

    def _told(self, stored: int, outcome: Outcome) -> Response:
        if self._options.compatible == "logstash":
            return self._response(text="ok")
        if not outcome.refused:
            return self._json(200, orjson.dumps({"stored": stored}))
        errors = [{"line": n + 1, "reason": reason} for n, reason in outcome.refused]
        return self._json(400, orjson.dumps({"stored": stored, "errors": errors}))

    def _error(self, status: int, message: str) -> Response:
        return self._json(status, orjson.dumps({"error": message}))

    def _json(self, status: int, body: bytes) -> Response:
        return self._response(status=status, body=body, content_type="application/json")

    def _response(self, **parts: Any) -> Response:
        response: Response = self._web.Response(**parts)
        return response


def _decoder(name: str) -> Decoder:
    """The decoder of this name, as it is without options."""
    return cast("Decoder", registry.find("stage", name)(registry.options("stage", name)()))


def _undecodable(decoder: Decoder, records: list[bytes]) -> list[Refusal]:
    """The records that can't be decoded, and why; blank ones don't count."""
    found = []
    for n, record in enumerate(records):
        try:
            decoder.decode([record] if record.strip() else [])
        except Exception as error:  # noqa: BLE001 - as the chain takes whatever a decoder raises
            found.append(Refusal(n, f"{type(error).__name__}: {error}"))
    return found


_GREETINGS = {
    # What a client of Elasticsearch looks at before it sends; the version is that whose bulk requests are understood.
    "/": {
        "name": "aiologs",
        "cluster_name": "aiologs",
        "cluster_uuid": "_na_",
        "version": {"number": "9.2.0", "build_flavor": "default", "lucene_version": "10.3.1"},
        "tagline": "You Know, for Search",
    },
    "/_license": {"license": {"status": "active", "type": "basic", "mode": "basic"}},
}

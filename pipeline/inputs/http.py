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
| 503 | the daemon stops: send it again, to another one or after `Retry-After` seconds |

A client that sends a request again, because the answer was lost, makes no second documents where it names the request
(`Idempotency-Key`), gives ids (bulk requests, `@metadata._id`) or its records carry a time; see `identity`.
Every answer carries `x-correlation-id`: the client's own, or one that was made.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import socket
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import orjson
from pydantic import BaseModel, Field, SecretStr

from pipeline.contract import Batch, Context, Deliver, Full, Outcome
from pipeline.inputs import _aiohttp, _bodies, _otlp
from pipeline.inputs._bodies import Body, BodyError
from pipeline.inputs._buffering import Buffering
from pipeline.inputs._ids import DESCRIPTION, Identity, Occurrences, document_ids
from pipeline.inputs._server import ADDRESS, listen
from pipeline.tls import TLS

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, Response

log = logging.getLogger("aiologs.input.http")

_CORRELATION = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_RETRY_AFTER = {"Retry-After": "1"}


class Auth(BaseModel, extra="forbid", frozen=True):
    """Who may send; any one of these is enough."""

    basic: dict[str, SecretStr] = Field(default={}, description="Users and their passwords (HTTP Basic).")
    bearer: list[SecretStr] = Field(default=[], description="Tokens (`Authorization: Bearer …`).")
    api_keys: list[SecretStr] = Field(
        default=[],
        description="Keys (`Authorization: ApiKey …`, as Elasticsearch's clients send them, or `x-api-key`).",
    )

    def credentials(self) -> list[bytes]:
        """What a client may send, as `scheme credential`."""
        basic = [
            base64.b64encode(f"{user}:{word.get_secret_value()}".encode()).decode() for user, word in self.basic.items()
        ]
        return [
            *(f"basic {text}".encode() for text in basic),
            *(f"bearer {token.get_secret_value()}".encode() for token in self.bearer),
            *(f"apikey {key.get_secret_value()}".encode() for key in self.api_keys),
        ]


class Http:
    """A server for records."""

    class Options(Buffering):
        """The options of the input."""

        listen: str = Field(pattern=ADDRESS, description="Address and port; `:8080` listens on all addresses.")
        tls: TLS | None = Field(default=None, description="Speak TLS, with this certificate.")
        auth: Auth = Field(default=Auth(), description="Who may send; empty: everybody who reaches the port.")
        malformed: Literal["refuse", "set_aside"] = Field(
            default="refuse",
            description="Records that can't be processed: answer 400 and name them, or set them aside and answer 200, "
            "as always with `buffer: disk`.",
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
        connections: int = Field(default=1000, ge=1, description="Connections at once; more are closed at once.")
        body_seconds: float = Field(default=30.0, gt=0, description="How long a client may take to send a body.")
        idle_seconds: float = Field(default=75.0, gt=0, description="How long a connection may stay without a request.")

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self._credentials = options.auth.credentials()
        self._identity = f"http-{uuid4().hex[:16]}"
        told = options.compatible is None and options.buffer == "memory"
        self._refuse = options.malformed == "refuse" and told
        self._stopping = False
        self._held = 0
        self._sizes: dict[int, int] = {}
        # Each takes the memory of the largest body; more at once would be no faster.
        self._inflating = asyncio.Semaphore(2)
        self.listening = asyncio.Event()
        self.ports: list[int] = []
        """Where it listens, once it does."""
        self.sockets: list[socket.socket] = []
        """See `contract.Input`."""

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Serve until told to stop; then answer what is under way and return."""
        web, options = await asyncio.to_thread(_aiohttp.web), self._options
        self._deliver, self._web = deliver, web
        server = _aiohttp.server(web, self._handle, connections=options.connections, idle_seconds=options.idle_seconds)
        runner = web.ServerRunner(server, shutdown_timeout=20.0)
        await runner.setup()
        servers: list[asyncio.Server] = []
        try:
            servers = await listen(self._context.name, self._options, server, self.sockets)
            self.sockets = [sock for each in servers for sock in each.sockets]
            self.ports = [each.getsockname()[1] for each in self.sockets]
            self.listening.set()
            await stop.wait()
            self._stopping = True
        except asyncio.CancelledError:
            await server.shutdown(0.1)  # the deadline: else it would wait 40 seconds for what is under way
            raise
        finally:
            for each in servers:
                each.close()
            await runner.cleanup()

    # --- one request ---

    async def _handle(self, request: BaseRequest) -> Response:
        given = request.headers.get("x-correlation-id", "")
        correlation = given if _CORRELATION.fullmatch(given) else uuid4().hex
        try:
            response = await self._answer(request)
        except BodyError as error:
            response = self._error(error.status, str(error))
        except Full as full:
            response = self._error(429, str(full))
            response.headers["Retry-After"] = str(max(1, round(full.retry_after)))
        finally:
            self._held -= self._sizes.pop(id(request), 0)
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
        if self._credentials and not self._known(request):
            response = self._error(401, "a user, token or API key is wanted")
            response.headers["WWW-Authenticate"] = 'Basic realm="aiologs", charset="UTF-8"'
            return response
        if request.method in {"GET", "HEAD"}:
            await asyncio.sleep(0)  # nobody else waits for a client that sends thousands of these
            return self._greet(request)
        if request.method not in {"POST", "PUT"}:
            response = self._error(405, f"{request.method}: send records with POST or PUT")
            response.headers["Allow"] = "POST, PUT, GET, HEAD"
            return response
        return await self._take(request, await self._read(request))

    def _known(self, request: BaseRequest) -> bool:
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        offered = [f"{scheme.lower()} {credential.strip()}".encode()]
        if key := request.headers.get("x-api-key"):
            offered.append(f"apikey {key}".encode())
        # All are compared, in constant time, so that how long it takes says nothing about them.
        return sum(hmac.compare_digest(one, known) for one in offered for known in self._credentials) > 0

    def _greet(self, request: BaseRequest) -> Response:
        """Answer what clients of Elasticsearch ask first, and what a load balancer looks at."""
        if request.path in {"/", "/_license"}:
            return self._json(200, orjson.dumps(_GREETINGS[request.path]))
        return self._error(404, "nothing is here; send records with POST or PUT")

    async def _read(self, request: BaseRequest) -> bytes:
        """The body, inflated; raises `BodyError` and `Full`."""
        data, encoding = await self._sent(request), request.headers.get("Content-Encoding", "")
        if not encoding:
            return data
        async with self._inflating:
            if request.transport is None:
                raise BodyError(408, "the client is gone")
            limits = self._options.max_body_bytes, self._options.max_ratio
            inflated = await asyncio.to_thread(_inflated, data, encoding, *limits)
        if isinstance(inflated, bytes):
            self._hold(request, len(inflated))
            return inflated
        raise BodyError(*inflated)

    async def _sent(self, request: BaseRequest) -> bytes:
        """The body as it was sent."""
        options, parts, size = self._options, [], 0
        if (request.content_length or 0) > options.max_body_bytes:
            raise BodyError(413, f"the body is larger than {options.max_body_bytes} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue":
            # curl waits for this with bodies above 1 MiB, for a second.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the response has not begun
        try:
            async with asyncio.timeout(options.body_seconds):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    self._hold(request, len(chunk))
                    if size > options.max_body_bytes:
                        raise BodyError(413, f"the body is larger than {options.max_body_bytes} bytes")
                    parts.append(chunk)
        except TimeoutError:
            raise BodyError(408, f"the body took longer than {options.body_seconds:g} s") from None
        except (ConnectionError, self._web.RequestPayloadError) as error:
            error.__traceback__ = None  # the stream keeps the error, which would keep this frame and the body
            raise BodyError(400, f"the body ends in the middle or is not chunked as it should: {error}") from None
        return b"".join(parts)

    def _hold(self, request: BaseRequest, size: int) -> None:
        """Account for bytes of a request until it is answered; raises `Full`. One request alone may be larger."""
        own = self._sizes[id(request)] = self._sizes.get(id(request), 0) + size
        self._held += size
        if self._options.in_flight < self._held != own:
            raise Full(1.0)

    async def _take(self, request: BaseRequest, data: bytes) -> Response:
        path, kind = request.path.rstrip("/"), request.content_type.lower()
        started = time.monotonic()
        if path.endswith("/_bulk"):
            body = _bodies.bulk(data, path.removesuffix("/_bulk").strip("/"))
            outcome = await self._store(request, body)
            reasons = dict(outcome.refused)
            return self._json(200, _bodies.bulk_answer(body, reasons, round((time.monotonic() - started) * 1000)))
        if path.endswith("/v1/logs"):
            body = _otlp.records(kind, data)
            outcome = await self._store(request, body)
            answer = _otlp.answer(kind, [reason for _, reason in outcome.refused])
            return self._response(body=answer, content_type=kind)
        if self._options.compatible == "logstash" and not _bodies.is_known(kind):
            kind = "text/plain"  # as Logstash takes what it has no codec for
        body = _bodies.split(kind, data, text=self._context.decode != "json")
        return self._told(body, await self._store(request, body))

    async def _store(self, request: BaseRequest, body: Body) -> Outcome:
        if not body.block:
            return Outcome()
        if body.lines() > self._options.max_records:
            raise BodyError(413, f"the body has more than {self._options.max_records} records")
        batch = Batch(
            input=self._context.name,
            block=body.block,
            identity=self._identity,
            ends=body.ends,
            refuse=self._refuse,
        )
        records = batch.records()
        batch.ids = self._ids(request, body, records)
        return await self._deliver(batch, wait=False)

    def _ids(self, request: BaseRequest, body: Body, records: list[bytes]) -> list[str]:
        key = request.headers.get("Idempotency-Key", "")
        if self._options.identity == "client" and _KEY.fullmatch(key):
            named = blake2b(key.encode(), digest_size=12).hexdigest()
            return [f"{named}-{n}" for n in range(len(records))]
        ids = document_ids(records, self._options.identity, Occurrences(len(records)))
        if body.ids is None or self._options.identity != "client":
            return ids
        return [given or made for given, made in zip(body.ids, ids, strict=True)]

    # --- answers ---

    def _told(self, body: Body, outcome: Outcome) -> Response:
        if self._options.compatible == "logstash":
            return self._response(text="ok")
        if not outcome.refused:
            return self._json(200, orjson.dumps({"stored": body.count()}))
        errors = [{"line": n + 1, "reason": reason} for n, reason in outcome.refused]
        return self._json(400, orjson.dumps({"stored": body.count() - len(errors), "errors": errors}))

    def _error(self, status: int, message: str) -> Response:
        return self._json(status, orjson.dumps({"error": message}))

    def _json(self, status: int, body: bytes) -> Response:
        return self._response(status=status, body=body, content_type="application/json")

    def _response(self, **parts: Any) -> Response:
        response: Response = self._web.Response(**parts)
        return response


def _inflated(data: bytes, encoding: str, limit: int, ratio: int) -> bytes | tuple[int, str]:
    """See `_bodies.inflate`; an error as its parts, since its traceback would keep the body for longer."""
    try:
        return _bodies.inflate(data, encoding, limit, ratio)
    except BodyError as error:
        return error.status, str(error)


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

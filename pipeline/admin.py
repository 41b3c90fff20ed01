"""What an operator, Prometheus and Kubernetes ask over HTTP: /healthz, /readyz, /metrics and /status.

- `/healthz`: 200 while the process lives and its event loop answers, whatever the outputs do.
- `/readyz`: 200 when records may be sent here; else 503 with the reasons, one a line.
- `/metrics`: Prometheus text, or OpenMetrics for those who ask for it.
- `/status`: what there is and how it fares, as JSON.

The HTTP server is these few lines, since importing aiohttp for it would take longer than all the rest of the start.
It reads one request a connection (GET or HEAD, no body, a head of at most 8 KiB), answers and closes, all within 5
seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from pipeline.address import refused, split
from pipeline.contract import Unusable
from pipeline.metrics import Metrics

log = logging.getLogger("aiologs.admin")

HEAD_BYTES = 8192
SECONDS = 5.0
"""How long a connection may last."""

_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Answer(NamedTuple):
    """The answer to a request."""

    status: HTTPStatus
    body: bytes
    type: str = _TEXT
    headers: Mapping[str, str] = {}


class Admin:
    """The server. `address` is HOST:PORT, [IPv6]:PORT or :PORT; None: there is none."""

    def __init__(
        self,
        address: str | None,
        metrics: Metrics,
        status: Callable[[], dict[str, Any]],
        ready: Callable[[], list[str]],
    ) -> None:
        self._address, self._metrics, self._status, self._ready = address, metrics, status, ready
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        """The port that it listens on: for port 0 the system chooses one."""

    async def start(self) -> None:
        """Listen; raises `Unusable` where the address can't be had."""
        if self._address is None:
            return
        try:
            self._server = await asyncio.start_server(self._connected, *split(self._address), limit=HEAD_BYTES)
        except OSError as error:
            reason = refused(error)
            raise Unusable(f"admin: {self._address}: {reason}; `admin:` takes another address, or null") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and end what is under way."""
        if self._server:
            self._server.close()
            for task in self._connections:
                task.cancel()
            await self._server.wait_closed()

    def answer(self, path: str, accept: str = "") -> Answer:
        """The answer to GET."""
        match path:
            case "/healthz":
                return Answer(HTTPStatus.OK, b"ok\n")
            case "/readyz":
                reasons = self._ready()
                status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
                return Answer(status, "".join(f"{reason}\n" for reason in reasons or ["ready"]).encode())
            case "/metrics":
                wanted = "application/openmetrics-text" in accept
                return Answer(
                    HTTPStatus.OK, self._metrics.render(openmetrics=wanted), _OPENMETRICS if wanted else _PROMETHEUS
                )
            case "/status":
                body = orjson.dumps(self._status(), default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                return Answer(HTTPStatus.OK, body, "application/json")
            case _:
                return Answer(HTTPStatus.NOT_FOUND, b"there are /healthz, /readyz, /metrics and /status\n")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101 - a task runs this
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await self._serve(reader, writer)
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()  # does nothing where it is closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_body = True
        try:
            method, path, accept = _request(await reader.readuntil(b"\r\n\r\n"))
            with_body = method != "HEAD"
            answer = self._answer(method, path, accept)
        except asyncio.LimitOverrunError:
            answer = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"")
        except (asyncio.IncompleteReadError, ValueError):
            answer = Answer(HTTPStatus.BAD_REQUEST, b"")
        writer.write(_bytes(answer, with_body=with_body))
        await writer.drain()

    def _answer(self, method: str, path: str, accept: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"", headers={"Allow": "GET, HEAD"})
        try:
            return self.answer(path, accept)
        except Exception:
            log.exception("no answer to %s", path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"")


def _request(head: bytes) -> tuple[str, str, str]:
    """Method, path without the query, and the header Accept; raises `ValueError` for what is no request."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1.") or not method.isalpha() or not target.startswith("/"):
        raise ValueError(first)
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
    return method, target.partition("?")[0], headers.get("accept", "")


def _bytes(answer: Answer, *, with_body: bool) -> bytes:
    headers = {
        "Content-Type": answer.type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        **answer.headers,
    }
    lines = [
        f"HTTP/1.1 {answer.status} {answer.status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (answer.body if with_body else b"")

"""The server of aiohttp as the HTTP input uses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableSet
from typing import Any

from pipeline.inputs._peers import Peers, address_of

log = logging.getLogger("aiologs.input.http.server")


def web() -> Any:
    """The server part of aiohttp, which takes a third of a second to import: to be called in a thread.

    The package is imported first: an import of a module in it does not wait for another thread that is importing the
    package, as the Elasticsearch output does at the same time, and both would fail.
    """
    import aiohttp  # noqa: F401, PLC0415
    from aiohttp import web  # noqa: PLC0415

    return web


def server(web: Any, handler: Any, peers: Peers, coming: MutableSet[asyncio.Protocol], idle_seconds: float) -> Any:
    """An aiohttp server that takes the connections that `peers` admits, and leaves inflating bodies to `handler`.

    A connection that is made leaves `coming`.
    """

    class Handler(web.RequestHandler):  # type: ignore[misc]
        __slots__ = ("__weakref__", "address")

        def connection_made(self, transport: asyncio.Transport) -> None:
            coming.discard(self)
            address = address_of(transport)
            if peers.admit(address):
                self.address = address
                super().connection_made(transport)
            else:
                self.address = ""
                transport.abort()

        def connection_lost(self, exc: BaseException | None) -> None:
            if self.address:
                peers.leave(self.address)
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # What is no HTTP is kept as an exception, whose traceback has the frame, which has the bytes and again
            # the exception: they would stay until cycles are looked for, which is seldom.
            for message, _ in self._messages:
                if error := getattr(message, "exc", None):
                    error.__traceback__ = None

    class Limited(web.Server):  # type: ignore[misc]
        def __call__(self) -> asyncio.Protocol:
            return Handler(self, loop=self._loop, **self._kwargs)

    log.addFilter(_ours)
    return Limited(handler, keepalive_timeout=idle_seconds, auto_decompress=False, access_log=None, logger=log)


def _ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp logs is an error of ours: what no client sends is answered with 400, and no traceback."""
    from aiohttp.http_exceptions import HttpProcessingError  # noqa: PLC0415 - see web()

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

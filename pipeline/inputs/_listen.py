"""Listening for clients: at which address, with TLS or without."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection
from typing import Any, Protocol
from weakref import WeakSet

from pipeline.address import refused, split
from pipeline.contract import Unusable
from pipeline.tls import HANDSHAKE_SECONDS, TLS

log = logging.getLogger("aiologs.inputs")

_GRACE, _LOOK = 0.5, 0.01
"""Seconds for which a listener that ends takes what clients send that can't know of it yet, and looks for them."""


class Listens(Protocol):
    """Options of what listens."""

    listen: str
    tls: TLS | None


class Endpoint:
    """Where an input listens, and who comes there."""

    def __init__(self, name: str, options: Listens) -> None:
        self._name, self._options = name, options
        self.listening = asyncio.Event()
        """See `contract.Input`, as for `sockets`."""
        self.sockets: list[socket.socket] = []
        self.ports: list[int] = []
        """Where it listens, once it does."""
        self.coming = WeakSet[asyncio.Protocol]()
        """Connections that were accepted and not yet made: a TLS handshake may be under way. Who is made leaves it."""
        self._servers: list[asyncio.Server] = []

    async def open(self, connect: Callable[[], asyncio.Protocol]) -> None:
        """Listen: on the sockets that were given, else on new ones; raises `Unusable`."""
        loop, options, (host, port) = asyncio.get_running_loop(), self._options, split(self._options.listen)
        try:
            tls = options.tls.context() if options.tls else None
        except Unusable as error:
            raise Unusable(f"input {self._name}: {error}") from error
        more: dict[str, Any] = {"backlog": 512, "ssl": tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS if tls else None}

        def accepted() -> asyncio.Protocol:
            self.coming.add(protocol := connect())
            return protocol

        try:
            if self.sockets:
                self._servers = [await loop.create_server(accepted, sock=each, **more) for each in self.sockets]
            else:
                self._servers = [await loop.create_server(accepted, host, port, **more)]
        except OSError as error:
            raise Unusable(f"input {self._name}: can't listen on {options.listen}: {refused(error)}") from error
        self.sockets[:] = [sock for each in self._servers for sock in each.sockets]
        self.ports = [each.getsockname()[1] for each in self.sockets]
        self.listening.set()
        log.info("input %s: listening on %s", self._name, options.listen)

    def close(self) -> None:
        """Accept nobody more."""
        for each in self._servers:
            each.close()

    async def leave(self, connections: Callable[[], Collection[object]]) -> None:
        """Accept nobody more, and return when those who came are gone, or had the time to send what they came with."""
        self.close()
        for _ in range(round(_GRACE / _LOOK)):
            if not self.coming and not connections():
                return
            await asyncio.sleep(_LOOK)

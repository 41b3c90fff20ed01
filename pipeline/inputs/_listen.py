"""Listening for clients: at which address, with TLS or without."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

from pipeline.contract import Unusable
from pipeline.tls import HANDSHAKE_SECONDS, TLS

log = logging.getLogger("aiologs.inputs")

ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*):\d{1,5}$"
"""`host:port`, `[::1]:port`, `:port`: all addresses of this host."""


def split(address: str) -> tuple[str | None, int]:
    """The host, None for all addresses, and the port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or None, int(port)


class Listens(Protocol):
    """Options of what listens."""

    listen: str
    tls: TLS | None


async def listen(
    name: str, options: Listens, connect: Callable[[], asyncio.Protocol], given: list[socket.socket]
) -> list[asyncio.Server]:
    """Listen for the input of this name: on the sockets that are given, else on new ones; raises `Unusable`."""
    loop, (host, port) = asyncio.get_running_loop(), split(options.listen)
    tls = options.tls.context() if options.tls else None
    more: dict[str, Any] = {"backlog": 512, "ssl": tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS if tls else None}
    try:
        if given:
            servers = [await loop.create_server(connect, sock=each, **more) for each in given]
        else:
            servers = [await loop.create_server(connect, host, port, **more)]
    except OSError as error:
        raise Unusable(f"input {name}: can't listen on {options.listen}: {error.strerror}") from error
    log.info("input %s: listening on %s", name, options.listen)
    return servers

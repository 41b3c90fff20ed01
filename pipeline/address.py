"""Addresses to listen on: `host:port`, `[::1]:port`, or `:port` for all addresses of this host."""

from __future__ import annotations

import errno
import os
import socket
from typing import Annotated

from pydantic import AfterValidator, Field

_FORM = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*):\d{1,5}$"
_LAST = 65_535
_HINTS = {
    errno.EACCES: " (a port below 1024 is for root, or takes the capability CAP_NET_BIND_SERVICE)",
    errno.EADDRINUSE: " (by which program, `ss -lntup` says)",
    errno.EADDRNOTAVAIL: " (it is none of this host's own)",
}


def _checked(address: str) -> str:
    if (port := split(address)[1]) > _LAST:
        raise ValueError(f"there is no port {port}: the last one is {_LAST}")
    return address


def split(address: str) -> tuple[str | None, int]:
    """The host, None for all addresses, and the port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or None, int(port)


def refused(error: OSError) -> str:
    """Why an address can't be had, without asyncio's repetition of it."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno) + _HINTS.get(error.errno, "")


Address = Annotated[str, Field(pattern=_FORM), AfterValidator(_checked)]
"""The type of an option."""

"""Who has how much of a listener's room: no address, however many connections it opens, gets all of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from pydantic import BaseModel, Field

from pipeline.contract import Context, Full

log = logging.getLogger("aiologs.inputs")


class Room(BaseModel, extra="forbid"):
    """Options: how many clients there may be."""

    connections: int = Field(default=1000, ge=1, description="Connections at once; more are closed at once.")
    peer_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="The part of `connections` and of `in_flight` that one address may have, so that there is room for "
        "others. 1: all of it, as where all clients come through one proxy.",
    )


class Limits(Protocol):
    """`Room` and the bytes that may be in flight."""

    connections: int
    in_flight: int
    peer_share: float


class PeerFull(Full):
    """One address has as many bytes in flight as it may."""

    def __init__(self, address: str) -> None:
        super().__init__(1.0)
        self.args = (f"{address} has as many bytes in flight as one address may (see peer_share); try again in 1 s",)


class Peers:
    """Connections and bytes in flight, by address."""

    def __init__(self, options: Limits, context: Context) -> None:
        self._options, self._context = options, context
        self._connections, self._bytes = Counter[str](), Counter[str]()
        self._most = max(1, int(options.connections * options.peer_share))
        self._most_bytes = int(options.in_flight * options.peer_share)

    def admit(self, address: str) -> bool:
        """Take on a connection; False: there are too many, or too many of this address."""
        name = self._context.name
        if self._connections.total() >= self._options.connections:
            self._context.count("connection_errors", 1, {"input": name, "reason": "too_many"})
            log.warning("input %s: there are %d connections: more are closed", name, self._options.connections)
            return False
        if self._connections[address] >= self._most:
            self._context.count("connection_errors", 1, {"input": name, "reason": "too_many_of_address"})
            log.warning(
                "input %s: %s has %d connections, as many as one address may have (see peer_share): more are closed",
                name, address, self._most,
            )  # fmt: skip
            return False
        self._connections[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection is closed."""
        _add(self._connections, address, -1)

    def hold(self, address: str, change: int) -> None:
        """Account for bytes that came (positive) or that are done with (negative)."""
        _add(self._bytes, address, change)

    def full(self, address: str, own: int) -> bool:
        """Whether an address holds as many bytes as it may; `own` of them alone may be more, since one request or
        window may.
        """
        return self._most_bytes <= self._bytes[address] != own

    def hold_back(self, address: str) -> None:
        """An address has to wait since it is full: an operator should know."""
        self._context.count("peers_held_back", 1, {"input": self._context.name})
        log.warning(
            "input %s: %s has %d bytes in flight, and one address may have %d (see peer_share): it has to wait",
            self._context.name, address, self._bytes[address], self._most_bytes,
        )  # fmt: skip


def _add(counter: Counter[str], address: str, change: int) -> None:
    counter[address] += change
    if not counter[address]:
        del counter[address]


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """Where the other end of a connection is."""
    peer = transport.get_extra_info("peername") if transport else None
    return str(peer[0]) if peer else "?"

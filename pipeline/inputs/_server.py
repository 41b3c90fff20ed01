"""What listeners over TCP share: their options, their connections, and the bytes that these may hold together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import cast

from pydantic import Field

from pipeline.address import Address
from pipeline.contract import Context
from pipeline.inputs._listen import Endpoint
from pipeline.inputs._peers import Peers, Room, address_of
from pipeline.tls import TLS

log = logging.getLogger("aiologs.inputs")

_LINGER = 1.0
_WATCH = 1.0


class Listener(Room):
    """Options of whatever listens."""

    listen: Address = Field(description="Address and port; `:5044` listens on all addresses.")
    tls: TLS | None = Field(default=None, description="Speak TLS, with this certificate.")
    in_flight: int = Field(
        default=64 << 20, ge=1, description="Bytes of all connections that are read and not yet stored."
    )


class Connection(asyncio.Protocol, ABC):
    """One client. Its task runs `serve`, which returns when there is nothing more to do; then it is closed."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ended = False
        """Nothing more is read or begun: the client is gone, or was told off, or we stop."""
        self.eof = False
        """The client has sent all that it wanted to."""
        self.changed = asyncio.Event()
        """Set when `serve` has something new to see."""
        self.lost = asyncio.Event()
        self.last = 0.0
        """When the client last sent something."""
        self.held = 0
        """Bytes that count against the room of the server."""
        self._reading, self._closing, self._told = True, False, False
        self._writable = asyncio.Event()
        self._writable.set()

    # --- for the subclasses ---

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Take bytes; `advance` is called afterwards."""

    @abstractmethod
    def advance(self) -> None:
        """Do what can be done with the bytes received, and pause or resume reading."""

    @abstractmethod
    async def serve(self) -> None:
        """Until nothing more comes and everything that came is dealt with."""

    @abstractmethod
    def give_up(self) -> None:
        """Give back the bytes held, though they are incomplete: without that nobody would get on."""

    @abstractmethod
    def check(self, now: float) -> None:
        """About once a second: see whether the client takes too long."""

    def leave(self) -> None:
        """We stop, and close it in a moment. What is not acknowledged the client will send again."""
        self.end()

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.address = cast("asyncio.Transport", transport), address_of(transport)
        self.last = asyncio.get_running_loop().time()
        if self.server.admit(self):
            self.server.spawn(self._run())
            if self.server.leaving:
                self.leave()
        else:
            self.ended = True
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self.ended:
            self.last = asyncio.get_running_loop().time()
            self.received(data)
            self.advance()

    def eof_received(self) -> bool:
        self.eof = True
        self.changed.set()
        return not self._closing  # the client may still read its acknowledgements

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self.end()
        self.lost.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- what subclasses use ---

    def end(self) -> None:
        """Read nothing more; what is under way is finished."""
        self.ended = True
        self.changed.set()
        if not self._closing:
            self.reading(on=False)

    def fail(self, reason: str, message: object) -> None:
        """End it for a reason that an operator should know."""
        if not self.ended:
            self.server.count("connection_errors", reason=reason)
            peer = self.transport.get_extra_info("peername")
            log.warning("input %s: connection from %s closed: %s", self.server.context.name, peer, message)
            self.end()

    def reading(self, *, on: bool) -> None:
        """Pause or resume reading."""
        if on != self._reading and not self.eof and not self.transport.is_closing():
            self._reading = on
            if on:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def hold(self, size: int) -> None:
        """Account for the bytes that this connection holds now."""
        self.server.peers.hold(self.address, size - self.held)
        self.server.hold(size - self.held)
        self.held = size

    def room(self) -> bool:
        """Whether there is room for more bytes; if not, reading is paused, and `advance` is called when there is."""
        if self.server.has_room(self):
            return True
        self.server.waiting.add(self)
        self.reading(on=False)
        return False

    async def write(self, data: bytes) -> None:
        """Send; waits while the client does not read what was sent before."""
        if not self.transport.is_closing():
            self.transport.write(data)
            await self._writable.wait()

    def write_eof(self) -> bool:
        """Tell the client that nothing more is sent, and go on reading; False: it knows, or can't be told with TLS."""
        if self._told or self.eof or self.transport.is_closing() or not self.transport.can_write_eof():
            return False
        self._told = True
        self.transport.write_eof()
        return True

    @property
    def stuck(self) -> bool:
        """Whether the client does not read what it was sent."""
        return not self._writable.is_set()

    async def _run(self) -> None:
        try:
            await self.serve()
            await self._close()
        finally:
            self.transport.abort()
            self.hold(0)
            self.server.forget(self)

    async def _close(self) -> None:
        """Close so that what was written arrives.

        Bytes that nobody reads make the kernel answer with a reset, which throws away what the client has not read
        yet: its last acknowledgement. So what still comes is read and discarded for a moment.
        """
        self._closing = True
        if self.write_eof():
            self.reading(on=True)
        else:
            self.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await self.lost.wait()


class Server:
    """Listens, and keeps its connections within their bounds."""

    _group: asyncio.TaskGroup

    def __init__(self, options: Listener, context: Context) -> None:
        self.options, self.context = options, context
        self.endpoint = Endpoint(context.name, options)
        self.connections: set[Connection] = set()
        self.peers = Peers(options, context)
        self.waiting: set[Connection] = set()
        """Connections that do not read because the room is full."""
        self.busy = 0
        """How many deliveries are under way: as long as there are some, there will be room."""
        self.leaving = False
        """Nobody else is accepted."""
        self._held = 0
        self._stopping = False

    @property
    def full(self) -> bool:
        """Whether the connections hold as many bytes as they may."""
        return self._held >= self.options.in_flight

    async def run(self, connect: Callable[[], Connection], stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish what is under way. Raises what serving a connection raised."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await self.endpoint.open(connect)
                watch = self.spawn(self._watch())
                try:
                    await stop.wait()
                    self.leaving = True
                    for connection in self.connections:
                        connection.leave()
                    await self.endpoint.leave(lambda: self.connections)
                finally:
                    self._stopping = True
                    self.endpoint.close()
                    watch.cancel()
                    for connection in self.connections:
                        connection.end()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do something that `run` awaits before it returns, and whose error it raises."""
        return self._group.create_task(work)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            now = asyncio.get_running_loop().time()
            for connection in [*self.connections]:
                connection.check(now)

    def admit(self, connection: Connection) -> bool:
        """Take on a connection; False: there are too many, or we stop."""
        self.endpoint.coming.discard(connection)
        if self._stopping:
            return False
        if not self.peers.admit(connection.address):
            return False
        # A peer that vanished without a word is noticed by the kernel's own probes.
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connections.add(connection)
        self._gauge()
        return True

    def forget(self, connection: Connection) -> None:
        """The connection is closed and done with."""
        self.connections.discard(connection)
        self.waiting.discard(connection)
        self.peers.leave(connection.address)
        self._gauge()

    def has_room(self, connection: Connection) -> bool:
        """Whether a connection may hold more. Where nothing is under way that will make room, those give up who hold
        most: of all, or of its address.
        """
        while self.full and not self.busy:
            max(self.connections, key=lambda each: each.held).give_up()
        address = connection.address
        while self.peers.full(address, connection.held) and not self.busy:
            max((each for each in self.connections if each.address == address), key=lambda each: each.held).give_up()
        if self.peers.full(address, connection.held):
            self.peers.hold_back(address)
            return False
        return not self.full

    def hold(self, change: int) -> None:
        """Account for bytes read (positive) or stored (negative); then those that wait have their turn."""
        self._held += change
        if change < 0 and self.waiting:
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        for connection in [*self.waiting]:
            self.waiting.discard(connection)
            connection.advance()

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Add to a counter of this input."""
        self.context.count(name, n, {"input": self.context.name, **labels})

    def _gauge(self) -> None:
        self.context.gauge("connections", len(self.connections), {"input": self.context.name})

"""Receives from Beats, and from whatever else speaks the Lumberjack protocol (versions 1 and 2).

    inputs:
      ship: {type: beats, listen: "0.0.0.0:5044"}
      safe:
        type: beats
        listen: ":5045"
        tls: {certificate: server.crt, key: server.key, ca: clients.crt, client_auth: required}

An event is acknowledged when it is stored, parked or set aside, never before; a long window is acknowledged in parts as
they are stored. While a window is under way, the client hears every five seconds that we are still at work, so that
it neither gives up nor sends twice. A client that was not answered sends again: see `identity` for why that
makes no second document.

Two windows of a connection are under way at once; then, or when all connections together hold `in_flight` bytes,
nothing more is read until something is stored. What no client sends closes the connection, as does a client
that sends nothing for `idle` seconds, or does not complete a window within `window_seconds`; Beats connect again.

`@metadata`, which Beats send for the server, is part of the event. Nothing is added to it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from pydantic import Field

from pipeline.contract import Batch, Context, Deliver
from pipeline.inputs._ids import DESCRIPTION, Identity, Occurrences, document_ids
from pipeline.inputs._server import Connection, Listener, Server
from pipeline.inputs.lumberjack import Limits, Protocol, ProtocolError, Window, acknowledgement

_READ_AHEAD = 2  # windows under way for a connection: what Filebeat's `pipelining: 2` sends before it waits
_KEEP_ALIVE = 5.0  # seconds, as in Logstash; Filebeat gives up after 30
_EMPTY = 100  # windows without events that a client may send in a second; no Beat sends any
_PART = 512 << 10  # bytes delivered, and acknowledged, together


class Beats:
    """Serves the Lumberjack protocol."""

    class Options(Listener):
        """Where to listen, and what clients may ask for."""

        identity: Identity = Field(default="client", description=DESCRIPTION)
        limits: Limits = Field(default=Limits(), description="What one client may send.")
        idle: float = Field(default=60, gt=0, description="Seconds after which a silent connection is closed.")
        window_seconds: float = Field(default=300, gt=0, description="Seconds in which a window must be complete.")

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self.server = Server(options, context)
        self.listening, self.sockets = self.server.endpoint.listening, self.server.endpoint.sockets

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """See `contract.Input`."""
        if not self._context.once:
            await self.server.run(lambda: _Client(self.server, self._options, deliver), stop)


@dataclass(slots=True)
class _UnderWay:
    """A window whose parts are being stored, each with the sequence number that acknowledges it."""

    version: int
    parts: list[tuple[asyncio.Task[None], int]]
    size: int
    """As `Window.held`."""
    partial: bool
    """Whether the client may be told of each part."""


class _Client(Connection):
    """One client: its windows are stored side by side and acknowledged in order."""

    def __init__(self, server: Server, options: Beats.Options, deliver: Deliver) -> None:
        super().__init__(server)
        self._options, self._deliver = options, deliver
        self._protocol = Protocol(options.limits)
        self._windows: deque[_UnderWay] = deque()
        self._stored = 0  # bytes of the windows under way
        self._since: float | None = None  # when the window that is being read began
        self._empty = 0  # windows without events in this second

    def received(self, data: bytes) -> None:
        self._protocol.receive(data)

    def advance(self) -> None:
        """Begin to store complete windows, as long as there is room; read on when there is none left to begin."""
        while not self.ended and len(self._windows) < _READ_AHEAD:
            self._account()
            if not self.room():
                return
            window = self._next_window()
            if window is None:
                self._account()
                self.reading(on=not self.ended and self.room())
                self.changed.set()
                return
            self._store(window)
        self.reading(on=False)

    def give_up(self) -> None:
        self.fail(
            "no_room",
            "all room, or the share of this address, is taken by windows that are not complete; raise in_flight or "
            "peer_share, or send less at once",
        )
        self._protocol = Protocol(self._options.limits)
        self._account()

    def check(self, now: float) -> None:
        self._empty = 0
        if (self._windows and not self.stuck) or self in self.server.waiting:
            self.last, self._since = now, None  # it waits for us
        elif now - self.last > self._options.idle:
            self.fail("timeout", f"nothing was sent or taken for {self._options.idle:g} s")
            if self.stuck:
                self.transport.abort()
        elif self._since is not None and now - self._since > self._options.window_seconds:
            self.fail("timeout", f"a window was not complete after {self._options.window_seconds:g} s")

    async def serve(self) -> None:
        """Acknowledge windows in order, until there are none and none will come."""
        while True:
            self.changed.clear()
            if self._windows:
                window = self._windows[0]
                await self._acknowledge(window)
                self._windows.popleft()
                self._stored -= window.size
                self.server.busy -= 1
                self._account()
                self.advance()
            elif self.ended or (self.eof and self not in self.server.waiting):
                return
            else:
                await self.changed.wait()

    def _next_window(self) -> Window | None:
        try:
            window = self._protocol.next_window()
        except ProtocolError as error:
            self.fail("protocol", error)
            return None
        if window is not None or not self._protocol.unfinished:
            self._since = None
        elif self._since is None:
            self._since = self.last
        return window

    def _store(self, window: Window) -> None:
        """Begin to store the window; `serve` acknowledges it."""
        self._empty += not window.records
        if self._empty > _EMPTY:
            self.fail("protocol", f"more than {_EMPTY} windows without events in a second")
            return
        occurrences = Occurrences(keep=len(window.records))
        ids = document_ids(window.records, self._options.identity, occurrences)
        parts = []
        for begin, end in _parts(window.records):
            batch = self._batch(window.records[begin:end], ids[begin:end])
            parts.append((self.server.spawn(self._put(batch)), window.sequences[end - 1]))
        # Who was told of a part sends the rest again alone: equal records in it would be numbered from 0. And clients
        # of version 1 (logstash-forwarder) take any acknowledgement for that of the whole window.
        partial = window.version == 2 and not occurrences.repeated
        self._windows.append(_UnderWay(window.version, parts, window.held, partial))
        self._stored += window.held
        self.server.busy += 1
        self.changed.set()

    def _batch(self, records: list[bytes], ids: list[str]) -> Batch:
        ends = array("Q", accumulate(map(len, records)))
        return Batch(self.server.context.name, b"".join(records), identity="", ends=ends, ids=ids)

    async def _put(self, batch: Batch) -> None:
        await self._deliver(batch)

    async def _acknowledge(self, window: _UnderWay) -> None:
        last = window.parts[-1] if window.parts else None
        for part in window.parts:
            task, sequence = part
            while not (await asyncio.wait({task}, timeout=_KEEP_ALIVE))[0]:
                if window.version == 2:
                    await self.write(acknowledgement(2, 0))
            task.result()
            if window.partial or part is last:
                await self.write(acknowledgement(window.version, sequence))
        if last is None:
            await self.write(acknowledgement(window.version, 0))
            await asyncio.sleep(0)  # nobody else waits for a client that sends thousands of these

    def _account(self) -> None:
        self.hold(self._protocol.buffered + self._stored)


def _parts(records: list[bytes]) -> Iterator[tuple[int, int]]:
    """Where the parts of a window begin and end."""
    begin = size = 0
    for n, record in enumerate(records):
        if size >= _PART:
            yield begin, n
            begin, size = n, 0
        size += len(record)
    if records:
        yield begin, len(records)

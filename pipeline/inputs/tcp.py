"""Receives lines or counted messages over TCP: syslog, JSON lines, text.

    inputs:
      sys:  {type: tcp, listen: ":5514", decode: syslog}
      apps: {type: tcp, listen: "127.0.0.1:5000"}
      safe: {type: tcp, listen: ":6514", decode: syslog, tls: {certificate: server.crt, key: server.key}}

The protocol knows no acknowledgement: what the client has sent and we have not stored is lost when the daemon is
killed, as with every syslog server. When it stops, or is changed by a reload, it ends its side of the connection, and
takes for half a second what the client sends that can't know of it yet. When delivery is slow, nothing more is read,
and the clients wait; with `buffer: disk` that is only so when the buffer is full, and what is in it outlives the
daemon. The last line of a connection counts also without a newline. `peer_share` bounds the connections of an address,
and the bytes of messages that are not complete; what is complete is taken from all connections in turn.

With `multiline` the lines of a connection become records; one that reaches a limit is counted (`records_cut`), and its
rest is another record. Empty lines are left out of records, too.

Every event has the time of its arrival in `event.created`, unless it brings an object `event` of its own. A syslog time
without a year takes it from there: `timestamp: {reference: event.created}`.

Equal records in a connection are different events; a record that comes again in another connection, as after
python-logstash-async lost one, is the same event where it has a time (see `identity`). That times are fine enough for
this is expected of JSON only: lines of syslog have ids of their own.
"""

from __future__ import annotations

import asyncio

from pydantic import Field

from pipeline.contract import Context, Deliver
from pipeline.inputs import _multiline
from pipeline.inputs._buffering import Buffering
from pipeline.inputs._framing import Framing, Mode
from pipeline.inputs._gather import Gather
from pipeline.inputs._ids import DESCRIPTION, Identity, Occurrences, document_ids
from pipeline.inputs._multiline import Assembler, Multiline, Rules
from pipeline.inputs._server import Connection, Listener, Server

_REMEMBERED = 4096  # contents a connection remembers, to tell equal records apart


class Tcp:
    """Serves streams of messages."""

    class Options(Listener, Buffering):
        """Where to listen, and how messages are told apart."""

        framing: Mode = Field(
            default="auto",
            description="newline: a message a line (or up to a NUL). octet_counting: its length in front (RFC 6587). "
            "auto: each message as it begins; `<length> <` is the beginning of a counted one.",
        )
        max_message: int = Field(
            default=1 << 20, ge=1024, description="Bytes of a message; a longer one is taken in pieces of this size."
        )
        idle: float | None = Field(
            default=None,
            gt=0,
            description="Seconds after which a silent connection is closed; null: never, since syslog clients may "
            "be silent for days and lose what they send into a connection that was closed.",
        )
        identity: Identity = Field(default="client", description=DESCRIPTION)
        multiline: Multiline | None = Field(default=None, description=_multiline.DESCRIPTION)

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self._rules = options.multiline.rules() if options.multiline else None
        self.server = Server(options, context)
        self.listening, self.sockets = self.server.endpoint.listening, self.server.endpoint.sockets

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """See `contract.Input`."""
        if self._context.once:
            return
        server = self.server
        gather = Gather(self._context.name, deliver, server.spawn, self._changed)
        await server.run(lambda: _Client(server, self._options, gather, self._rules), stop)

    def _changed(self, size: int, batches: int) -> None:
        self.server.busy += batches
        self.server.hold(size)


class _Client(Connection):
    """One client; its records go into batches that all clients share."""

    def __init__(self, server: Server, options: Tcp.Options, gather: Gather, rules: Rules | None) -> None:
        super().__init__(server)
        self._lines = Assembler(rules) if rules else None
        self._options, self._gather = options, gather
        self._framing = Framing(options.framing, options.max_message)
        self._occurrences = Occurrences(keep=_REMEMBERED)

    def received(self, data: bytes) -> None:
        self._add(self._framing.receive(data))
        if self._framing.error:
            self.fail("protocol", self._framing.error)

    def advance(self) -> None:
        self._hold()
        self.reading(on=self.room() and not self.ended)

    def give_up(self) -> None:
        """What there is of a message is given, and counts as under way then."""
        self._end()
        self.hold(0)

    def leave(self) -> None:
        """Have the client know that we stop, and take what it has sent by then: it will not send that again."""
        self.write_eof()

    def check(self, now: float) -> None:
        multiline = self._options.multiline
        if multiline and now - self.last >= multiline.flush_seconds:
            self._flush()
            self._hold()
        if self in self.server.waiting:
            self.last = now
        elif self._options.idle and now - self.last > self._options.idle:
            self.fail("timeout", f"nothing was sent for {self._options.idle:g} s")

    async def serve(self) -> None:
        """Until the client closes; what it sent by then is not ours to answer."""
        while not self.ended and not self.eof:
            await self.changed.wait()
            self.changed.clear()
        self._end()

    def _end(self) -> None:
        """Give what there is, since no more comes."""
        self._add(self._framing.end())
        self._flush()

    def _hold(self) -> None:
        self.hold(self._framing.held + (self._lines.held if self._lines else 0))

    def _add(self, messages: list[bytes]) -> None:
        if self._lines:
            messages = self._lines.add(messages)
            if self._lines.cut:
                self.server.count("records_cut", self._lines.cut)
                self._lines.cut = 0
        self._give(messages)

    def _flush(self) -> None:
        """Give the lines that might have gone on."""
        if self._lines:
            self._give(self._lines.flush())

    def _give(self, messages: list[bytes]) -> None:
        self._gather.add(messages, document_ids(messages, self._options.identity, self._occurrences))

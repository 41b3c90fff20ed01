"""Receives datagrams, each a record: syslog from network devices, Python's SysLogHandler, `logger`.

    inputs:
      devices: {type: udp, listen: ":5514", decode: syslog}

UDP knows neither acknowledgement nor back-pressure: what comes while `in_flight` bytes wait to be stored is dropped
and counted (`datagrams_dropped`), and so is, uncounted, what the kernel has no room for in `receive_buffer`. With
`buffer: disk` datagrams wait on the disk while the outputs are away or slow. Use TCP for what must not be lost.

Line ends and NULs at the end of a datagram do not count, and empty datagrams are skipped. Every event has the time of
its arrival in `event.created`, unless it brings an object `event` of its own. A syslog time without a year takes it
from there: `timestamp: {reference: event.created}`. Document ids are random: nobody sends a datagram again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import Any

from pydantic import Field

from pipeline.address import Address, refused, split
from pipeline.contract import Context, Deliver, Unusable
from pipeline.inputs._buffering import Buffering
from pipeline.inputs._gather import Gather
from pipeline.inputs._multiline import DESCRIPTION, Assembler, Multiline

log = logging.getLogger("aiologs.inputs")

_PEERS = 4096  # of which lines are put together at the same time
_WATCH = 1.0


class Udp:
    """Takes datagrams."""

    class Options(Buffering):
        """Where to listen, and how much may wait."""

        listen: Address = Field(description="Address and port; `:5514` listens on all addresses.")
        in_flight: int = Field(default=32 << 20, ge=1, description="Bytes that are received and not yet stored.")
        receive_buffer: int = Field(
            default=8 << 20,
            ge=1,
            description="Bytes that the kernel keeps for us; it grants at most what net.core.rmem_max allows.",
        )
        multiline: Multiline | None = Field(default=None, description=f"{DESCRIPTION} A datagram counts as a line.")

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self.ports: list[int] = []
        """Where it listens, once it does."""
        self.sockets: list[socket.socket] = []
        """See `contract.Input`."""
        self.listening = asyncio.Event()

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """See `contract.Input`."""
        if self._context.once:
            return
        try:
            async with asyncio.TaskGroup() as group:
                datagrams = _Datagrams(self._options, self._context, deliver, group)
                transport = await self._listen(datagrams)
                watch = group.create_task(datagrams.watch())
                try:
                    await stop.wait()
                finally:
                    transport.close()
                    watch.cancel()
                    datagrams.flush(math.inf)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _listen(self, datagrams: _Datagrams) -> asyncio.DatagramTransport:
        options, name = self._options, self._context.name
        try:
            sock = self.sockets[0] if self.sockets else await _bound(options.listen)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer)
        except OSError as error:
            raise Unusable(f"input {name}: can't listen on {options.listen}: {refused(error)}") from error
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: datagrams, sock=sock)
        self.sockets, self.ports = [sock], [sock.getsockname()[1]]
        self.listening.set()
        # Linux counts its own overhead, and so grants twice of what was asked for.
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        log.info("input %s: listening on %s, with a receive buffer of %d bytes", name, options.listen, granted)
        return transport


async def _bound(address: str) -> socket.socket:
    """A socket bound to the address; where that is all addresses, to those of IPv6 and IPv4."""
    host, port = split(address)
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - asked for
    found = await asyncio.get_running_loop().getaddrinfo(host or everywhere, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if host is None and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setblocking(False)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on, or drops them."""

    def __init__(self, options: Udp.Options, context: Context, deliver: Deliver, group: asyncio.TaskGroup) -> None:
        self._most, self._context = options.in_flight, context
        self._gather = Gather(context.name, deliver, group.create_task, self._changed)
        self._multiline = options.multiline
        self._rules = options.multiline.rules() if options.multiline else None
        self._peers: dict[Any, tuple[Assembler, float]] = {}  # with when each last sent something, in that order
        self._held = self._dropped = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        record = data.rstrip(b"\r\n\0")
        if self._held + len(record) > self._most:
            self._drop()
        elif record:
            self._gather.add(self._joined(record, addr) if self._rules else [record])

    def _joined(self, line: bytes, peer: Any) -> list[bytes]:
        """The records that are complete with this line."""
        assert self._rules  # noqa: S101 - for mypy
        lines, _ = self._peers.pop(peer, (Assembler(self._rules), 0))
        before = lines.held
        records = lines.add([line])
        self._held += lines.held - before
        if lines.cut:
            self._context.count("records_cut", lines.cut, {"input": self._context.name})
            lines.cut = 0
        self._peers[peer] = lines, asyncio.get_running_loop().time()
        return records + self._flushed(next(iter(self._peers))) if len(self._peers) > _PEERS else records

    def _flushed(self, peer: Any) -> list[bytes]:
        """The lines of a peer, which might have gone on."""
        lines, _ = self._peers.pop(peer)
        self._held -= lines.held
        return lines.flush()

    def flush(self, before: float) -> None:
        """Hand on the records of peers that sent nothing after that time."""
        for peer in [peer for peer, (_, last) in self._peers.items() if last < before]:
            self._gather.add(self._flushed(peer))

    async def watch(self) -> None:
        """Hand on records that nothing continues."""
        while self._multiline:
            await asyncio.sleep(_WATCH)
            self.flush(asyncio.get_running_loop().time() - self._multiline.flush_seconds)

    def _drop(self) -> None:
        if not self._dropped:
            log.warning("input %s: no room for more datagrams: they are dropped", self._context.name)
        self._dropped += 1
        self._context.count("datagrams_dropped", 1, {"input": self._context.name})

    def _changed(self, size: int, _: int) -> None:
        self._held += size
        if self._dropped and not self._held:
            log.warning("input %s: there is room again; %d datagrams were dropped", self._context.name, self._dropped)
            self._dropped = 0

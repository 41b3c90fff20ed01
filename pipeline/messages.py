"""Messages between the daemon and its chain processes: pickles through memory that both share, or over a socket.

A large message in shared memory is copied once at each end and costs one wake-up; through a socket, which holds a
fraction of it, the kernel copies it twice more and wakes both ends several times. Large bytes are not copied into the
pickle first. Both ends are programs of ours, and take turns: the memory holds one message at a time.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import socket
import struct
from types import SimpleNamespace
from typing import Any

_HEAD = struct.Struct("!I?")
"""The size of a message, and whether it is in the shared memory."""
_SHARED = 4 << 20
"""Bytes of shared memory, of which as many are taken as the largest message has had; a larger one takes the socket."""


def memory() -> int:
    """Memory to be shared, as a file descriptor."""
    descriptor = os.memfd_create("aiologs-chain")
    os.truncate(descriptor, _SHARED)
    return descriptor


class Link:
    """One end of a connection between two processes: a socket and, where there is a descriptor of it, memory."""

    def __init__(self, sock: socket.socket, memory: int | None = None) -> None:
        self._sock = sock
        self._inbox = bytearray(_HEAD.size)
        self._shared = None if memory is None else mmap.mmap(memory, _SHARED)

    def send(self, value: Any) -> None:
        """Send a message."""
        for piece in self._packed(value):
            self._sock.sendall(piece)

    def receive(self) -> Any:
        """The next message; raises `EOFError` when the other end is gone."""
        head = self._room(_HEAD.size)
        _fill(self._sock, head)
        body, inside = self._body(head)
        if not inside:
            _fill(self._sock, body)
        return pickle.loads(body)  # noqa: S301 - from our own program

    async def send_soon(self, value: Any) -> None:
        """Send a message over a socket that does not block."""
        loop = asyncio.get_running_loop()
        for piece in self._packed(value):
            await loop.sock_sendall(self._sock, piece)

    async def receive_soon(self) -> Any:
        """The next message over a socket that does not block; raises `EOFError` when the other end is gone."""
        head = self._room(_HEAD.size)
        await _fill_soon(self._sock, head)
        body, inside = self._body(head)
        if not inside:
            await _fill_soon(self._sock, body)
        return pickle.loads(body)  # noqa: S301 - from our own program

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def _packed(self, value: Any) -> list[bytes]:
        """What to send over the socket; the pickler hands large bytes over as they are."""
        pieces: list[bytes] = []
        pickle.Pickler(SimpleNamespace(write=pieces.append), pickle.HIGHEST_PROTOCOL).dump(value)
        size = sum(map(len, pieces))
        if self._shared is None or size > _SHARED:
            return [_HEAD.pack(size, False), *pieces]
        self._shared.seek(0)
        for piece in pieces:
            self._shared.write(piece)
        return [_HEAD.pack(size, True)]

    def _body(self, head: memoryview) -> tuple[memoryview, bool]:
        """Where the message is or goes, and whether it is there already."""
        size, inside = _HEAD.unpack(head)
        if self._shared is not None and inside:
            return memoryview(self._shared)[:size], True
        return self._room(size), False

    def _room(self, size: int) -> memoryview:
        """Room for so many bytes, always the same: fresh pages cost more than the copying."""
        if len(self._inbox) < size:
            self._inbox = bytearray(size)
        return memoryview(self._inbox)[:size]


def _fill(sock: socket.socket, room: memoryview) -> None:
    while room:
        got = sock.recv_into(room)
        if not got:
            raise EOFError
        room = room[got:]


async def _fill_soon(sock: socket.socket, room: memoryview) -> None:
    loop = asyncio.get_running_loop()
    while room:
        got = await loop.sock_recv_into(sock, room)
        if not got:
            raise EOFError
        room = room[got:]

"""Messages between the daemon and its chain processes: pickles over a socket pair, each behind its length.

Large bytes are neither copied into a pickle nor received into new memory: fresh pages cost more than the copying.
Both ends are programs of ours.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from types import SimpleNamespace
from typing import Any

_HEAD = struct.Struct("!I")
_ROOM = 1 << 20
"""Bytes that a socket should hold; the kernel may grant less."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, wide enough for large messages."""
    both = socket.socketpair()
    for sock in both:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return both


def _packed(value: Any) -> list[bytes]:
    """The pieces of a message: the pickler hands large bytes over as they are."""
    pieces: list[bytes] = []
    pickle.Pickler(SimpleNamespace(write=pieces.append), pickle.HIGHEST_PROTOCOL).dump(value)
    return [_HEAD.pack(sum(map(len, pieces))), *pieces]


class Inbox:
    """Memory that messages are received into."""

    def __init__(self) -> None:
        self._data = bytearray(_HEAD.size)

    def room(self, size: int) -> memoryview:
        """Room for so many bytes."""
        if len(self._data) < size:
            self._data = bytearray(size)
        return memoryview(self._data)[:size]


def send(sock: socket.socket, value: Any) -> None:
    """Send a message."""
    for piece in _packed(value):
        sock.sendall(piece)


def receive(sock: socket.socket, inbox: Inbox) -> Any:
    """The next message; raises `EOFError` when the other end is gone."""
    head = inbox.room(_HEAD.size)
    _fill(sock, head)
    body = inbox.room(*_HEAD.unpack(head))
    _fill(sock, body)
    return pickle.loads(body)  # noqa: S301 - from our own program


def _fill(sock: socket.socket, room: memoryview) -> None:
    while room:
        got = sock.recv_into(room)
        if not got:
            raise EOFError
        room = room[got:]


async def send_soon(sock: socket.socket, value: Any) -> None:
    """Send a message over a socket that does not block."""
    loop = asyncio.get_running_loop()
    for piece in _packed(value):
        await loop.sock_sendall(sock, piece)


async def receive_soon(sock: socket.socket, inbox: Inbox) -> Any:
    """The next message over a socket that does not block; raises `EOFError` when the other end is gone."""
    head = inbox.room(_HEAD.size)
    await _fill_soon(sock, head)
    body = inbox.room(*_HEAD.unpack(head))
    await _fill_soon(sock, body)
    return pickle.loads(body)  # noqa: S301 - from our own program


async def _fill_soon(sock: socket.socket, room: memoryview) -> None:
    loop = asyncio.get_running_loop()
    while room:
        got = await loop.sock_recv_into(sock, room)
        if not got:
            raise EOFError
        room = room[got:]

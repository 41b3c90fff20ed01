"""Listening sockets that pass from an input to its successor, so that a reload refuses no connection.

While one is exchanged for the other, the kernel goes on taking connections and datagrams for the socket; they wait for
the successor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import InputPart
    from pipeline.contract import Input
    from pipeline.running import Running


class Sockets:
    """Duplicates of the sockets of some inputs, kept open until `close`."""

    def __init__(self, running: Iterable[Running]) -> None:
        self._kept: dict[tuple[str, str], list[socket.socket]] = {}
        for each in running:
            if (address := _address(each.part)) and not each.task.done():
                numbers = [sock.fileno() for sock in getattr(each.source, "sockets", [])]
                self._kept[address] = [socket.socket(fileno=os.dup(number)) for number in numbers if number >= 0]

    def give(self, part: InputPart, source: Input) -> None:
        """Have an input of the same type and address listen on them, before it runs."""
        if (address := _address(part)) and address in self._kept:
            source.sockets[:] = [each.dup() for each in self._kept[address]]  # type: ignore[attr-defined]

    def close(self) -> None:
        """Let go of them; those who got them have their own."""
        for sockets in self._kept.values():
            for each in sockets:
                each.close()


def _address(part: InputPart) -> tuple[str, str] | None:
    listen = getattr(part.options, "listen", None)
    return (part.type, listen) if listen else None

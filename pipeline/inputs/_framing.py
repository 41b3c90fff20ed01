"""Where messages begin and end in a stream of bytes. No I/O.

Lines end with a newline, or with the NUL that Python's SysLogHandler sends. Syslog also knows octet counting
(RFC 6587, 3.4.1): `11 <13>message`. A message may be told from the other kind by its beginning, digits and then
` <`, which no line of JSON and hardly one of text has; so both are understood side by side.
"""

from __future__ import annotations

import re
from typing import Literal

Mode = Literal["auto", "newline", "octet_counting"]

_COUNT = re.compile(rb"([1-9]\d{0,8}) ")
_COUNT_OF_SYSLOG = re.compile(rb"([1-9]\d{0,8}) <")
_MAYBE_COUNT = re.compile(rb"[1-9]\d{0,8} ?")
_ENDS = b"\r\n\0"
_BLANK_LINES = re.compile(rb"(?:\r*[\n\0])+")


class Framing:
    """Cuts a stream into messages. The cost is linear in the bytes, however they come.

    A message longer than `limit` bytes (at least 12) is given in pieces of that size: nothing is lost, and memory is
    bounded. Empty messages are skipped. `error` says why the stream can't be followed any more.
    """

    def __init__(self, mode: Mode, limit: int) -> None:
        self._limit = limit
        self._counts = {"auto": _COUNT_OF_SYSLOG, "newline": None, "octet_counting": _COUNT}[mode]
        self._lines = mode != "octet_counting"
        self._pending = bytearray()
        self._undecided = False  # what is pending may become a count or a line
        self._octets = 0  # what is still to come of a counted message
        self._inside = False  # a line of which pieces were given already
        self._newline = self._nul = -1  # the next ones in the data that is being cut
        self.error: str | None = None

    @property
    def held(self) -> int:
        """Bytes held of a message that is not complete."""
        return len(self._pending)

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete."""
        if self.error:
            return []
        if self._pending:
            self._pending += data
            if not self._enough(data):
                return []
            data = bytes(self._pending)
            self._pending.clear()
        messages: list[bytes] = []
        rest = self._cut(data, messages)
        self._pending += data[rest:]
        return messages

    def end(self) -> list[bytes]:
        """What there is of an incomplete message: no more bytes come, or there is no room to wait for them."""
        rest = bytes(self._pending)
        self._pending.clear()
        self._undecided = False
        if self._octets:
            self._octets -= len(rest)
        elif rest:
            self._inside = True
        rest = rest.rstrip(_ENDS)
        return [rest] if rest else []

    def _enough(self, data: bytes) -> bool:
        """Whether there is something to cut, now that this stands at the end of what is pending."""
        if self._undecided:
            return True
        if self._octets:
            return len(self._pending) >= min(self._octets, self._limit)
        return b"\n" in data or b"\0" in data or len(self._pending) > self._limit

    def _cut(self, data: bytes, messages: list[bytes]) -> int:
        """Append the complete messages; returns where an incomplete one begins."""
        at, self._newline, self._nul = 0, -1, -1
        while at < len(data):
            if not self._octets and not self._inside:
                if data[at] in _ENDS and (blank := _BLANK_LINES.match(data, at)):
                    at = blank.end()
                    continue
                at = self._begin(data, at)
                if self.error:
                    return len(data)
                if self._undecided:
                    break
            before = at
            at = (self._take_octets if self._octets else self._take_line)(data, at, messages)
            if at == before:
                break
        return at

    def _begin(self, data: bytes, at: int) -> int:
        """At the beginning of a message, find out of what kind it is; returns where its text begins."""
        if not self._lines:
            while data[at : at + 1] in {b"\r", b"\n", b"\0"}:  # some senders count and end their lines
                at += 1
        self._undecided = False
        if self._counts is None or (self._lines and not 0x31 <= data[at] <= 0x39):
            return at
        if match := self._counts.match(data, at):
            self._octets = int(match[1])
            return match.end(1) + 1
        maybe = _MAYBE_COUNT.match(data, at)
        self._undecided = at == len(data) or (maybe is not None and maybe.end() == len(data))
        if not self._lines and not self._undecided:
            self.error = f"a message begins with {data[at : at + 12]!r}, which is no count of octets"
        return at

    def _take_octets(self, data: bytes, at: int, messages: list[bytes]) -> int:
        size = min(self._octets, self._limit)
        if len(data) - at < size:
            return at
        self._octets -= size
        message = data[at : at + size]
        if not self._octets:
            message = message.rstrip(_ENDS)
        if message:
            messages.append(message)
        return at + size

    def _take_line(self, data: bytes, at: int, messages: list[bytes]) -> int:
        most = at + self._limit
        # Each is searched for from where it was found last: senders that end lines with the one never send the other.
        if self._newline < at:
            self._newline = _find(data, b"\n", at)
        if self._nul < at:
            self._nul = _find(data, b"\0", at)
        end = min(self._newline, self._nul)
        self._inside = end > most or end == len(data)
        if not self._inside:
            if message := data[at:end].rstrip(b"\r"):
                messages.append(message)
            return end + 1
        if len(data) <= most:
            return at
        messages.append(data[at:most])
        return most


def _find(data: bytes, sign: bytes, at: int) -> int:
    """Where it stands next; the end of the data where it does not."""
    place = data.find(sign, at)
    return place if place >= 0 else len(data)

"""The Lumberjack protocol, versions 1 and 2: bytes in, windows of records out. No I/O.

What Beats, Logstash's outputs and many others send. A client announces a window (`W`) of so many records, sends them
as JSON (`J`) or key-value pairs (`D`, version 1), bare or in compressed frames (`C`), and waits for an
acknowledgement of the last sequence number. All integers are big-endian and have 32 bits; each frame begins with the
version's digit and the type's letter.

Sources: PROTOCOL.md and BeatsParser.java of logstash-input-beats, elastic/go-lumber, and for the limits rsyslog's
imbeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

import orjson
from isal import isal_zlib
from pydantic import BaseModel, Field

_RECORD = Struct(">2sII")  # J: head, sequence number, length; D: head, sequence number, number of pairs
_U32 = Struct(">I")
_JSON, _PAIRS = frozenset({b"1J", b"2J"}), frozenset({b"1D", b"2D"})
_RECORDS = _JSON | _PAIRS

_SHORTEST = 6
"""Bytes of the shortest frames, W and C: their head and one number."""
_TINY = 256
"""Bytes for which a record counts at least, with its number and its id: see pipeline.turns."""
_MOST_PAIRS = 4096
"""Pairs in one D frame: far more than any client has, few enough that their overhead in memory stays small."""
_LARGE = 32 << 10
"""Bytes of a compressed frame that is looked into before it is inflated."""
_SMALL = 1 << 20
"""Up to these bytes of inflated data any ratio is fine: 2,048 equal lines compress a thousandfold."""


class Limits(BaseModel, extra="forbid", frozen=True):
    """What a client may ask of us: the limits of rsyslog's imbeats (2026), larger where Filebeat could reach them."""

    window: int = Field(default=65_536, ge=1, description="Records in a window. Filebeat sends 2048 unless told.")
    frame: int = Field(default=16 << 20, ge=1, description="Bytes of one frame on the wire, and of one record.")
    inflated: int = Field(default=64 << 20, ge=1, description="Bytes that one compressed frame inflates to.")
    ratio: int = Field(default=256, ge=1, description="Inflated bytes per compressed byte, beyond the first MiB.")
    buffered: int = Field(default=64 << 20, ge=1, description="Bytes of all records in a window.")


class ProtocolError(Exception):
    """The client sent what no client sends; the connection is of no use any more. The message says what."""


@dataclass(slots=True)
class Window:
    """The records of a window, to be acknowledged together."""

    version: int
    """1 or 2: which kind of acknowledgement the client understands."""
    announced: int
    """How many records the client announced; there are fewer where it began another window too early."""
    records: list[bytes] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    """The number of each record. Acknowledging one acknowledges those before it. Some clients count from 1 in each
    window (Beats), some through the whole connection (pylogbeat, logstash-forwarder)."""
    size: int = 0
    """The bytes of all records."""

    @property
    def held(self) -> int:
        """The bytes that it takes in memory, about: those of a tiny record are the least of it."""
        return max(self.size, _TINY * len(self.records))


def acknowledgement(version: int, sequence: int) -> bytes:
    """The frame that acknowledges all records up to `sequence`; 0 means: still at work."""
    return b"%dA" % version + _U32.pack(sequence)


class Protocol:
    """The server's side of one connection: `receive` bytes, then ask for `next_window` until there is none.

    The cost is linear in the bytes, however they are cut, and so is the memory. A window is parsed when it is asked
    for: who does not ask, does not inflate.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._data, self._at = b"", 0  # the bytes under way, and how far they are parsed
        self._more = bytearray()  # what arrived after them
        self._need = _SHORTEST  # bytes from `_at` on without which there is no progress
        self._window: Window | None = None
        self._strings: list[bytes] = []  # of the D frame under way: key, value, key, value …
        self._strings_wanted = self._strings_size = self._sequence = 0
        self._error = ""

    @property
    def buffered(self) -> int:
        """Bytes held, about: not parsed yet, or in a window that is not complete."""
        unread = len(self._data) - self._at + len(self._more)
        return unread + self._strings_size + (self._window.held if self._window else 0)

    @property
    def unfinished(self) -> bool:
        """Whether the client is in the middle of a window or a frame."""
        return self._window is not None or self.buffered > 0

    def receive(self, data: bytes) -> None:
        """Take bytes from the connection."""
        if self._at == len(self._data) and not self._more:
            self._data, self._at = data, 0
        else:
            self._more += data

    def next_window(self) -> Window | None:
        """The next window that is complete, or was cut short by another; None: there is none without more bytes.

        Raises `ProtocolError`, and ever after again.
        """
        if self._error:
            raise ProtocolError(self._error)
        try:
            while self._ready():
                if window := self._frame():
                    return window
        except ProtocolError as error:
            self._error = str(error)  # the exception itself would keep what was inflated alive
            raise
        return None

    def _ready(self) -> bool:
        """Whether the bytes needed are there; then they are in one piece."""
        rest = len(self._data) - self._at
        if rest + len(self._more) < self._need:
            if not rest:
                self._data, self._at = bytes(self._more), 0
                self._more.clear()
            return False
        if rest < self._need:
            self._data, self._at = b"".join((self._data[self._at :], self._more)), 0
            self._more.clear()
        return True

    def _frame(self) -> Window | None:
        """Parse a frame, or several that hold data; returns the window that this completes."""
        data, at = self._data, self._at
        head = data[at : at + 2]
        self._need = _SHORTEST
        if self._strings_wanted or head in _RECORDS:
            self._at = self._take(data, at)
        elif head in {b"1W", b"2W"}:
            return self._announced(head[0] - 0x30, *_U32.unpack_from(data, at + 2))
        elif head in {b"1C", b"2C"}:
            self._take_compressed(data, at)
        else:
            raise ProtocolError(f"a frame begins with {head!r}, which is no version and type of Lumberjack")
        window = self._window
        if window is None or len(window.records) < window.announced:
            return None
        self._window = None
        return window

    def _announced(self, version: int, count: int) -> Window | None:
        """A W frame: begins a window."""
        before, self._window = self._window, None
        if before is not None and before.records:
            return before  # the frame is met again with the next call
        if count > self._limits.window:
            raise ProtocolError(f"a window of {count} records; at most {self._limits.window} are taken")
        self._at += _SHORTEST
        window = Window(version, count)
        if not count:
            return window
        self._window = window
        return None

    def _take_compressed(self, data: bytes, at: int) -> None:
        (length,) = _U32.unpack_from(data, at + 2)
        self._check_frame(length)
        end = at + _SHORTEST + length
        if end > len(data):
            self._need = _SHORTEST + length
            return
        inflated = self._inflate(data[at + _SHORTEST : end])
        # pylogbeat sends an empty one behind an empty window.
        if inflated and (self._take(inflated, 0) < len(inflated) or self._strings_wanted):
            raise ProtocolError("a compressed frame holds something else than whole records of its window")
        self._at, self._need = end, _SHORTEST

    def _inflate(self, body: bytes) -> bytes:
        most = min(self._limits.inflated, max(_SMALL, len(body) * self._limits.ratio))
        inflater = isal_zlib.decompressobj()
        try:
            if len(body) > _LARGE:
                self._peek(body)
            inflated: bytes = inflater.decompress(body, most + 1)
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub takes the class for an instance
            raise ProtocolError(f"a compressed frame can't be inflated: {error}") from error
        if len(inflated) > most:
            raise ProtocolError(f"a compressed frame of {len(body)} bytes inflates to more than {most} bytes")
        if not inflater.eof or inflater.unused_data:
            raise ProtocolError("a compressed frame does not end where its zlib stream does")
        return inflated

    def _peek(self, body: bytes) -> None:
        """Raise where a compressed frame begins with no record that is taken: a bomb is not worth inflating."""
        begin = isal_zlib.decompressobj().decompress(body[:_LARGE], _RECORD.size)
        if begin[:2] not in _RECORDS:
            raise ProtocolError(f"a compressed frame begins with {begin[:2]!r}, which is no record")
        if len(begin) == _RECORD.size and begin[:2] in _JSON:
            self._check_frame(_RECORD.unpack(begin)[2])

    def _take(self, data: bytes, at: int) -> int:
        """Take records as long as there are some and the window wants them; returns where the rest begins."""
        window = self._window
        if window is None:
            raise ProtocolError("a record outside of a window")
        while True:
            if self._strings_wanted:
                at = self._take_strings(data, at, window)
                if self._strings_wanted:
                    break
            at = self._take_json(data, at, window)
            if len(window.records) == window.announced or data[at : at + 2] not in _PAIRS or len(data) - at < 10:
                break
            at = self._begin_pairs(data, at)
        if window.size > self._limits.buffered:
            raise ProtocolError(f"a window holds more than {self._limits.buffered} bytes of records")
        return at

    def _take_json(self, data: bytes, at: int, window: Window) -> int:
        """Take J frames: the loop that must be fast."""
        unpack, longest, end = _RECORD.unpack_from, self._limits.frame, len(data)
        records, sequences, begin = window.records, window.sequences, at
        before = len(records)
        for _ in range(window.announced - before):
            start = at + 10
            if start > end:
                self._need = 10 if data[at : at + 2] in _RECORDS else _SHORTEST
                break
            head, sequence, length = unpack(data, at)
            if head not in _JSON:
                break
            if not 0 < length <= longest:
                raise ProtocolError(f"a record of {length} bytes; there must be some, and at most {longest}")
            stop = start + length
            if stop > end:
                self._need = 10 + length
                break
            records.append(data[start:stop])
            sequences.append(sequence)
            at = stop
        window.size += at - begin - 10 * (len(records) - before)
        return at

    def _begin_pairs(self, data: bytes, at: int) -> int:
        """A D frame of version 1: its head; its strings follow one by one, since its length is not told."""
        _, self._sequence, pairs = _RECORD.unpack_from(data, at)
        if not 0 < pairs <= _MOST_PAIRS:
            raise ProtocolError(f"a record of {pairs} pairs; there must be some, and at most {_MOST_PAIRS}")
        self._strings_wanted = 2 * pairs
        return at + 10

    def _take_strings(self, data: bytes, at: int, window: Window) -> int:
        """Take keys and values of the D frame under way; with the last one the record is complete."""
        strings, end = self._strings, len(data)
        while self._strings_wanted:
            if end - at < 4:
                self._need = 4
                return at
            (length,) = _U32.unpack_from(data, at)
            self._check_frame(self._strings_size + length)
            if end - at < 4 + length:
                self._need = 4 + length
                return at
            strings.append(data[at + 4 : at + 4 + length])
            at += 4 + length
            self._strings_size += length
            self._strings_wanted -= 1
        record = _json(strings)
        window.records.append(record)
        window.sequences.append(self._sequence)
        window.size += len(record)
        self._strings, self._strings_size, self._need = [], 0, _SHORTEST
        return at

    def _check_frame(self, length: int) -> None:
        if length > self._limits.frame:
            raise ProtocolError(f"a frame of {length} bytes; at most {self._limits.frame} are taken")


def _json(strings: list[bytes]) -> bytes:
    """The JSON object of a D frame. logstash-forwarder's `line` is what everybody else calls `message`."""
    texts = [text.decode(errors="replace") for text in strings]
    record = dict(zip(texts[::2], texts[1::2], strict=True))
    if "line" in record and "message" not in record:
        record["message"] = record.pop("line")
    return orjson.dumps(record)

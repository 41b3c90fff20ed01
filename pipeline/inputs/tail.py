"""What to make of a log file: decisions from plain observations, without any I/O.

A *log* is a text that grows at its end, known by its identity and by the *place* up to which it was read. A *file* is
what stands on the disk under some name. Rotation moves a log from file to file (renamed, copied, compressed), and
truncation puts another log into the same file. So with every file that is new or has changed the question is: is this
a log that we know, or another one?
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from hashlib import blake2b
from typing import NamedTuple, Protocol

from pipeline.identity import FIRST_LINE

HEAD = 8192
"""How many bytes at the beginning of a log are remembered by their hash."""
TAIL = 1024
"""How many bytes before a place are remembered by their hash."""

_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_NULS = re.compile(rb"\0+")
_HOLE = re.compile(rb"\n\0+")


class Mark(NamedTuple):
    """The hash of the `length` bytes before `end`."""

    end: int
    length: int
    digest: str


def mark(end: int, data: bytes) -> Mark:
    """Remember the bytes that stand before `end`."""
    return Mark(end, len(data), blake2b(data, digest_size=12).hexdigest())


class Place(NamedTuple):
    """How far a log was read, and what it looked like there."""

    offset: int
    head: Mark
    tail: Mark


START = Place(0, mark(0, b""), mark(0, b""))


class Text(Protocol):
    """The uncompressed text of a file."""

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at`, fewer where the text ends."""
        ...

    def reaches(self, end: int) -> bool:
        """Whether the text has at least `end` bytes."""
        ...


class Verdict(Enum):
    """How a file's text compares with a log as far as that was read."""

    SAME = auto()
    """The file holds the log up to its place, and perhaps more."""
    BEHIND = auto()
    """The file holds the beginning of the log: a copy that lacks the end."""
    OTHER = auto()
    """The file holds something else, though it may begin alike."""


def compare(text: Text, place: Place, *, copy: bool) -> Verdict:
    """Compare a file's text with a log.

    `copy` says that the file may be a copy of the log that lacks its end: it has a rotated file's name and never was
    the log's own file. That is only believed when the text is the same for the first 8 KiB. Where nothing proves that
    a file is the log, it is another one: reading twice is better than not at all.
    """

    def holds(mark_: Mark) -> bool:
        return mark(mark_.end, text.read(mark_.end - mark_.length, mark_.length)) == mark_

    if not holds(place.head):
        return Verdict.OTHER
    if text.reaches(place.offset):
        return Verdict.SAME if holds(place.tail) else Verdict.OTHER
    return Verdict.BEHIND if copy and place.head.end >= HEAD else Verdict.OTHER


class Reader(NamedTuple):
    """The file that a log is being read from."""

    exhausted: bool
    """It is read to its end, but for an unfinished line."""
    succeeded: bool
    """It was deleted, and the file in question stands under its name."""


class Claim(NamedTuple):
    """How a file stands to one log that begins with the same line."""

    verdict: Verdict
    longer: bool
    """The file reaches beyond the log's place."""
    ahead: bool
    """The file has lines beyond the log's place, or reaches beyond the end of the log's reader."""
    reader: Reader | None


class Step(Enum):
    """What to do with a file."""

    READ = auto()
    """Read the log on from this file."""
    WAIT = auto()
    """Ask again when the file has changed, or the log's reader has come further."""
    NOTHING = auto()
    """All of it was read already: a copy, or an archive."""
    NEW = auto()
    """It is a log of its own."""


def decide(claims: Sequence[Claim]) -> tuple[Step, int]:
    """What to do with a file, and which of the claims (the log read furthest first) says so; -1 for a new log."""
    behind = next((n for n, claim in enumerate(claims) if claim.verdict is Verdict.BEHIND), -1)
    for n, claim in enumerate(claims):
        if claim.verdict is not Verdict.SAME:
            continue
        reader = claim.reader
        if reader is None or (claim.ahead and reader.exhausted):
            return Step.READ, n
        if claim.longer:
            return Step.WAIT, n
        if not reader.succeeded:
            return Step.NOTHING, n
        # Deleted and made again, and it begins exactly as it did: another log.
    return (Step.NOTHING, behind) if behind >= 0 else (Step.NEW, -1)


class Look(NamedTuple):
    """What `stat` says of a file."""

    size: int
    mtime: int
    """In nanoseconds."""


class Change(Enum):
    """What happened to a file that is being read since it was last looked at."""

    NONE = auto()
    GROWN = auto()
    TOUCHED = auto()
    """No longer than what was read, but written to: it may hold other text."""
    SHRUNK = auto()


def change(read: int, before: Look, now: Look) -> Change:
    """What happened to a file that was read up to `read`."""
    if now.size < read:
        return Change.SHRUNK
    if now == before:
        return Change.NONE
    return Change.GROWN if now.size > read else Change.TOUCHED


def is_wide(data: bytes) -> bool:
    """Whether a text begins with the byte order mark of UTF-16 (or UTF-32), which can't be cut into lines at bytes."""
    return data.startswith(_WIDE)


def first_line(data: bytes, *, final: bool) -> bytes | None:
    """The first line of a text that begins with `data`, without newline, or None while it isn't known.

    A line is known when it is complete, when its first 4 KiB are there (no more of it counts), or when nothing
    follows (`final`). NUL bytes before it, which truncation can leave behind, and a byte order mark don't count.
    """
    data = data.removeprefix(_BOM).lstrip(b"\0")
    line, newline, _ = data.partition(b"\n")
    if newline or len(line) >= FIRST_LINE or (final and line):
        return line[:FIRST_LINE]
    return None


class Piece(NamedTuple):
    """Part of a text to deliver: complete lines, or a line that is cut."""

    start: int
    stop: int
    cut: bool = False
    """It is the beginning of a line that is longer than allowed."""


def pieces(data: bytes, start: int, limit: int) -> tuple[list[Piece], int]:
    """Cut the complete lines of `data` from `start`, where a line begins, into pieces; and say where they end.

    A line of more than `limit` bytes (without its newline) is cut to that length, in a piece of its own. NUL bytes
    before a line are left out. Where records begin does not depend on where the text was cut into `data`.
    """
    end = data.rfind(b"\n", start) + 1
    if not end:
        return [], start
    if data.find(b"\0", start, end) < 0:
        return list(_bounded(data, start, end, limit)), end
    return [piece for run in _without_nuls(data, start, end) for piece in _bounded(data, *run, limit)], end


def nuls(data: bytes, start: int) -> int:
    """How many NUL bytes stand in `data` from `start`, one after the other."""
    found = _NULS.match(data, start)
    return found.end() - start if found else 0


def _without_nuls(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is left of some lines without the NUL bytes before them."""
    start += nuls(data, start)
    for hole in _HOLE.finditer(data, start, end):
        yield start, hole.start() + 1
        start = hole.end()
    yield start, end


def _bounded(data: bytes, start: int, end: int, limit: int) -> Iterator[Piece]:
    """Lines of at most `limit` bytes in pieces as long as can be, the beginning of a longer line in one of its own."""
    at = start
    while end - at > limit + 1:
        # A newline in the next limit + 1 bytes ends a line that is short enough, as are all that end before it.
        if newline := data.rfind(b"\n", at, at + limit + 1) + 1:
            at = newline
            continue
        if start < at:
            yield Piece(start, at)
        yield Piece(at, at + limit, cut=True)
        start = at = data.index(b"\n", at + limit) + 1
    if start < end:
        yield Piece(start, end)

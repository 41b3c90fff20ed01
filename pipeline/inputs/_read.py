"""Reads the complete lines of files and hands them to delivery."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from pipeline.contract import Batch, Context, Deliver, Outcome
from pipeline.inputs import tail
from pipeline.inputs._handles import Handles
from pipeline.inputs._log import Log, Memory, Source, printable
from pipeline.inputs._multiline import Group, Rules, batch_of, grouped, with_rest
from pipeline.inputs._text import Compressed, Plain
from pipeline.inputs.tail import HEAD, TAIL, Piece, Place
from pipeline.times import written
from pipeline.window import Window

if TYPE_CHECKING:
    from pipeline.inputs.file import File

log = logging.getLogger("aiologs.inputs.file")

TOTAL = 32 << 20
"""How many bytes of all files may be under way."""
_INLINE = 256 << 10  # so much is read without a thread: what was just appended is in the page cache
_BOM = b"\xef\xbb\xbf"


class Result(Enum):
    """How reading a file went."""

    MORE = auto()
    """There may be more."""
    END = auto()
    """There is no complete line left now."""
    LOST = auto()
    """The file can't be opened under its name, or not now."""
    CHANGED = auto()
    """The file does not hold any more what was read from it."""


class _View(NamedTuple):
    """What was read of a file at once."""

    text: Plain | Compressed
    begin: int
    """Where `data` stands in the text: before what is to be read, by the bytes that must be there."""
    data: bytes
    start: int
    """Where in `data` the next line begins."""
    full: bool
    """There may be more in the file."""
    final: bool
    """An unfinished last line is to be delivered, too."""

    def before(self, stop: int) -> bytes:
        """The last bytes before a place in `data`."""
        return self.data[max(0, stop - TAIL) : stop]


class Lines:
    """Reads sources, a batch at a time."""

    def __init__(
        self, options: "File.Options", context: Context, deliver: Deliver, memory: Memory, wake: Callable[[], None]
    ) -> None:
        self._options, self._context, self._memory, self._wake = options, context, memory, wake
        self._deliver, self._host = deliver, options.host or context.host
        self._rules = options.multiline.rules() if options.multiline else None
        self.handles = Handles()
        self.under_way = 0
        self.failure: BaseException | None = None

    def has_room(self, source: Source) -> bool:
        """Whether something may be read from this file now."""
        assert source.log  # noqa: S101 — for mypy
        return source.log.window is None or source.log.window.has_room()

    async def read(self, source: Source, *, final: bool, flush: bool = False) -> Result:
        """Read a batch; with `final` (and of archives, unless damaged) also an unfinished last line.

        `flush`: the last record of several lines is complete though it might have gone on.
        """
        text = self.handles.get(source)
        if text is None:
            return Result.LOST
        known = len(source.tail)
        size = known + (source.want or self._options.batch_bytes)
        data = await self.fetch(source, text, source.read - known, size)
        if not data.startswith(source.tail):
            return Result.CHANGED
        final = (final or text.compressed) and not text.damage
        view = _View(text, source.read - known, data, known + _skip(source, data), full=len(data) == size, final=final)
        found, end = tail.pieces(data, view.start, self._options.max_line_bytes)
        if not found:
            source.held = False
            return await self._unfinished(source, view)
        if self._rules:
            return self._join(self._rules, source, view, found, end, flush=flush)
        self._submit(source, view, found, end)
        source.exhausted = not view.full
        return Result.MORE if view.full or final else Result.END

    async def fetch(self, source: Source, text: Plain | Compressed, at: int, size: int) -> bytes:
        """Read, in a thread where it may take its time."""
        if text.compressed or min(size, source.look.size - at) > _INLINE:
            return await asyncio.to_thread(text.read, at, size)
        return text.read(at, size)

    async def _unfinished(self, source: Source, view: _View) -> Result:
        """Go on where there is no end of a line in sight."""
        data, start = view.data, view.start
        length, limit = len(data) - start, self._options.max_line_bytes
        zeros = tail.nuls(data, start)
        if zeros and (view.full or zeros < length):
            return await self._hole(source, view, start + zeros)
        if zeros < length > limit:
            return await self._long(source, view)
        if view.full:
            source.want = max(self._options.batch_bytes, limit + 1 + start - len(source.tail))
            return Result.MORE
        source.exhausted = True
        if view.final and zeros < length:
            self._submit(source, view, [Piece(start, len(data))], len(data))
        return Result.END

    async def _hole(self, source: Source, view: _View, stop: int) -> Result:
        """Pass over NUL bytes before a line, but not at the end of the file: something may yet be written there."""
        if stop < len(view.data):
            source.read, source.tail = view.begin + stop, view.before(stop)
            return Result.MORE
        at = view.text.skip(max(source.scanned, view.begin + stop))
        chunk = await self.fetch(source, view.text, at, self._options.batch_bytes)
        zeros = tail.nuls(chunk, 0)
        source.scanned = at + zeros
        if zeros < len(chunk):
            source.tail = await self._before(source, view, source.scanned)
            source.read, source.scanned = source.scanned, 0
            return Result.MORE
        source.exhausted = len(chunk) < self._options.batch_bytes
        return Result.END if source.exhausted else Result.MORE

    async def _long(self, source: Source, view: _View) -> Result:
        """Look for the end of a line that is longer than allowed, and deliver its beginning when it is found.

        Only then, so that a restart in between begins with the line again and not in the middle of it.
        """
        at = max(source.scanned, view.begin + len(view.data))
        chunk = await self.fetch(source, view.text, at, self._options.batch_bytes)
        newline = chunk.find(b"\n") + 1
        source.scanned = at + (newline or len(chunk))
        source.exhausted = not newline and len(chunk) < self._options.batch_bytes
        if newline or (source.exhausted and view.final):
            offset = source.scanned
            before = await self._before(source, view, offset)
            piece = Piece(view.start, view.start + self._options.max_line_bytes, cut=True)
            self._deliver_piece(source, view, piece, offset, before)
        return Result.END if source.exhausted else Result.MORE

    async def _before(self, source: Source, view: _View, offset: int) -> bytes:
        return await self.fetch(source, view.text, max(0, offset - TAIL), min(TAIL, offset))

    def _join(self, rules: Rules, source: Source, view: _View, found: list[Piece], end: int, *, flush: bool) -> Result:
        """Deliver records of several lines; the last one only when it is known where it ends."""
        data, entry = view.data, _log_of(source)
        zeros, rest = tail.nuls(data, end), len(data) - end
        # What lies behind a hole, and a line that will be cut, begins another record.
        closed = (zeros > 0 and (zeros < rest or view.full)) or (not zeros and rest > self._options.max_line_bytes)
        ended = not (closed or view.full) and (flush or view.final or view.text.compressed)
        if ended and view.final and rest > zeros:
            found, end = with_rest(found, end, len(data)), len(data)
        if ended and not view.text.compressed and view.begin + end not in entry.breaks:
            entry.breaks.append(view.begin + end)
            self._memory.keep(entry)
        breaks = [place - view.begin for place in entry.breaks]
        groups, left = grouped(rules, data, found, breaks, complete=closed or ended)
        starts = [*(group.spans[0].start for group in groups), end if left is None else left]
        for group, after in zip(groups, starts[1:], strict=True):
            self._deliver_group(source, view, group, after)
        source.held, source.exhausted = left is not None, not view.full
        if left is not None and not groups:
            self._pass_over(source, view, left)
        return Result.MORE if view.full or view.final else Result.END

    def _pass_over(self, source: Source, view: _View, start: int) -> None:
        """Go on where the only record that is there begins, with all of it in sight."""
        if start > view.start:
            source.read, source.tail = view.begin + start, view.before(start)
        if view.full:
            limit = self._options.max_line_bytes + 4  # with its end, or a byte order mark before it
            most = max(self._options.multiline.max_bytes, limit) if self._options.multiline else 0
            source.want = max(self._options.batch_bytes, most + limit)

    def _deliver_group(self, source: Source, view: _View, group: Group, after: int) -> None:
        if group.line:
            piece = Piece(group.spans[0].start, group.spans[0].stop, cut=True)
            self._deliver_piece(source, view, piece, view.begin + after, view.before(after))
            return
        block, ends, places = batch_of(view.data, view.begin, group.spans)
        batch = Batch(self._context.name, block, _log_of(source).identity, ends=ends, positions=places)
        if group.cut:
            self._context.count("records_cut", 1, {"input": self._context.name})
        self._deliver_batch(source, view, batch, view.begin + after, view.before(after), cut=group.cut)

    def _submit(self, source: Source, view: _View, found: list[Piece], end: int) -> None:
        """Deliver pieces of a view, and go on at its `end`."""
        for piece, stop in zip(found, [*(piece.start for piece in found[1:]), end], strict=True):
            self._deliver_piece(source, view, piece, view.begin + stop, view.before(stop))

    def _deliver_piece(self, source: Source, view: _View, piece: Piece, offset: int, before: bytes) -> None:
        """Deliver a piece, and go on at `offset`, which has `before` before it."""
        base = view.begin + piece.start
        if piece.cut:
            self._say_cut(source, base)
        batch = Batch(self._context.name, view.data[piece.start : piece.stop], _log_of(source).identity, base=base)
        self._deliver_batch(source, view, batch, offset, before, cut=piece.cut)

    def _deliver_batch(
        self, source: Source, view: _View, batch: Batch, offset: int, before: bytes, *, cut: bool
    ) -> None:
        entry = _log_of(source)
        source.read, source.tail = offset, before
        source.want = source.scanned = 0
        head = entry.place.head
        if head.end < HEAD:
            length = min(HEAD, offset)
            head = tail.mark(length, view.text.read(0, length))
        entry.place = Place(offset, head, tail.mark(offset, before))
        batch.origin = {"host.name": self._host, "log.file.path": printable(source.path)}
        if self._options.mtime:
            batch.origin |= {"file.mtime": written(datetime.fromtimestamp(source.look.mtime / 1e9, UTC))}
        if cut:
            batch.origin |= {"log.flags": "truncated"}
        if entry.window is None:
            entry.window = self._window(entry)
        self.under_way += len(batch.block)
        entry.window.submit(batch, (entry.place, len(batch.block)))

    def _window(self, entry: Log) -> Window[tuple[Place, int]]:
        def commit(position: tuple[Place, int]) -> None:
            entry.kept, size = position
            entry.breaks = [place for place in entry.breaks if place > entry.kept.offset]
            self.under_way -= size
            self._memory.keep(entry)

        async def deliver(batch: Batch, *, wait: bool = True) -> Outcome:
            if entry.breaks:
                await self._context.settled()
            return await self._deliver(batch, wait=wait)

        return Window(deliver if self._rules else self._deliver, commit, self._options.read_ahead, self._ended)

    def _ended(self, error: BaseException | None) -> None:
        self.failure = self.failure or error
        self._wake()

    def _say_cut(self, source: Source, base: int) -> None:
        self._context.count("lines_cut", 1, {"input": self._context.name})
        complaint = "long lines"
        if source.complaint != complaint:
            source.complaint = complaint
            log.warning(
                "%s: the line at byte %d is longer than max_line_bytes (%d) and is cut to that; so are others like it",
                source.path,
                base,
                self._options.max_line_bytes,
            )


def _skip(source: Source, data: bytes) -> int:
    """How many bytes before the next line are none of its own."""
    known = len(source.tail)
    if source.read == 0:
        return len(_BOM) if data.startswith(_BOM) else 0
    if source.tail.endswith((b"\n", b"\0")):
        return 0
    # The line before was delivered unfinished; now its end has come.
    rest = data[known : known + 2]
    return 1 if rest.startswith(b"\n") else 2 if rest == b"\r\n" else 0


def _log_of(source: Source) -> Log:
    assert source.log  # noqa: S101 — for mypy
    return source.log

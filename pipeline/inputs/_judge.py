"""Finds out which log a file is."""

import asyncio
import logging
import os
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any

from pipeline.contract import Context
from pipeline.identity import file_identity, log_called, log_name
from pipeline.inputs import tail
from pipeline.inputs._log import Live, Log, Memory, Source, printable
from pipeline.inputs._read import Lines
from pipeline.inputs._text import Compressed, Plain
from pipeline.inputs.tail import HEAD, TAIL, Claim, Place, Reader, Step, Verdict

if TYPE_CHECKING:
    from pipeline.inputs.file import File

log = logging.getLogger("aiologs.inputs.file")

_SETTLING = 2
"""An archive that was written to so many seconds ago may not be complete yet."""
_CHUNK = 64 << 10


def basis(source: Source, *, final: bool) -> tuple[Any, ...]:
    """What a judgement of a file stands on: the same again while this stays the same."""
    reader = source.log.reader if source.waiting and source.log else None
    state = (id(reader), reader.exhausted, reader.look, reader.read if reader.exhausted else 0) if reader else ()
    return source.look, final, source.waiting, state


class Judge:
    """Judges files; `unsettle` is told of a file whose log is read on from another one."""

    def __init__(
        self,
        options: "File.Options",
        context: Context,
        memory: Memory,
        lines: Lines,
        unsettle: Callable[[Source], None],
    ) -> None:
        self._options, self._memory, self._lines, self._unsettle = options, memory, lines, unsettle
        self._host, self._once = options.host or context.host, context.once
        self._live = Live(context.live) if context.live else None

    async def judge(self, source: Source, *, final: bool, at_end: bool) -> Step | None:
        """Find out which log a file is, and make it the log's reader where something is to be read from it.

        `final`: an unfinished first line will not become longer. `at_end`: begin a new log at its end. None: it
        can't be said now, though the file may stay as it is.
        """
        text = self._lines.handles.get(source)
        if text is None or (text.compressed and self._unsettled(source)):
            return None
        line = await self._first_line(source, text, final=final)
        if line is None:
            return Step.WAIT
        name = log_called(self._options.name, source.path)
        base = file_identity(self._host, name, line)
        candidates = self._memory.candidates(base, source.key)
        claims = await self._claims(source, text, candidates)
        step, n = tail.decide(claims)
        if step is Step.NEW and source.covered == source.look and source.log in candidates:
            step, n = Step.NOTHING, candidates.index(source.log)
        source.waiting, source.ended = step is Step.WAIT, step is Step.NOTHING
        if step is Step.WAIT and _is_exhausted(claims[n].reader):
            source.covered = source.look
        if step is Step.NEW and source.listed:
            recreated = await self._recreated(base, text)
            identity = file_identity(self._host, name, line, recreated)
            self._begin(source, text, Log(identity, base, recreated, source.path, source.key), at_end=at_end)
        elif step is not Step.NEW:
            source.log = candidates[n]
            if step is Step.READ:
                self._read_from(source, text, candidates[n])
        return step

    async def _recreated(self, base: str, text: Plain | Compressed) -> int:
        """How many logs that begin alike came before this new one."""
        new = self._memory.new(base)
        if not self._live:
            return new
        recreated = await asyncio.to_thread(self._live.recreated, base, text, new)
        # The daemon may know two copies by one number, of which this is the second.
        return max(recreated, new) if self._memory.has(base, recreated) else recreated

    def _unsettled(self, source: Source) -> bool:
        # By the wall clock, as modification times are; one in the future says nothing.
        return not self._once and 0 <= time() - source.look.mtime / 1e9 < _SETTLING

    async def _first_line(self, source: Source, text: Plain | Compressed, *, final: bool) -> bytes | None:
        begin = text.skip(0)
        data = await self._lines.fetch(source, text, begin, _CHUNK)
        while data and not data.lstrip(b"\0"):
            begin += len(data)
            data = await self._lines.fetch(source, text, begin, _CHUNK)
        if tail.is_wide(data):
            self._complain(source, "it is UTF-16, which is not read; convert it to UTF-8")
            return None
        return tail.first_line(data, final=(final or text.compressed) and not text.damage)

    async def _claims(self, source: Source, text: Plain | Compressed, candidates: list[Log]) -> list[Claim]:
        if text.compressed and candidates:
            return await asyncio.to_thread(self._compare, source, text, candidates)
        return self._compare(source, text, candidates)

    @staticmethod
    def _compare(source: Source, text: Plain | Compressed, candidates: list[Log]) -> list[Claim]:
        rotated = log_name(source.path) != source.path
        claims = []
        for entry in reversed(candidates):  # an archive is best read forwards
            place, reader = entry.place, entry.reader
            verdict = tail.compare(text, place, copy=rotated and entry.key != source.key)
            same = verdict is Verdict.SAME
            claims.append(
                Claim(
                    verdict,
                    longer=same and text.reaches(place.offset + 1),
                    ahead=same and reader is not None and _is_ahead(text, place.offset, reader),
                    reader=Reader(reader.exhausted, reader.deleted and reader.path == source.path) if reader else None,
                )
            )
        return claims[::-1]

    def _begin(self, source: Source, text: Plain | Compressed, entry: Log, *, at_end: bool) -> None:
        """Begin a new log: where this file was read to before it was told from another log, or at its beginning."""
        entry.seen = time()
        if text.read(source.read - len(source.tail), len(source.tail)) == source.tail:
            entry.place = _place(text, source.read)
        if at_end and not text.compressed:
            entry.place = entry.kept = _place(text, _last_line(text, source.look.size))
        self._memory.add(entry)
        if at_end:
            self._memory.keep(entry)
        source.log = entry
        if at_end and text.compressed:
            source.ended = True
        else:
            self._read_from(source, text, entry)

    def _read_from(self, source: Source, text: Plain | Compressed, entry: Log) -> None:
        """Read a log on from this file."""
        before = text.read(max(0, entry.place.offset - TAIL), min(TAIL, entry.place.offset))
        if entry.reader:
            entry.reader.judged, entry.reader.waiting, entry.reader.covered = (), True, entry.reader.look
            self._unsettle(entry.reader)
        entry.reader = source
        source.log, source.exhausted = entry, False
        # Rotated while nobody looked: it was last seen elsewhere.
        source.renamed = source.renamed or entry.path not in {printable(source.path), source.path}
        source.read, source.tail = entry.place.offset, before
        self._memory.take(entry, source)

    def _complain(self, source: Source, complaint: str) -> None:
        if source.complaint != complaint:
            source.complaint = complaint
            log.error("%s: %s", source.path, complaint)


def _is_exhausted(reader: Reader | None) -> bool:
    return reader is not None and reader.exhausted


def _is_ahead(text: Plain | Compressed, offset: int, reader: Source) -> bool:
    """Whether a text holds something behind `offset` that the log's reader, once exhausted, does not."""
    return text.reaches(_extent(reader) + 1) or _has_line(text, offset)


def _has_line(text: Plain | Compressed, offset: int) -> bool:
    while chunk := text.read(offset, _CHUNK):
        if b"\n" in chunk:
            return True
        offset += len(chunk)
    return False


def _extent(reader: Source) -> int:
    """How far the text of a log's reader goes."""
    if reader.text and not reader.text.compressed:
        return os.fstat(reader.text.descriptor).st_size
    return max(reader.read, 0 if reader.text else reader.look.size)


def _place(text: Plain | Compressed, offset: int) -> Place:
    head, tail_ = min(HEAD, offset), min(TAIL, offset)
    return Place(offset, tail.mark(head, text.read(0, head)), tail.mark(offset, text.read(offset - tail_, tail_)))


def _last_line(text: Plain | Compressed, size: int) -> int:
    """Where the last line begins that is not complete; the end where all are."""
    while size > 0:
        begin = max(0, size - _CHUNK)
        newline = text.read(begin, size - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        size = begin
    return 0

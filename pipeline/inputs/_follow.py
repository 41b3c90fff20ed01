"""Follows log files through all that happens to them.

It is longer than other files: what there is, what it is and what it holds are three looks at the same state, which a
split would have to hand around. What can be decided without it is in `tail`, `_judge`, `_scan` and `_read`.
"""

import asyncio
import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING

from pipeline.contract import Context, Deliver
from pipeline.identity import log_name
from pipeline.inputs import _scan, tail
from pipeline.inputs._judge import Judge, basis
from pipeline.inputs._log import Log, Memory, Source, printable
from pipeline.inputs._read import TOTAL, Lines, Result
from pipeline.inputs._scan import Found, Key
from pipeline.inputs.tail import Change, Step

if TYPE_CHECKING:
    from pipeline.inputs.file import File

log = logging.getLogger("aiologs.inputs.file")

_DAY = 86_400


class Follow:
    """The files of one input. `look` and `glance` see what is there, `read` delivers, one batch a file in turn."""

    def __init__(
        self, options: "File.Options", context: Context, deliver: Deliver, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._options, self._context = options, context
        self.patterns = [os.path.abspath(path) for path in options.paths]  # noqa: PTH100 — `..` and `**` stay
        self.memory = Memory(context.positions)
        self.lines = Lines(options, context, deliver, self.memory, wake)
        self.sources: dict[Key, Source] = {}
        self._unsettled: set[Source] = set()
        self._measured: set[str] = set()
        self._judge = Judge(options, context, self.memory, self.lines, self._unsettled.add)
        self._ready: deque[Source] = deque()
        self._named: dict[str, Key] = {}
        self._at_end = options.start == "end" and self.memory.first
        self._lost = list(self.memory.logs.values())  # logs that are to be looked for under other names
        self.stale = False
        """Something happened that only a look at all files can explain."""

    @property
    def waiting(self) -> bool:
        """There are files to read, once there is room."""
        return bool(self._ready)

    async def look(self) -> None:
        """See which files there are and what happened to them."""
        self.stale = False
        files = await asyncio.to_thread(_scan.scan, self.patterns, self._options.exclude)
        self._named = {found.path: key for key, found in files.items()}
        for found in files.values():
            self._see(found)
        await self._missing([source for key, source in self.sources.items() if key not in files])
        self._unsettled.update(source for source in self.sources.values() if not source.reading)
        await self._settle()
        await self._search()
        self._at_end = False
        self._tidy()
        self.memory.expire(self.sources, self._options.forget_days * _DAY)
        self._measure()

    async def glance(self, paths: Iterable[str]) -> None:
        """See what happened to some files that were written to."""
        for path in paths:
            source = self.sources.get(self._named.get(path, (0, 0)))
            here = _scan.look(path) if source else None
            if here and source and here.key == source.key:
                self._see(here)
            elif source:
                self.stale = True
        await self._settle()
        self.stale = self.stale or bool(self._lost)

    async def read(self) -> bool:
        """Read a batch of each file that has something and has room; False where there was none.

        Raises the error of a delivery that failed.
        """
        if self.lines.failure:
            raise self.lines.failure
        progress = False
        for _ in range(len(self._ready)):
            if self.lines.under_way >= TOTAL:
                break
            source = self._ready.popleft()
            if not source.reading:
                source.queued = False
            elif not self.lines.has_room(source):
                self._ready.append(source)
            else:
                progress = True
                await self._read(source)
                await asyncio.sleep(0)  # reading may not wait for anything, and there may be thousands
        if progress:
            await self._settle()
            self.stale = self.stale or bool(self._lost)
        return progress

    def flush(self) -> float:
        """See to records of several lines for which nothing came for long enough; when to ask again."""
        next_, multiline = math.inf, self._options.multiline
        if multiline is None:
            return next_
        for source in self.sources.values():
            if source.held and source.reading:
                if self._over(source):
                    self._queue(source)
                else:
                    next_ = min(next_, source.grown + multiline.flush_seconds)
        return next_

    async def drain(self) -> None:
        """Wait until everything read is delivered; raises the error of a delivery that failed."""
        for entry in self.memory.logs.values():
            if entry.window:
                await entry.window.drain()
        self._tidy()
        self._measure()

    def close(self) -> None:
        """Give up what is under way, and close all files."""
        for entry in self.memory.logs.values():
            if entry.window:
                entry.window.cancel()
        self.lines.handles.close_all()

    # What is there

    def _see(self, found: Found) -> None:
        source = self.sources.get(found.key)
        if source is None:
            source = self.sources[found.key] = Source(found.key, found.path, found.look, found.listed, grown=_now())
            source.log = self.memory.finished(source)
            source.judged = basis(source, final=self._final(source)) if source.log else ()
            self._unsettled.add(source)
            return
        source.renamed = source.renamed or source.path != found.path
        source.path, source.listed, source.deleted = found.path, found.listed, not found.links
        before, source.look = source.look, found.look
        if before != source.look:
            source.grown = _now()
        if source.reading:
            self._changed(source, before)
        else:
            self._unsettled.add(source)

    def _changed(self, source: Source, before: tail.Look) -> None:
        if source.text and source.text.compressed:
            if before != source.look:
                self._release(source)
            return
        what = tail.change(source.read, before, source.look)
        if what is Change.SHRUNK or (what is not Change.NONE and not self._holds(source)):
            self._truncated(source)
        elif what is Change.GROWN:
            source.exhausted = False
            self._queue(source)
        elif source.look.size > source.read and (not source.exhausted or self._final(source)):
            self._queue(source)

    @staticmethod
    def _holds(source: Source) -> bool:
        """Whether an open file still holds what was last read from it; others are checked when they are read."""
        known = len(source.tail)
        with contextlib.suppress(OSError):  # it is said when it is read
            return source.text is None or source.text.read(source.read - known, known) == source.tail
        return True

    async def _missing(self, sources: list[Source]) -> None:
        """See what became of files that are not under their names any more."""
        gone = []
        for source in sources:
            if source.text:
                with contextlib.suppress(OSError):  # gone from a network file system
                    self._see(_scan.found(source.path, os.fstat(source.text.descriptor), listed=False))
                    continue
            gone.append(source)
        still = {found.key for found in await self._see_kin([(source.path, source.key) for source in gone])}
        for source in gone:
            if source.key not in still:
                self._drop(source)

    async def _search(self) -> None:
        """Look for what became of logs that lost their file: while nobody looked, or by a truncation."""
        present = {source.log.identity for source in self.sources.values() if source.log}
        lost = [(entry.path, entry.key) for entry in self._lost if entry.identity not in present]
        self._lost.clear()
        await self._see_kin(lost)
        await self._settle()

    async def _see_kin(self, lost: list[tuple[str, Key]]) -> list[Found]:
        wanted: dict[str, tuple[set[Key], set[str]]] = {}
        for path, key in lost:
            keys, names = wanted.setdefault(os.path.dirname(path), (set(), set()))  # noqa: PTH120 — often called
            keys.add(key)
            names.add(log_name(path))
        if not wanted:
            return []
        kindred = await asyncio.to_thread(_scan.kin, wanted, self._options.exclude)
        listed = set(self._named.values())
        found = [here for here in kindred if here.key not in listed]
        for here in found:
            self._see(here)
        return found

    # What it is

    async def _settle(self) -> None:
        """Judge the files of which it isn't known which log they are, the oldest first."""
        for source in sorted(self._unsettled, key=lambda source: (source.look.mtime, source.path)):
            final = self._final(source)
            if source.look.size and source.judged != basis(source, final=final):
                await self._find_out(source, final=final)
                await asyncio.sleep(0)
            if not source.waiting:
                self._unsettled.discard(source)

    async def _find_out(self, source: Source, *, final: bool) -> None:
        if not source.waiting:
            source.log = None
        step = None
        try:
            step = await self._judge.judge(source, final=final, at_end=self._at_end)
        except OSError as error:
            self.lines.handles.failed(source, error)
        if source.reading:
            self._queue(source)
        elif step is Step.NEW and not source.log:
            self._drop(source)  # beside a log that is followed, but none of ours
        else:
            source.judged = basis(source, final=final) if step else ()

    def _final(self, source: Source) -> bool:
        """Whether a file's last line is taken as it is, without a newline."""
        rotated = source.deleted or source.renamed or not source.listed or _suffixed(source.path)
        if self._context.once:
            settled = self._options.idle if rotated else _DAY
            return self._context.live is None or time() - source.look.mtime / 1e9 > settled
        return rotated and self._idle(source)

    def _over(self, source: Source) -> bool:
        """Whether a record of several lines that is held is taken for complete."""
        options = self._options.multiline
        return options is not None and source.held and _now() - source.grown >= options.flush_seconds

    def _idle(self, source: Source) -> bool:
        return _now() - source.grown > self._options.idle

    def _truncated(self, source: Source) -> None:
        self._context.count("files_truncated", 1, {"input": self._context.name})
        log.info("%s holds other text than at the last look; reading it from its beginning", source.path)
        assert source.log  # noqa: S101 — for mypy
        self._lost.append(source.log)
        self._release(source)

    def _release(self, source: Source) -> None:
        if source.listed:  # it may be plain now, or compressed; without a name it could not be opened again
            self.lines.handles.close(source)
        source.detach()
        self._unsettled.add(source)

    # What it holds

    def _queue(self, source: Source) -> None:
        if not source.queued:
            source.queued = True
            self._ready.append(source)

    async def _read(self, source: Source) -> None:
        try:
            result = await self.lines.read(source, final=self._final(source), flush=self._over(source))
        except OSError as error:
            self.lines.handles.failed(source, error)
            result = Result.LOST
        if result is Result.MORE:
            self._ready.append(source)
            return
        source.queued = False
        if result is Result.LOST:
            source.exhausted = False
        elif result is Result.CHANGED:
            self._truncated(source)
        elif result is Result.END and source.text and source.text.compressed:
            source.ended = True
            if source.text.damage:
                self._damaged(source, source.text.damage)

    def _damaged(self, source: Source, damage: str) -> None:
        self._context.count("files_damaged", 1, {"input": self._context.name})
        log.error(
            "%s: %s; delivered what could be read, %d bytes of text. Restore the file to get the rest",
            source.path,
            damage,
            source.read,
        )

    def _tidy(self) -> None:
        """Note what is done with, and let go of it."""
        for source in list(self.sources.values()):
            entry = source.log
            if entry and (source.queued or source.waiting or entry.window):
                continue
            if entry and source.ended:
                self._finish(source, entry)
            copy = entry is not None and not source.reading
            if not source.listed and (copy or (self._idle(source) and (entry is None or source.exhausted))):
                self._drop(source)

    def _finish(self, source: Source, entry: Log) -> None:
        self.memory.finish(source, entry)
        if source.reading:
            self._release(source)
            source.log = entry
            source.judged = basis(source, final=self._final(source))
        source.ended = False

    def _drop(self, source: Source) -> None:
        source.detach()
        self.lines.handles.close(source)
        self._unsettled.discard(source)
        del self.sources[source.key]

    def _measure(self) -> None:
        labels = {"input": self._context.name}
        lags = {
            printable(source.path): max(0, source.look.size - source.log.kept.offset)
            for source in self.sources.values()
            if source.log and source.reading and not (source.text and source.text.compressed)
        }
        for path in self._measured - lags.keys():
            self._context.forget("file_lag_bytes", labels | {"path": path})
        for path, lag in lags.items():
            self._context.gauge("file_lag_bytes", lag, labels | {"path": path})
        self._measured = {*lags}
        self._context.gauge("files_followed", len(self.sources), labels)
        self._context.gauge("files_open", len(self.lines.handles), labels)


def _suffixed(path: str) -> bool:
    """Whether a name is a log's with something behind it: `app.log.1`, but not `app-2026-11-20.log`."""
    name = log_name(path)
    return path != name and path.startswith(name)


def _now() -> float:
    return asyncio.get_running_loop().time()

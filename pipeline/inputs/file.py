"""Reads log files as they grow, and through all that happens to them.

    inputs:
      app: {type: file, paths: ["/var/log/aio/*.log*"], exclude: ["*.tmp"]}

Complete lines are delivered, each under an id of its own that is the same however often and under whatever name the
line is read. Rotation by renaming, by copying and truncating, dated names, symbolic links that are switched, files
that are deleted and made again: a log is known by its content, so that what was read once is not read again from a
rotated, renamed or compressed file, and what was not is read from wherever it is now.

In odd cases:

- A file without a complete first line is not known yet; it is read when the line is complete.
- A rotated file is read to its end even when it matches `paths` no more: while it is open, and after a restart as long
  as it is in the same folder. So is the copy that was made before a truncation.
- A last line without a newline is delivered when the file was rotated away or deleted and nothing came for `idle`
  seconds, at the end of an archive, and with `--once`. If it is continued after that, the rest is another record.
- `.gz` and `.zst` files (told by their first bytes, of one or several members) are read when nothing was written to
  them for two seconds, and remembered when they are done. Of a damaged one the complete lines before the damage are
  delivered, and an error is logged.
- With `multiline`, a record is delivered when the next one begins, or nothing more came for `flush_seconds`; what
  continues it after that is another record. One that reaches a limit is delivered with `log.flags: truncated` and
  counted (`records_cut`), and the rest is another record. A record's id is that of its first line.
- A line longer than `max_line_bytes` is delivered when it is complete: its beginning, with `log.flags: truncated`. The
  rest is left out, which is logged and counted (`lines_cut`).
- A file that shrank, or of which the last KiB before the place read or the first 8 KiB are not the same, holds another
  log and is read from its beginning (`files_truncated`). If that begins with the same line as an earlier one, it is
  counted as its re-creation. A file that was rewritten with exactly the same bytes is the same log.
- NUL bytes before a line (a writer goes on at its old place after a truncation) are left out, as is a byte order mark.
  UTF-16 is not read, which is logged.
- A file under two names is read once. Several logs of one folder that begin alike are told apart once they differ.
- After damage to the state everything is read again from the beginning, whatever `start` says: the ids are the same,
  so nothing is stored twice.
"""

import asyncio
import contextlib
import logging
from typing import Literal

from pydantic import BaseModel, Field

from pipeline.contract import Context, Deliver
from pipeline.inputs._follow import Follow
from pipeline.inputs._multiline import DESCRIPTION, Multiline
from pipeline.inputs._scan import watch

log = logging.getLogger("aiologs.inputs.file")

_BETWEEN = 0.25  # seconds from one look at all files to the next, when files come and go all the time


class File:
    """Reads files."""

    class Options(BaseModel, extra="forbid"):
        """How files are read."""

        paths: list[str] = Field(
            min_length=1, description="Which files: paths with `*`, `?`, `[…]`, and `**` for any folders."
        )
        exclude: list[str] = Field(
            default=[], description="Which of them not: patterns for the whole path or the file's name."
        )
        start: Literal["beginning", "end"] = Field(
            default="beginning",
            description="Where to begin with files that are there at the very first start. Later ones are read whole.",
        )
        name: str | None = Field(
            default=None,
            description="The log's name in document ids, where the path is not the same everywhere (pods, restored "
            "archives); a folder with a `/` behind it for logs under their own names. By default the path without "
            "rotation suffixes.",
        )
        host: str | None = Field(default=None, description="The host in document ids and documents, if not this one.")
        mtime: bool = Field(
            default=False,
            description="Whether each event gets the time at which its file was last written, as `file.mtime`: for "
            "times without a year, with `timestamp: {reference: file.mtime}`.",
        )
        max_line_bytes: int = Field(default=1 << 20, ge=1, description="Longer lines are cut to so many bytes.")
        multiline: Multiline | None = Field(default=None, description=DESCRIPTION)
        batch_bytes: int = Field(default=1 << 19, ge=1, description="How much of a file is read at once.")
        read_ahead: int = Field(default=4, ge=1, description="How many batches of a file may be under way.")
        poll: float = Field(
            default=5, gt=0, description="Seconds between looks at all files, behind the system's notifications."
        )
        idle: float = Field(
            default=300,
            ge=0,
            description="Seconds without growth until a rotated or deleted file counts as complete: its unfinished "
            "last line is delivered, and it is closed if it matches no more.",
        )
        forget_days: float = Field(
            default=7, gt=0, description="Days until a log is forgotten of which there is no file any more."
        )

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.context = options, context

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver what the files hold until `stop` is set, or with `once` until all of it is delivered."""
        wake = asyncio.Event()
        follow = Follow(self.options, self.context, deliver, wake.set)
        try:
            await follow.look()
            if not follow.sources:
                log.info("input %s: no file matches %s yet", self.context.name, ", ".join(self.options.paths))
            await (self._once(follow, stop, wake) if self.context.once else self._follow(follow, stop, wake))
            await follow.drain()
        finally:
            follow.close()

    @staticmethod
    async def _once(follow: Follow, stop: asyncio.Event, wake: asyncio.Event) -> None:
        while not stop.is_set():
            wake.clear()
            if await follow.read():
                continue
            if follow.waiting:
                await wake.wait()
            elif follow.stale:
                await follow.look()
            else:
                return

    async def _follow(self, follow: Follow, stop: asyncio.Event, wake: asyncio.Event) -> None:
        written: set[str] = set()

        def changed(paths: set[str], names: bool) -> None:
            written.update(paths)
            follow.stale = follow.stale or names
            wake.set()

        loop = asyncio.get_running_loop()
        helpers = [
            asyncio.create_task(watch(follow.patterns, changed)),
            asyncio.create_task(self._wake_at_stop(stop, wake)),
        ]
        looked = loop.time()
        try:
            while not stop.is_set():
                wake.clear()
                if loop.time() - looked >= (_BETWEEN if follow.stale else self.options.poll):
                    written.clear()
                    await follow.look()
                    looked = loop.time()
                elif written:
                    paths = written.copy()
                    written.clear()
                    await follow.glance(paths)
                flush = follow.flush()
                if not await follow.read() and not stop.is_set():
                    look = looked + (_BETWEEN if follow.stale else self.options.poll)
                    await _wait(wake, min(look, flush) - loop.time())
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    @staticmethod
    async def _wake_at_stop(stop: asyncio.Event, wake: asyncio.Event) -> None:
        await stop.wait()
        wake.set()


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0, seconds)):
            await wake.wait()

"""Reads lines from standard input, until it ends.

    inputs:
      pipe: {type: stdin}

`journalctl -o json -f | aiologs run -c pipe.yaml`: the daemon ends when its input does and everything is delivered.
What was read can't be read again, so what was under way when the process is killed is lost; so is what the program
before it in the pipe had in its buffers. Read files with the input `file` where that matters.

Two runs over the same text make two sets of documents, since nothing tells that it is the same. `name` says so: with
it the document ids are those that the input `file` gives to a file of that name, and
`zcat app.log.3.gz | aiologs run -c pipe.yaml` with `name: /var/log/app.log` repeats nothing.

A last line without a newline is delivered at the end, and without `name` also when the daemon stops. A line longer
than `max_line_bytes` is cut to that, with `log.flags: truncated`; the rest is left out, which is logged and counted
(`lines_cut`).

With `multiline`, a record is delivered when the next one begins, or nothing more came for `flush_seconds`; with `name`
only at the end of the input instead, so that every run makes the same records. One that reaches a limit has
`log.flags: truncated` and is counted (`records_cut`), and its rest is another record.
"""

import asyncio
import logging
import os
from secrets import token_urlsafe
from typing import Any

from pydantic import BaseModel, Field

from pipeline.contract import Batch, Context, Deliver
from pipeline.identity import file_identity
from pipeline.inputs import tail
from pipeline.inputs._multiline import DESCRIPTION, Group, Multiline, batch_of, grouped, with_rest
from pipeline.inputs.tail import Piece
from pipeline.window import Window

log = logging.getLogger("aiologs.inputs.stdin")

_READ = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Stdin:
    """Reads standard input."""

    class Options(BaseModel, extra="forbid"):
        """How standard input is read."""

        name: str | None = Field(
            default=None,
            description="The path of the log that this is, for document ids that are the same at every run. By default "
            "each run makes ids of its own.",
        )
        host: str | None = Field(default=None, description="The host in document ids and documents, if not this one.")
        max_line_bytes: int = Field(default=1 << 20, ge=1, description="Longer lines are cut to so many bytes.")
        multiline: Multiline | None = Field(default=None, description=DESCRIPTION)
        read_ahead: int = Field(default=4, ge=1, description="How many batches of up to 1 MiB may be under way.")

    def __init__(self, options: Options, context: Context, descriptor: int = 0) -> None:
        self._options, self._context, self._descriptor = options, context, descriptor
        self._identity = None if options.name else token_urlsafe(12)
        self._origin = {"host.name": options.host or context.host}
        self._data = b""  # an unfinished line
        self._at = 0  # where it stands in the text
        self._skipping = False  # the rest of a line that was cut
        self._rules = options.multiline.rules() if options.multiline else None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver lines until standard input ends or `stop` is set, and then what is left of the last one."""
        failed = asyncio.get_running_loop().create_future()
        window: Window[None] = Window(
            deliver,
            lambda _: None,
            self._options.read_ahead,
            lambda error: None if error is None or failed.done() else failed.set_result(None),
        )
        stopping = asyncio.ensure_future(stop.wait())
        ended = not self._options.name
        try:
            while await self._readable(stopping, failed):
                await window.room()
                chunk = os.read(self._descriptor, _READ)
                if not chunk:
                    ended = True
                    break
                self._take(chunk, window, final=False)
            window.has_room()
            # Where it comes again, a beginning of a line would stand under the id of all of it.
            self._take(b"", window, final=ended)
            await window.drain()
        finally:
            stopping.cancel()
            self._wait_no_more()
            window.cancel()

    async def _readable(self, *others: "asyncio.Future[Any]") -> bool:
        """Wait until reading will not block; False when one of the others came first."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        try:
            loop.add_reader(self._descriptor, lambda: None if ready.done() else ready.set_result(None))
        except OSError:  # a file or /dev/null can't be waited for, and need not be
            return not any(other.done() for other in others)
        try:
            await asyncio.wait({ready, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._descriptor)
        return not any(other.done() for other in others)

    def _take(self, chunk: bytes, window: Window[None], *, final: bool, flush: bool = False) -> None:
        """Deliver the lines that are complete with this chunk; with `final` what is left, too.

        `flush`: the last record of several lines is complete though it might have gone on.
        """
        self._wait_no_more()
        if self._skipping:
            chunk = self._skip(chunk)
        data = self._data + chunk
        identity = self._identity = self._identity or self._named(data, final=final)
        if identity is None:
            self._data = data
            return
        limit = self._options.max_line_bytes
        start = len(_BOM) if self._at == 0 and data.startswith(_BOM) else 0
        found, end = tail.pieces(data, start, limit)
        zeros = tail.nuls(data, end)  # left out before a line, as they are before a complete one
        end += zeros
        if len(data) - end > limit:
            found.append(Piece(end, end + limit, cut=True))
            self._skipping, end = True, len(data)
        elif final and end < len(data):
            found, end = with_rest(found, end, len(data)), len(data)
        left = None
        if self._rules:
            groups, left = grouped(self._rules, data, found, (), complete=final or flush or zeros > 0)
            for group in groups:
                window.submit(self._joined(data, group, identity), None)
        else:
            for piece in found:
                window.submit(self._batch(data, piece, identity), None)
        end = end if left is None else left
        self._at += end
        self._data = data[end:]
        if left is not None:
            self._wait_for_more(window)

    def _wait_for_more(self, window: Window[None]) -> None:
        """Have what is held delivered when nothing comes for long enough."""
        if self._options.multiline and not self._options.name:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._options.multiline.flush_seconds, self._flush, window)

    def _wait_no_more(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _flush(self, window: Window[None]) -> None:
        if len(window) < self._options.read_ahead:
            self._take(b"", window, final=False, flush=True)
        else:
            self._wait_for_more(window)

    def _skip(self, chunk: bytes) -> bytes:
        """What comes after the end of a line that was cut."""
        end = chunk.find(b"\n") + 1
        self._skipping = not end
        self._at += end or len(chunk)
        return chunk[end:] if end else b""

    def _named(self, data: bytes, *, final: bool) -> str | None:
        line = tail.first_line(data, final=final)
        return None if line is None else file_identity(self._origin["host.name"], str(self._options.name), line)

    def _joined(self, data: bytes, group: Group, identity: str) -> Batch:
        if group.line:
            return self._batch(data, Piece(group.spans[0].start, group.spans[0].stop, cut=True), identity)
        block, ends, places = batch_of(data, self._at, group.spans)
        origin = dict[str, str | int](self._origin)
        if group.cut:
            origin["log.flags"] = "truncated"
            self._context.count("records_cut", 1, {"input": self._context.name})
        return Batch(self._context.name, block, identity, ends=ends, positions=places, origin=origin)

    def _batch(self, data: bytes, piece: Piece, identity: str) -> Batch:
        origin = dict[str, str | int](self._origin)
        if piece.cut:
            origin["log.flags"] = "truncated"
            self._context.count("lines_cut", 1, {"input": self._context.name})
            log.warning(
                "the line at byte %d is longer than max_line_bytes (%d) and is cut to that",
                self._at + piece.start,
                self._options.max_line_bytes,
            )
        block = data[piece.start : piece.stop]
        return Batch(self._context.name, block, identity, base=self._at + piece.start, origin=origin)

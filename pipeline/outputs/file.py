"""Writes documents as JSON lines into a file for each index, and rotates the files by size and day.

    outputs:
      archive: {type: file, path: /var/log/aiologs, compress: zstd}

An index `aio-logs-2026.11.20` is written to `aio-logs-2026.11.20.ndjson` (`….ndjson.zst` when compressed). At
`max_bytes`, and with the first document after midnight UTC, that becomes `aio-logs-2026.11.20.2026.11.20.1.ndjson`:
the day that it was written on, and a number. Nothing is ever deleted.

A write returns when it is on the disk. What a crash left incomplete at the end of a file is cut off before the next
write to it; its records were not acknowledged and come again. The files know no ids: what is read again, after a crash
or by a replay, is written again. A full disk makes inputs wait. An index whose name can't be that of a file is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, Field

from pipeline.contract import Context, Documents, Payload, Refused, Unusable, Written
from pipeline.outputs._group import Group
from pipeline.outputs._health import Health

log = logging.getLogger("aiologs.output")

_MOST_OPEN = 64
_CHUNK = 1 << 20
_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,200}")


class File:
    """See the module's documentation."""

    class Options(BaseModel, extra="forbid"):
        """Where and how to write."""

        path: Path = Field(description="The folder for the files; it is made where missing.")
        compress: Literal["zstd"] | None = Field(
            default=None, description="Compress each write as a zstd frame; `zstdcat` reads the file."
        )
        max_bytes: int = Field(default=256 << 20, ge=1, description="A file that would become larger is rotated.")

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._name = options, context.name
        self._suffix = ".ndjson.zst" if options.compress else ".ndjson"
        self._health = Health(context.name, context.gauge)
        self._group = Group(self._store, self._health, (OSError,))
        self._open: dict[str, _Journal] = {}

    @property
    def blocked(self) -> str | None:
        """Why nothing can be written now."""
        return self._health.blocked

    async def start(self) -> None:
        """Make the folder; raises `Unusable` where it can't be written to."""
        folder = self._options.path
        try:
            await self._group.run(lambda: folder.mkdir(parents=True, exist_ok=True))
        except OSError as error:
            raise Unusable(f"output {self._name}: can't make the folder {folder}: {error}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Unusable(f"output {self._name}: no permission to write to the folder {folder}")

    async def write(self, payload: Payload) -> Written:
        """See `contract.Output`."""
        return await self._group.write(payload)

    async def stop(self) -> None:
        """Close the files."""
        await self._group.stop()
        for journal in self._open.values():
            journal.close()

    def _store(self, payloads: list[Payload]) -> list[Written]:
        """All or nothing: what is written when an error comes is taken back."""
        written = [Written() for _ in payloads]
        touched: dict[str, _Journal] = {}
        try:
            for index, lines in self._by_index(payloads, written).items():
                touched[index] = self._journal(index, len(lines))
                touched[index].append(lines)
            for journal in touched.values():
                journal.sync()
        except BaseException:
            for index, journal in touched.items():
                del self._open[index]
                journal.take_back()
            raise
        for journal in touched.values():
            journal.keep()
        while len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return written

    def _by_index(self, payloads: list[Payload], written: list[Written]) -> dict[str, bytes]:
        """The bytes to append for each index; `written` gets the counts."""
        lines: dict[str, list[bytes]] = {}
        for payload, result in zip(payloads, written, strict=True):
            for documents in payload:
                if _NAME.fullmatch(documents.index):
                    lines.setdefault(documents.index, []).extend(each for _, each in documents.pairs())
                    result.stored += documents.count
                else:
                    result.refused += _refused(documents)
        return {index: self._encoded(b"\n".join([*each, b""])) for index, each in lines.items() if each}

    def _encoded(self, lines: bytes) -> bytes:
        if not self._options.compress:
            return lines
        import zstandard  # noqa: PLC0415 - only where it is asked for

        return zstandard.ZstdCompressor().compress(lines)

    def _journal(self, index: str, more: int) -> _Journal:
        """The file of an index, with room for so many bytes more."""
        journal = self._open.pop(index, None) or _Journal(self._options.path, index, self._suffix)
        if journal.is_due(self._options.max_bytes, more):
            journal.rotate()
            journal = _Journal(self._options.path, index, self._suffix)
        self._open[index] = journal  # the last used stands last
        return journal


def _refused(documents: Documents) -> list[Refused]:
    reason = f"the name of the index {documents.index!r} can't be the name of a file"
    return [Refused(documents.index, id_, each, reason) for id_, each in documents.pairs()]


class _Damaged(Exception):
    """A file can't be read to its end, and not because it was cut there."""


class _Journal:
    """The file that an index is written to now."""

    def __init__(self, folder: Path, index: str, suffix: str) -> None:
        self._folder, self._index, self._suffix = folder, index, suffix
        self._path = folder / f"{index}{suffix}"
        try:
            self._open()
        except _Damaged as error:
            log.warning("%s is damaged, it is moved aside: %s", self._path, error)
            self.rotate()
            self._open()

    def _open(self) -> None:
        """Open the file, and cut off what a crash left incomplete at its end."""
        self._file: BinaryIO = self._path.open("ab+", buffering=0)
        try:
            self._day = _day(self._path.stat().st_mtime)
            whole = _whole_frames if self._suffix.endswith(".zst") else _whole_lines
            self._durable = whole(self._file)
            self._file.truncate(self._durable)
            if not self._durable:
                _sync_folder(self._folder)
        except BaseException:
            self.close()
            raise

    def is_due(self, max_bytes: int, more: int) -> bool:
        return self._durable > 0 and (self._durable + more > max_bytes or self._day != _day())

    def append(self, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def keep(self) -> None:
        self._durable, self._day = self._file.tell(), _day()

    def take_back(self) -> None:
        """Cut off what is new; where the disk refuses that too, whole lines stay and are there twice then."""
        with contextlib.suppress(OSError):
            self._file.truncate(self._durable)
        self.close()

    def rotate(self) -> None:
        number = 1
        while (to := self._folder / f"{self._index}.{self._day}.{number}{self._suffix}").exists():
            number += 1
        self._path.rename(to)
        self.close()

    def close(self) -> None:
        self._file.close()


def _whole_lines(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _whole_frames(file: BinaryIO) -> int:
    import zstandard  # noqa: PLC0415 - only where it is asked for

    whole, read, rest = file.seek(0), 0, b""
    frame = zstandard.ZstdDecompressor().decompressobj()
    while chunk := rest or file.read(_CHUNK):
        read += 0 if rest else len(chunk)
        try:
            frame.decompress(chunk)
        except zstandard.ZstdError as error:
            raise _Damaged(str(error)) from error
        rest = frame.unused_data
        if frame.eof:
            whole = read - len(rest)
            frame = zstandard.ZstdDecompressor().decompressobj()
    return whole


def _day(time: float | None = None) -> str:
    return (datetime.fromtimestamp(time, UTC) if time is not None else datetime.now(UTC)).strftime("%Y.%m.%d")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Reads the logs in a tar archive, compressed or not, each under the ids that it had in its folder.

How many members are done is remembered; the one that was under way when a replay was killed is read again from its
beginning. A member that begins with the same line as another log is left out, with an error. Of a damaged archive or
member the complete lines are delivered that can be unpacked, and an error is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any

import zstandard
from isal import igzip

from pipeline import registry
from pipeline.config import InputPart
from pipeline.contract import Batch, Context, Deliver, Outcome
from pipeline.identity import log_called
from pipeline.inputs._log import printable
from pipeline.replay.job import Job, checked, text_options
from pipeline.times import written

log = logging.getLogger("aiologs.replay")

_CHUNK = 256 << 10
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, zstandard.ZstdError)


class TarReader:
    """Takes the members one after the other through the input that reads texts."""

    def __init__(self, path: str, part: InputPart, job: Job, context: Context) -> None:
        self._path, self._part, self._job, self._context = path, part, job, context
        status = Path(path).stat()
        self._key = f"{status.st_size} {status.st_mtime_ns}"
        known = context.positions.load()
        self._done: int = known.get(self._key, {}).get("members", 0)
        self._members: dict[str, str] = {key: value["member"] for key, value in known.items() if "member" in value}
        """Which member each identity is that of."""
        bases = Counter(each.get("base") for each in (context.live or {}).values())
        self._several = {base for base, count in bases.items() if count > 1}

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver every line of every member that is not done yet."""
        number = 0
        try:
            with _archive(self._path) as archive:
                while (member := await asyncio.to_thread(archive.next)) and not stop.is_set():
                    number += 1
                    if number <= self._done:
                        continue
                    if member.isfile():
                        await self._read(archive, member, deliver, stop)
                    if not stop.is_set():
                        self._context.positions.put(self._key, {"members": number})
        except _DAMAGE as error:
            log.error("%s is damaged behind its member %d: %s", self._path, number, error)  # noqa: TRY400

    async def _read(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, deliver: Deliver, stop: asyncio.Event
    ) -> None:
        origin: dict[str, str | int] = {"log.file.path": printable(f"{self._path}/{member.name}")}
        if getattr(self._part.options, "mtime", False):
            origin["file.mtime"] = written(datetime.fromtimestamp(member.mtime, UTC))

        alike = []

        async def labelled(batch: Batch, *, wait: bool = True) -> Outcome:
            if not self._is_its_own(batch.identity, member.name):
                alike.append(batch)
                halt.set()
                return Outcome()
            batch.origin = {**batch.origin, **origin}
            return await deliver(batch, wait=wait)

        options = text_options("stdin", self._part, self._job, name=self._name(member.name))
        ours, theirs = os.pipe()
        halt = asyncio.Event()
        stopping = asyncio.create_task(_when(stop, halt.set))
        reading = asyncio.create_task(registry.find("input", "stdin")(options, self._context, ours).run(labelled, halt))
        # Nobody reads any more: that ends the feeding as well.
        reading.add_done_callback(lambda _: os.close(ours))
        try:
            damage = await asyncio.to_thread(_feed, archive, member, theirs)
            if damage is None:
                os.close(theirs)
            else:  # not the end of the text: an unfinished line is no record
                log.error("%s: member %s is damaged: %s", self._path, member.name, damage)
                halt.set()
            await reading
            if damage is not None:
                os.close(theirs)
        finally:
            stopping.cancel()
        if alike:
            log.error(
                "%s: member %s is left out: another log begins with the same line, so their ids could be mixed up. "
                "Unpack the archive and replay its folder with --as",
                self._path,
                member.name,
            )

    def _is_its_own(self, identity: str, member: str) -> bool:
        """Whether an identity is that of this member and of no other log: in a stream nothing else tells them apart."""
        if identity not in self._members:
            self._members[identity] = member
            self._context.positions.put(identity, {"member": member})
        return self._members[identity] == member and identity not in self._several

    def _name(self, member: str) -> str:
        """The member's name in identities; raises `Unusable` where nothing says it."""
        path = "/" + member.lstrip("./")
        checked(self._part, [path], self._job)
        return log_called(self._job.name, path)


@contextmanager
def _archive(path: str) -> Iterator[tarfile.TarFile]:
    with Path(path).open("rb") as file, tarfile.open(fileobj=_unpacked(file), mode="r|*") as archive:
        yield archive


async def _when(event: asyncio.Event, call: Callable[[], None]) -> None:
    await event.wait()
    call()


def _feed(archive: tarfile.TarFile, member: tarfile.TarInfo, descriptor: int) -> Exception | None:
    """Write a member's text into a pipe until it ends, or nobody reads any more; returns what is wrong with it."""
    try:
        file = archive.extractfile(member)
        assert isinstance(file, BufferedReader)  # noqa: S101 - a regular file's
        with closing(_unpacked(file)) as text:
            while chunk := text.read(_CHUNK):
                while chunk:
                    chunk = chunk[os.write(descriptor, chunk) :]
    except BrokenPipeError:
        pass
    except _DAMAGE as error:
        return error
    return None


def _unpacked(file: BufferedReader) -> Any:
    """The text of a file that is compressed, or is not."""
    start = file.peek(4)[:4]
    if start.startswith(_GZIP):
        return igzip.IGzipFile(fileobj=file)  # type: ignore[no-untyped-call]
    if start == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file

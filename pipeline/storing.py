"""From the documents that the chain made to the moment when all of them are stored, parked or set aside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pipeline import letters
from pipeline.contract import Batch, Documents, Output, Written
from pipeline.database import StorageError
from pipeline.dead import DeadLetters
from pipeline.letters import Letter
from pipeline.since import Since

if TYPE_CHECKING:
    from pipeline.ledger import Account, Fate, Ledger
    from pipeline.metrics import Metrics
    from pipeline.parked import Entry, Parked

log = logging.getLogger("aiologs.delivery")

_UNPARK_SECONDS = 15.0
_UNPARK_BYTES = 4 << 20

T = TypeVar("T")


class Storing:
    """Writes to all outputs, and to our own databases what they do not take."""

    def __init__(
        self,
        outputs: Mapping[str, Output],
        dead: DeadLetters,
        parked: Parked,
        metrics: Metrics,
        ledger: Ledger,
        park_after: float,
    ) -> None:
        self._outputs, self._dead, self._parked, self._metrics = outputs, dead, parked, metrics
        self._ledger, self._park_after = ledger, park_after
        self.writing = Since()
        """Outputs that have a write under way."""
        self.troubles: dict[str, tuple[str, float]] = {}
        """What can't be written to our own databases: the purpose, the message, since when (seconds since 1970)."""

    async def store(self, documents: list[Documents], batches: Sequence[Batch], account: Account) -> None:
        """Write what was made of these batches to every output; it returns when all of it is durable."""
        writes = [asyncio.create_task(self._write(name, documents, batches, account)) for name in account.begin()]
        try:
            await asyncio.gather(*writes)
        except BaseException:
            # One has failed, or the run is given up: the others must not go on behind its end.
            for write in writes:
                write.cancel()
            await asyncio.wait(writes)
            raise

    async def _write(self, name: str, documents: list[Documents], batches: Sequence[Batch], account: Account) -> None:
        output, payload = self._outputs[name], merge(documents)
        if not payload:
            return
        with self.writing.during(name):
            written = await self._write_or_park(name, output, payload)
        account.decide_at(name, "stored", written.stored)
        account.decide_at(name, "already", written.already)
        if written.refused:
            await self.set_aside(letters.refused(name, written.refused, batches))
            account.decide_at(name, "set_aside", len(written.refused))
        if written.late:
            await self._durably(partial(self._parked.put, name, written.late), "park documents")
            account.decide_at(name, "parked", sum(late.count for late, _ in written.late))

    async def unpark(self, name: str, output: Output) -> None:
        """Try parked documents of one output again, for as long as it takes some, and a while at most."""
        skip: set[str] = set()  # indices that are still blocked
        # Where they are all that is written, an output takes them for an outage and would try for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNPARK_SECONDS):
                while entries := await self._parked.take(name, _UNPARK_BYTES, skip):
                    skip |= await self.write_parked(name, output, entries)

    async def write_parked(self, name: str, output: Output, entries: list[Entry]) -> set[str]:
        """Try parked documents of one output again; returns the indices of which something is still late."""
        by_index: dict[str, list[Entry]] = {}
        for entry in entries:
            by_index.setdefault(entry.documents.index, []).append(entry)
        late = set()
        for index, same in by_index.items():
            written = await output.write(merge([entry.documents for entry in same]))
            if written.late:
                late.add(index)
                continue
            await self.set_aside([letters.parked(name, refused) for refused in written.refused])
            await self._durably(partial(self._parked.done, [entry.key for entry in same]), "take out parked documents")
            self._ledger.unparked(name, _fates(written))
        return late

    async def _write_or_park(self, name: str, output: Output, payload: list[Documents]) -> Written:
        """Write; but park everything when only this output does not get it stored while another does."""
        write = asyncio.ensure_future(output.write(payload))
        try:
            while True:
                await asyncio.wait({write}, timeout=self._park_after if len(self._outputs) > 1 else None)
                if write.done():
                    return write.result()
                if self._another_stores(name):
                    log.warning("output %s does not store while others do: its documents are parked on disk", name)
                    reason = f"output {name} has not stored it within {self._park_after:g} s"
                    return Written(late=[(documents, reason) for documents in payload])
        finally:
            write.cancel()

    def _another_stores(self, name: str) -> bool:
        return any(not getattr(output, "blocked", None) for other, output in self._outputs.items() if other != name)

    async def set_aside(self, found: list[Letter]) -> None:
        """Keep dead letters durably, and count them."""
        if not found:
            return
        await self._durably(partial(self._dead.put, found), "set aside records")
        for where, n in Counter(letter.stage or letter.output for letter in found).items():
            self._metrics.count("set_aside", n, {"stage": where})

    async def _durably(self, write: Callable[[], Awaitable[T]], purpose: str) -> T:
        """Write to a database of ours, waiting for as long as the disk refuses: nothing is acknowledged meanwhile."""
        pause = 0.5
        while True:
            try:
                written = await write()
            except StorageError as error:
                if purpose not in self.troubles:
                    log.error("can't %s: %s. Inputs wait until it can be done", purpose, error)  # noqa: TRY400
                self.troubles[purpose] = str(error), self.troubles.get(purpose, ("", time.time()))[1]
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                self.troubles.pop(purpose, None)
                return written


def _fates(written: Written) -> dict[Fate, int]:
    return {"stored": written.stored, "already": written.already, "set_aside": len(written.refused)}


def merge(parts: list[Documents]) -> list[Documents]:
    """One section an index."""
    by_index: dict[str, list[Documents]] = {}
    for part in parts:
        by_index.setdefault(part.index, []).append(part)
    return [
        same[0]
        if len(same) == 1
        else Documents(index, b"".join(part.body for part in same), sum(part.count for part in same))
        for index, same in by_index.items()
    ]

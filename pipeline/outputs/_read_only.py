"""What becomes of documents for a read-only index: those that it lacks are added to it or go beside it.

Elasticsearch refuses every document of such an index, also those that it has. So their ids are looked up first, in the
index and in the replay indices of its day, and what is found is already there. Of the rest

- `add` lifts the block, and restores it `LEASE_SECONDS` later. What is to be restored is on disk before the block is
  lifted, so that a daemon that was killed restores it when it starts again. Several daemons need no agreement: who
  lifts a block remembers what it saw and restores just that, and who is met by a block that another one restored
  meanwhile begins again.
- `replay_index` writes to `<index>-1`, or the next one when that has become read-only itself: it ages as its day does,
  so its lifecycle soon makes it read-only. Only for indices named after a day.
- `set_aside` makes dead letters of them.
- `park` does nothing, as with any blocked index: nothing is looked up, and they wait until somebody lifts the block.

What can't be looked up or lifted, for want of a privilege for instance, waits as with `park`. An index that was found
read-only is not sent documents to be refused any more: they go this way at once, until it is found without its block.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal
from urllib.parse import quote

import orjson

from pipeline.contract import Context, Documents, Refused, bulk
from pipeline.outputs._answers import Again, Failed, Fates, Kind, failed
from pipeline.outputs.bulk import Request
from pipeline.outputs.indices import Ask, Standing, daily, existing, standings

log = logging.getLogger("aiologs.output")

Mode = Literal["replay_index", "add", "set_aside", "park"]

LEASE_SECONDS = 10.0
"""How long a lifted block stays lifted; who still writes then lifts it again."""
RETRY_MOST_SECONDS = 60.0
STOP_SECONDS = 5.0
"""What does not answer within that when the daemon stops is restored when it starts again."""
MOST_REPLAY_INDICES = 100
_KEY = "lifted/"


class ReadOnly:
    """Finds another way for documents that met a read-only index."""

    def __init__(self, mode: Mode, ask: Ask, context: Context, *, ids: bool) -> None:
        self._mode, self._ask, self._ids = mode, ask, ids
        self._name, self._count = context.name, context.count
        self._positions, self._settled = context.positions, context.settled
        self._changing = asyncio.Lock()
        self._lifted: dict[str, set[str]] = {}  # index → the blocks to restore
        self._restoring: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, str] = {}
        """Indices that were read-only when they were last looked at, and how they refused."""

    def start(self) -> None:
        """Restore the blocks that were lifted when the daemon ended unasked."""
        for key, value in self._positions.load().items():
            if key.startswith(_KEY):
                index = key.removeprefix(_KEY)
                log.info("output %s: index %s was left without its block, which is restored", self._name, index)
                self._lifted[index] = set(value["blocks"])
                self._restore_later(index, 0.0)

    async def stop(self) -> None:
        """Restore all blocks now."""
        for task in self._restoring.values():
            task.cancel()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                for index in [*self._lifted]:
                    await self._restore(index)
        except (TimeoutError, Failed) as error:
            which, reason = ", ".join(self._lifted), str(error) or "no answer"
            log.warning("output %s: %s: the block is restored at the next start: %s", self._name, which, reason)

    # --- another way ---

    def foreseen(self, request: Request) -> Fates | None:
        """What of a request need not be sent to be refused, the rest as to be sent; None: that is all of it."""
        if self._known.keys().isdisjoint(section.index for section in request.sections):
            return None
        return Fates(
            again=[
                Again(section, Kind.READ_ONLY, self._known[section.index])
                if section.index in self._known
                else Again(section, Kind.MOVED, "")
                for section in request.sections
            ]
        )

    async def settle(self, fates: Fates) -> None:
        """Decide what is `Kind.READ_ONLY`, or say how to send it (`Kind.MOVED`); or leave it as it is, to wait."""
        if self._mode == "park":
            return
        again, fates.again = fates.again, []
        for each in again:
            if each.kind is not Kind.READ_ONLY:
                fates.again.append(each)
                continue
            try:
                fates.again += await self._settle(each, fates)
            except Failed as failure:
                self._known.pop(each.documents.index, None)
                reason = f"{each.reason}; read_only: {self._mode} does not work: {failure.reason}"
                fates.again.append(Again(each.documents, Kind.READ_ONLY, reason))

    async def _settle(self, again: Again, fates: Fates) -> list[Again]:
        index, documents = again.documents.index, again.documents
        around = await self._around(index)
        known = self._known.pop(index, None)
        if index not in around and not known:
            return [again]  # an alias
        if index not in around or not around[index].blocks:
            return [Again(documents, Kind.MOVED, again.reason)]  # somebody has deleted it, or lifted the block
        self._known[index] = again.reason
        missing = await self._missing(documents, around)
        self._note("already", documents.count - len(missing))
        fates.already += documents.count - len(missing)
        if not missing:
            return []
        if self._mode == "set_aside":
            self._note("set_aside", len(missing))
            fates.refused += [Refused(index, id_, document, again.reason) for id_, document in missing]
            return []
        target = await self._target(index, around)
        if target is None:
            return [Again(bulk(index, missing), Kind.READ_ONLY, again.reason)]
        self._note(self._mode, len(missing))
        return [Again(bulk(target, missing), Kind.MOVED, again.reason)]

    async def _around(self, index: str) -> dict[str, Standing]:
        """The index, and where it is one of a day, that day's and its replay indices."""
        if (same := daily(index)) is None:
            return await standings(self._ask, [index], lifecycle=False)
        day, _ = same
        found = await standings(self._ask, [day, f"{day}-*"], lifecycle=False)
        return {name: each for name, each in found.items() if (daily(name) or ("",))[0] == day}

    async def _missing(self, documents: Documents, around: dict[str, Standing]) -> list[tuple[str, bytes]]:
        """The documents that none of these indices has; all of them where they have no ids of ours."""
        missing = [*documents.pairs()]
        if self._ids:
            for index in around:
                found = await existing(self._ask, index, [id_ for id_, _ in missing])
                missing = [(id_, document) for id_, document in missing if id_ not in found]
        return missing

    async def _target(self, index: str, around: dict[str, Standing]) -> str | None:
        """Where to write what is missing; None: nowhere now."""
        if self._mode == "add":
            await self._lift(index, around[index].blocks)
            return index
        if (same := daily(index)) is None:
            return None
        names = (f"{same[0]}-{number}" for number in range(1, MOST_REPLAY_INDICES))
        return next((name for name in names if name not in around or not around[name].blocks), None)

    def _note(self, fate: str, count: int) -> None:
        if count:
            self._count("read_only_documents", count, {"output": self._name, "fate": fate})

    # --- blocks ---

    async def _lift(self, index: str, blocks: frozenset[str]) -> None:
        async with self._changing:
            lifted = self._lifted.setdefault(index, set())
            lifted |= blocks
            self._positions.put(_KEY + index, {"blocks": sorted(lifted)})
            await self._settled()
            await self._set(index, dict.fromkeys(blocks))
            self._known.pop(index, None)
            if index not in self._restoring:
                self._restore_later(index, LEASE_SECONDS)

    def _restore_later(self, index: str, pause: float) -> None:
        task = asyncio.create_task(self._restore_after(index, pause), name=f"restore the block of {index}")
        self._restoring[index] = task

    async def _restore_after(self, index: str, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await self._restore(index)
            except Failed as failure:
                log.warning("output %s: the block of %s can't be restored yet: %s", self._name, index, failure.reason)
                pause = min(2 * pause + 1, RETRY_MOST_SECONDS)
            else:
                return

    async def _restore(self, index: str) -> None:
        async with self._changing:
            await self._set(index, dict.fromkeys(sorted(self._lifted[index]), True))
            self._positions.remove(_KEY + index)
            del self._lifted[index]
            self._restoring.pop(index, None)

    async def _set(self, index: str, blocks: dict[str, bool | None]) -> None:
        """Change blocks; one that was deleted needs none."""
        body = orjson.dumps({f"index.blocks.{name}": value for name, value in blocks.items()})
        status, answer = await self._ask("PUT", f"/{quote(index)}/_settings", body)
        if status not in {200, 404}:
            raise failed(status, answer)

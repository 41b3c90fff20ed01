"""How often, how long and in which pieces documents are sent to Elasticsearch again, until each has its fate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from pipeline.contract import Context, Documents, Refused, Written, bulk
from pipeline.outputs._answers import Again, Failed, Fates, Kind, summary
from pipeline.outputs._conflicts import FIELD, Conflicts, conflict, explained
from pipeline.outputs._health import Health
from pipeline.outputs._read_only import ReadOnly
from pipeline.outputs.bulk import Request

OVERLOADED_SECONDS = 60.0
"""To make inputs wait is the right answer to an overloaded cluster, so a 429 is parked far later than a blocked index;
but it is, since one hot node must not hold up the others for ever."""
SUSPECT = 3
"""So many times in a row others got through and this request did not: it is the request."""
FAULTS = 4
"""So many times Elasticsearch may fail on a document whose neighbours are stored."""
MOVES = 5
"""So many times the documents of a request may be sent another way; another daemon may restore a block meanwhile."""


@dataclass(slots=True, frozen=True)
class Pauses:
    """All in seconds."""

    first: float
    """Up to so long is the pause before the first retry; then twice as long each time."""
    most: float
    park_after: float
    """How long an index may take nothing while others do."""


@dataclass(slots=True)
class _Tries:
    """How one request fared until now."""

    began: float
    """When the write began that it is part of: what was taken since then are its neighbours."""
    sent: float = 0.0
    """When it was last sent."""
    n: int = 0
    suspicious: int = 0
    """How often in a row others got through meanwhile."""
    until: float = float("inf")
    """When one of its documents is to be parked."""
    moves: int = 0
    """How often some of its documents were sent another way."""
    alive: set[str] = field(default_factory=set)
    """Indices that took some of its documents."""


class Sender:
    """Sends requests, several at once, with `send`, which raises `Failed` where the documents have no fates."""

    def __init__(
        self,
        context: Context,
        send: Callable[[Request], Awaitable[Fates]],
        read_only: ReadOnly,
        conflicts: Conflicts | None,
        health: Health,
        pauses: Pauses,
    ) -> None:
        self._name, self._count = context.name, context.count
        self._read_only, self._conflicts = read_only, conflicts
        self._send, self._health, self._pauses = send, health, pauses
        self._failing: dict[str, float] = {}  # index → since when it has taken nothing

    async def store(self, parts: list[Request], written: Written) -> None:
        """Return when each document has its fate, and that is noted in `written`."""
        await self._store_all(parts, written, _now())

    async def _store_all(self, parts: list[Request], written: Written, began: float) -> None:
        if len(parts) == 1:
            await self._store(parts[0], written, began)
            return
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._store(part, written, began))

    async def _store(self, request: Request, written: Written, began: float) -> None:
        """Send until each document has its fate."""
        tries = _Tries(began)
        while request.sections:
            tries.sent = _now()
            known = self._read_only.foreseen(request) if not tries.moves else None
            result = known or await self._try(request)
            if isinstance(result, Failed):
                if self._is_to_blame(result, tries):
                    await self._divide(request, result, written, began)
                    return
                self._retry(request.count, result.kind)
                self._health.failed(summary(result.reason))
            else:
                if tries.moves < MOVES:
                    if result.again:
                        await self._read_only.settle(result)
                    if result.refused:
                        self._repair(result)
                moved = any(again.kind is Kind.MOVED for again in result.again)
                request = self._settle(result, written, tries)
                if moved:
                    tries.moves += 1
                    continue
            if request.sections:
                await self._health.pause(self._pause(tries))
                tries.n += 1

    async def _try(self, request: Request) -> Fates | Failed:
        """Send once. An error is a value without its traceback, which would keep the bodies while we wait."""
        try:
            return await self._send(request)
        except Failed as failure:
            return failure.with_traceback(None)

    def _pause(self, tries: _Tries) -> float:
        """Seconds until the next try: anything up to a limit that doubles, but no later than parking is due."""
        now = _now()
        most = min(self._pauses.most, self._pauses.first * 2 ** min(tries.n, 32))
        pause = random.uniform(0, most)  # noqa: S311 - this spreads load
        return min(pause, tries.until - now) if tries.until > now else pause

    def _retry(self, count: int, kind: Kind) -> None:
        self._count("bulk_retries", count, {"output": self._name, "reason": kind})

    # --- requests that fail as a whole ---

    def _is_to_blame(self, failure: Failed, tries: _Tries) -> bool:
        """Whether it is the request that fails, not the server."""
        if failure.kind in {Kind.TOO_LARGE, Kind.MALFORMED}:
            return True
        others = failure.kind in {Kind.AWAY, Kind.ODD} and self._health.took_since(tries.sent)
        tries.suspicious = tries.suspicious + 1 if others else 0
        return tries.suspicious >= SUSPECT

    async def _divide(self, request: Request, failure: Failed, written: Written, began: float) -> None:
        """Halve it; a single document is refused, or parked where it found no answer."""
        self._health.trouble(f"a request is divided: {summary(failure.reason)}", request.count)
        if request.count > 1:
            self._retry(request.count, failure.kind)
            halves = [*request.halves()]
            request.sections = []  # or it would stay beside its halves, and they beside theirs
            await self._store_all(halves, written, began)
        elif failure.kind is Kind.AWAY:
            written.late.append((request.sections[0], summary(failure.reason)))
        else:
            written.refused += _refused(request.sections[0], failure.reason)

    # --- answers ---

    def _settle(self, result: Fates, written: Written, tries: _Tries) -> Request:
        """Note what is decided; what is to be sent again."""
        written.stored += result.stored
        written.already += result.already
        if result.decided:
            self._health.took()
        for index in result.indices & self._failing.keys():
            del self._failing[index]
        tries.alive |= result.indices
        tries.suspicious, tries.until = 0, float("inf")
        if result.failure_store:
            self._count("failure_store", result.failure_store, {"output": self._name})
        kept = [again for again in result.again if not self._give_up(again, written, result, tries)]
        self._refuse(result.refused, written)
        if kept and not result.decided:
            self._tell_outage(kept)
        return Request([again.documents for again in kept])

    def _give_up(self, again: Again, written: Written, result: Fates, tries: _Tries) -> bool:
        """Refuse or park documents that have been sent often or long enough."""
        index = again.documents.index
        if again.kind is Kind.MOVED:
            return False
        if again.kind is Kind.FAULT and index in tries.alive:
            if tries.n + 1 >= FAULTS:
                result.refused += _refused(again.documents, again.reason)
                return True
        else:
            since = self._failing.setdefault(index, tries.sent)
            limit = since + self._patience(again.kind)
            if limit <= _now() and self._health.took_since(min(since, tries.began)):
                self._health.trouble(f"documents are parked: {summary(again.reason)}", again.documents.count)
                written.late.append((again.documents, summary(again.reason)))
                return True
            tries.until = min(tries.until, limit)
        self._retry(again.documents.count, again.kind)
        return False

    def _patience(self, kind: Kind) -> float:
        return max(OVERLOADED_SECONDS, self._pauses.park_after) if kind is Kind.BUSY else self._pauses.park_after

    def _tell_outage(self, kept: list[Again]) -> None:
        """Nothing was taken. Of an index that is in the way, only when others had the time to show that they work."""
        for again in kept:
            if again.kind is Kind.MOVED:
                return
            overdue = _now() - self._failing.get(again.documents.index, _now()) >= self._pauses.park_after
            if again.kind is Kind.BUSY or overdue:
                self._health.failed(summary(again.reason))
                return

    def _repair(self, result: Fates) -> None:
        """Send again what only a field was in the way of, without the field."""
        refused, result.refused = result.refused, []
        repaired: dict[str, list[tuple[str, bytes]]] = {}
        for each in refused:
            again = self._conflicts.repair(each) if self._conflicts else None
            if again is None:
                result.refused.append(each)
                continue
            document, (field, wanted) = again
            repaired.setdefault(each.index, []).append((each.id, document))
            what = f"index {each.index}: field {field} is to be: {wanted}; where it is not, it is moved to {FIELD}"
            self._health.trouble(what, 1)
        for index, pairs in repaired.items():
            self._count("documents_repaired", len(pairs), {"output": self._name})
            result.again.append(Again(bulk(index, pairs), Kind.MOVED, "a field was moved"))

    def _refuse(self, refused: list[Refused], written: Written) -> None:
        refused = [_explained(each) for each in refused]
        written.refused += refused
        reasons: dict[str, int] = {}
        for each in refused:
            what = f"index {each.index} refuses documents, they are set aside: {summary(each.reason)}"
            reasons[what] = reasons.get(what, 0) + 1
        for what, count in reasons.items():
            self._health.trouble(what, count)


def _explained(refused: Refused) -> Refused:
    found = conflict(refused.reason)
    return replace(refused, reason=explained(refused, found)) if found else refused


def _refused(documents: Documents, reason: str) -> list[Refused]:
    return [Refused(documents.index, id_, document, reason) for id_, document in documents.pairs()]


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The daemon's side of `aiologs tap`: hands over records as they come in, to its owner, over the control socket.

It only keeps references to batches that are at hand anyway, for those who ask, within bounds; whoever asks decodes,
selects and redacts for himself. So a tap costs the pipeline nothing that could be measured, nobody can hold it up, and
who is too slow loses records, which are counted.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.contract import Unusable

if TYPE_CHECKING:
    from pipeline.contract import Batch

BYTES = 4 << 20
"""What waits for one tap at most."""
TAPS = 4
RECORDS = 500
"""What one answer holds at most."""
SECONDS = 1.0
"""How long an answer waits for records."""
FORGET_SECONDS = 10.0
"""A tap that has not asked for so long is gone."""


@dataclass(slots=True)
class _Tap:
    input: str | None
    waiting: deque[Batch] = field(default_factory=deque)
    bytes: int = 0
    lost: int = 0
    asked: float = field(default_factory=time.monotonic)
    come: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, batch: Batch) -> None:
        if self.input not in {None, batch.input}:
            return
        if self.bytes and self.bytes + len(batch.block) > BYTES:
            self.lost += len(batch)
            return
        self.waiting.append(batch)
        self.bytes += len(batch.block)
        self.come.set()

    def take(self) -> list[dict[str, Any]]:
        """Some records of what waits; the rest of their batches is lost."""
        records: list[dict[str, Any]] = []
        while self.waiting and len(records) < RECORDS:
            batch = self.waiting.popleft()
            self.bytes -= len(batch.block)
            pairs = [*zip(batch.records(), batch.document_ids(), strict=True)]
            room = RECORDS - len(records)
            self.lost += max(0, len(pairs) - room)
            records += [
                {"input": batch.input, "id": id_, "origin": dict(batch.origin), "record": b64encode(record).decode()}
                for record, id_ in pairs[:room]
                if record
            ]
        if not self.waiting:
            self.come.clear()
        return records


class Taps:
    """All taps there are."""

    def __init__(self) -> None:
        self._taps: dict[str, _Tap] = {}

    def offer(self, batch: Batch) -> None:
        """A batch comes in."""
        if self._taps:
            for tap in self._taps.values():
                tap.offer(batch)

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next records for a tap, which begins when its name is first heard; and how many were lost on the way.

        Raises `Unusable` where there are too many.
        """
        self._forget()
        name = str(request["tap"])
        if name not in self._taps and len(self._taps) >= TAPS:
            raise Unusable(f"{TAPS} taps are open, more would cost too much: end one")
        tap = self._taps.setdefault(name, _Tap(request.get("input")))
        tap.asked = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS):
                await tap.come.wait()
        except TimeoutError:
            self._forget()
        records = tap.take()
        lost, tap.lost = tap.lost, 0
        return {"records": records, "lost": lost}

    async def end(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A tap says that it ends."""
        self._taps.pop(str(request["tap"]), None)
        return {}

    def _forget(self) -> None:
        long_ago = time.monotonic() - FORGET_SECONDS
        self._taps = {name: tap for name, tap in self._taps.items() if tap.asked > long_ago}

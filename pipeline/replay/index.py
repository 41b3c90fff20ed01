"""Reads an index of Elasticsearch: every document as it is stored, under its own id.

The stages get a document as they would a record: what they added the first time is there already and is set anew, and
the index is chosen anew, too. So with the same stages all is "already there"; with other ones, or into another output,
it is a reindexing through the pipeline.

A point in time is read, so that what is written meanwhile changes nothing. It is kept for ten minutes after the last
look: a replay that was interrupted for longer reads from the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from collections.abc import AsyncGenerator
from itertools import accumulate
from typing import Any

import orjson

from pipeline import registry
from pipeline.config import Config
from pipeline.contract import Batch, Context, Deliver, Unusable
from pipeline.outputs._answers import Failed
from pipeline.window import Window

log = logging.getLogger("aiologs.replay")

_KEEP = "10m"
_SIZE = 1000
_READ_AHEAD = 4
_PLACE = "place"
_PAUSES = (0.5, 1, 2, 4, 8, None)
"""Seconds between tries of a request that may be answered later."""

Place = dict[str, Any]
"""The point in time and the sort values of the last document delivered; or `done`."""


class IndexReader:
    """Reads with `search_after` over a point in time, in the order of the shards' documents."""

    def __init__(self, config: Config, index: str, context: Context) -> None:
        parts = [part for part in config.outputs.values() if part.type == "elasticsearch"]
        if not parts:
            raise Unusable(f"elasticsearch:{index}: the configuration has no output of type elasticsearch to read from")
        self._index, self._context = index, context
        self._output = registry.find("output", "elasticsearch")(parts[0].options, context)

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver all documents; raises `Unusable` where they can't be read."""
        place = self._context.positions.load().get(_PLACE, {})
        if place.get("done"):
            return
        window: Window[Place] = Window(deliver, lambda place: self._context.positions.put(_PLACE, place), _READ_AHEAD)
        await self._output.start()
        try:
            async with contextlib.aclosing(self._pages(place)) as pages:
                async for hits, place in pages:
                    if stop.is_set():
                        break
                    await window.room()
                    window.submit(self._batch(hits), place)
            await window.drain()
            if not stop.is_set():
                await self._ask("DELETE", "/_pit", {"id": place["pit"]})
                self._context.positions.put(_PLACE, {"done": True})
        finally:
            window.cancel()
            await self._output.stop()

    async def _pages(self, place: Place) -> AsyncGenerator[tuple[list[dict[str, Any]], Place], None]:
        """The documents behind a place, some at a time, each with the place behind them."""
        pit, after = place.get("pit"), place.get("after")
        while True:
            if pit is None:
                answer = await self._ask("POST", f"/{self._index}/_pit?keep_alive={_KEEP}")
                pit, after = answer["id"], None
            body = {
                "size": _SIZE,
                "pit": {"id": pit, "keep_alive": _KEEP},
                "sort": ["_shard_doc"],
                "track_total_hits": False,
                **({"search_after": after} if after else {}),
            }
            answer = await self._ask("POST", "/_search", body, gone=True)
            if not answer:
                log.warning("elasticsearch:%s: the point in time has expired; reading from the beginning", self._index)
                pit = None
                continue
            hits = answer["hits"]["hits"]
            pit, after = answer["pit_id"], hits[-1]["sort"] if hits else after
            yield hits, {"pit": pit, "after": after}
            if len(hits) < _SIZE:
                return

    async def _ask(self, method: str, target: str, body: object = None, *, gone: bool = False) -> dict[str, Any]:
        """A request and its answer; {} for a 404 where `gone` allows it. Raises `Unusable`."""
        data = None if body is None else orjson.dumps(body)
        for pause in _PAUSES:
            try:
                status, answer = await self._output.ask(method, target, data)
            except Failed as error:
                reason = error.reason
            else:
                if status == 200:
                    return dict(orjson.loads(answer))
                if status == 404 and gone:
                    return {}
                reason = f"the server answers {status}: {_reason(answer)}"
                if status not in {429, 502, 503, 504}:
                    break
            if pause is not None:
                await asyncio.sleep(pause)
        raise Unusable(f"elasticsearch:{self._index}: {reason}")

    def _batch(self, hits: list[dict[str, Any]]) -> Batch:
        sources = [orjson.dumps(hit["_source"]) for hit in hits]
        ends = array("Q", accumulate(map(len, sources)))
        ids = [hit["_id"] for hit in hits]
        return Batch(self._context.name, b"".join(sources), "elasticsearch", ends=ends, ids=ids)


def _reason(answer: bytes) -> str:
    try:
        return str(orjson.loads(answer)["error"]["reason"])
    except (ValueError, LookupError, TypeError):
        return repr(answer[:200].decode(errors="replace"))

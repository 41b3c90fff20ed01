"""A fake Elasticsearch that goes wrong at random, in a process of its own; `mode()` says how.

Modes: `well`; `refuse` (each connection is reset); `flap` (most requests are answered well, 10 % each with 429, 503, a
reset before or after the documents are stored, a hang, half of the items, items of 429 or 503, or 403). Whatever the
mode, until it is `healed`

- a document with `poison` is refused with 400,
- a request with a document of more than 100,000 bytes is answered 413,
- an index `closed-…` takes nothing.
"""

import asyncio
import random
import sys
import time
import urllib.request
from pathlib import Path

import orjson
from aiohttp import web

# It runs as a script, too.
sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.crash.elastic import Elastic, Store, main

TOO_LARGE = 100_000
HANG_SECONDS = 4.0
TROUBLES = ("429", "503", "reset", "cut", "hang", "half", "items", "403")
POISON = '{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse: poison"}}}'
CLOSED = '{"create":{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}}'
ITEM = '{{"create":{{"status":{},"error":{{"type":"made_up_exception","reason":"as the test wants it"}}}}}}'


class Flapping(Store):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.healed = "well", False
        self.random = random.Random(20261125)
        self.met = dict.fromkeys(TROUBLES, 0)
        self.delays: list[float] = []
        """How long after they were written documents came, in seconds, since the mode was set."""

    async def mode(self, request: web.Request) -> web.Response:
        self.kind, self.healed = request.query["kind"], request.query["healed"] == "True"
        self.delays.clear()
        return web.json_response({})

    async def told(self, _: web.Request) -> web.Response:
        return web.json_response({"met": self.met, "slowest": max(self.delays, default=0.0)})

    async def bulk(self, request: web.Request) -> web.StreamResponse:
        lines = (await request.read()).split(b"\n")
        pairs = [*zip(lines[::2], lines[1::2], strict=False)]
        trouble = self.kind
        if trouble == "flap":
            trouble = self.random.choice(TROUBLES) if self.random.random() < len(TROUBLES) / 10 else "well"
            if trouble in self.met:
                self.met[trouble] += 1
        if trouble in {"refuse", "reset"}:
            return self.abort(request)
        if trouble in {"429", "503", "403"}:
            error = {"root_cause": [], "type": "made_up_exception", "reason": "as the test wants it"}
            return web.json_response({"error": error}, status=int(trouble))
        if not self.healed and any(len(document) > TOO_LARGE for _, document in pairs):
            return web.Response(status=413)
        items = [self.fate(action, document, trouble) for action, document in pairs]
        self.arrivals.append((time.monotonic(), len(items)))
        if trouble == "half":
            items = items[: len(items) // 2]
        text = f'{{"took":1,"errors":true,"items":[{",".join(items)}]}}'
        if trouble == "hang":
            await asyncio.sleep(HANG_SECONDS)
        return await self.cut(request, text.encode()) if trouble == "cut" else self.answer(text)

    async def cut(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Half an answer."""
        response = web.StreamResponse(headers={"content-length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        self.abort(request)
        return response

    @staticmethod
    def abort(request: web.Request) -> web.Response:
        if request.transport:
            request.transport.abort()
        return web.Response()

    def fate(self, action: bytes, document: bytes, trouble: str) -> str:
        """The answer's item for a document."""
        if trouble == "items" and self.random.random() < 0.3:
            return ITEM.format(self.random.choice((429, 503)))
        if not self.healed and b'"poison":true' in document:
            return POISON
        if not self.healed and b'"_index":"closed-' in action:
            return CLOSED
        self.delays.append(time.time() - orjson.loads(document)["written"])
        return self.item(action, document)


class Flapper(Elastic):
    """It, seen from the test."""

    def mode(self, kind: str, *, healed: bool = False) -> None:
        """From now on, fare so; `healed`: take every document."""
        urllib.request.urlopen(f"{self.url}/_mode?kind={kind}&healed={healed}", timeout=60).close()

    def told(self) -> tuple[dict[str, int], float]:
        """How often each trouble was met; how late the slowest document came since the mode was set, in seconds."""
        with urllib.request.urlopen(f"{self.url}/_told", timeout=60) as reply:
            answer = orjson.loads(reply.read())
        return answer["met"], answer["slowest"]


if __name__ == "__main__":
    store = Flapping()
    main(store, web.get("/_mode", store.mode), web.get("/_told", store.told))

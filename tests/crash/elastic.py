"""A fake Elasticsearch in a process of its own: it keeps documents by (index, id) in memory and counts what came.

Documents carry a running number `n`. It outlives the daemons of a test, so it knows what was sent twice.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import orjson
from aiohttp import web

ABOUT = {"cluster_name": "fake", "version": {"number": "9.2.0"}, "tagline": "You Know, for Search"}
CREATED, CONFLICT = '"status":201', '"status":409,"error":{"type":"version_conflict_engine_exception"}'


@dataclass
class Findings:
    """What the fake knows of the numbers that should have come."""

    missing: list[int]
    twice: list[int]
    stored: int
    repeats: int
    """How often a document was sent that was there already."""
    busiest: int
    """The most documents that came within the seconds asked about."""


class Store:
    """What was accepted."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, set[str]] = defaultdict(set)
        """The ids of each index."""
        self.numbers = bytearray()
        """How often each number was stored: there may be millions."""
        self.repeats = 0
        self.blocked = False
        self.arrivals: list[tuple[float, int]] = []
        """When each request came, and how many documents it had."""

    def item(self, action: bytes, document: bytes) -> str:
        target = orjson.loads(action)["create"]
        index, id_ = target["_index"], target["_id"]
        if id_ in self.ids[index]:
            self.repeats, fate = self.repeats + 1, CONFLICT
        else:
            self.ids[index].add(id_)
            self.number(orjson.loads(document)["n"])
            fate = CREATED
        return f'{{"create":{{"_index":"{index}","_id":"{id_}",{fate}}}}}'

    def number(self, n: int) -> None:
        if n >= len(self.numbers):
            self.numbers.extend(bytes(n + 1 - len(self.numbers)))
        self.numbers[n] = min(255, self.numbers[n] + 1)

    async def bulk(self, request: web.Request) -> web.StreamResponse:
        lines = (await request.read()).split(b"\n")
        if self.blocked:
            raise web.HTTPServiceUnavailable
        items = [self.item(action, document) for action, document in zip(lines[::2], lines[1::2], strict=False)]
        self.arrivals.append((time.monotonic(), len(items)))
        return self.answer(f'{{"took":1,"errors":true,"items":[{",".join(items)}]}}')

    async def oracle(self, request: web.Request) -> web.Response:
        numbers = range(int(request.query["first"]), int(request.query["numbers"]))
        missing = [n for n in numbers if n >= len(self.numbers) or not self.numbers[n]]
        twice = [n for n, count in enumerate(self.numbers) if count > 1]
        stored, busiest = sum(map(len, self.ids.values())), self.busiest(float(request.query["seconds"]))
        return web.json_response(asdict(Findings(missing, twice, stored, self.repeats, busiest)))

    async def count(self, _: web.Request) -> web.Response:
        return web.json_response(sum(map(len, self.ids.values())))

    async def block(self, request: web.Request) -> web.Response:
        self.blocked = request.query["on"] == "True"
        return web.json_response({})

    def busiest(self, seconds: float) -> int:
        """The most documents that came within so many seconds."""
        most = count = first = 0
        for moment, size in self.arrivals:
            count += size
            while self.arrivals[first][0] < moment - seconds:
                count -= self.arrivals[first][1]
                first += 1
            most = max(most, count)
        return most

    async def about(self, _: web.Request) -> web.Response:
        return self.answer(json.dumps(ABOUT))

    @staticmethod
    def answer(text: str) -> web.Response:
        return web.Response(
            text=text,
            content_type="application/vnd.elasticsearch+json",
            headers={"X-Elastic-Product": "Elasticsearch"},
        )


@dataclass
class Elastic:
    """The fake, seen from the test."""

    url: str

    def findings(self, numbers: int, seconds: float = 1, first: int = 0) -> Findings:
        """About the numbers below this one, and the busiest of so many seconds."""
        query = f"first={first}&numbers={numbers}&seconds={seconds}"
        with urllib.request.urlopen(f"{self.url}/_oracle?{query}", timeout=60) as reply:
            return Findings(**json.load(reply))

    def stored(self) -> int:
        """How many documents it has: asked often, this costs it nothing."""
        with urllib.request.urlopen(f"{self.url}/_count", timeout=60) as reply:
            return int(reply.read())

    def block(self, *, on: bool) -> None:
        """Have it answer 503 to every bulk request, or no more."""
        urllib.request.urlopen(f"{self.url}/_block?on={on}", timeout=60).close()


@contextmanager
def elastic(program: str = __file__) -> Iterator[Elastic]:
    """A fake Elasticsearch for the time of a block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen([sys.executable, program, str(listener.fileno())], pass_fds=[listener.fileno()])
    try:
        fake = Elastic(f"http://127.0.0.1:{port}")
        fake.findings(0)  # the socket listens from the first; this waits for an answer
        yield fake
    finally:
        process.kill()
        process.wait()


def main(store: Store, *routes: web.RouteDef) -> None:
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/", store.about),
            web.get("/_oracle", store.oracle),
            web.get("/_block", store.block),
            web.get("/_count", store.count),
            web.post("/_bulk", store.bulk),
            web.put("/_bulk", store.bulk),
            *routes,
        ]
    )
    web.run_app(app, sock=socket.socket(fileno=int(sys.argv[1])), print=lambda *_: None)


if __name__ == "__main__":
    main(Store())

"""How fast the Elasticsearch output stores documents, beside a bare client that sends the very same bodies.

usage: python -m bench.bulk URL [--documents N] [--rounds N]
With ids and without. Each round stores everything once each way, in new indices, which are deleted; the best round of
each counts, since whatever else the machine does only makes one slower.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

import aiohttp
import orjson

from pipeline.contract import Context, Documents, bulk
from pipeline.outputs._answers import FILTER
from pipeline.outputs.bulk import Request
from pipeline.outputs.elasticsearch import Elasticsearch

INDEX = "aiologs-bench-bulk"
TOGETHER = 2000
CONCURRENCY = 4

Store = Callable[[Documents], Awaitable[None]]


class Nothing:
    """Positions of an output that keeps none."""

    damaged = False

    def load(self) -> dict[str, dict[str, object]]:
        """None."""
        return {}

    def put(self, key: str, value: dict[str, object]) -> None:
        """Nobody reads it."""

    def remove(self, key: str) -> None:
        """It is not there."""


def bodies(count: int) -> list[Documents]:
    """Documents of some 350 bytes, as many in each request."""
    made = []
    for first in range(0, count, TOGETHER):
        pairs = [(f"1f0c2d{n:014x}-{n * 350}", document(n)) for n in range(first, min(first + TOGETHER, count))]
        made.append(bulk(INDEX, pairs))
    return made


def document(n: int) -> bytes:
    """One that looks like a line of a web service's log."""
    return orjson.dumps(
        {
            "@timestamp": f"2026-11-20T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.{n % 1000:03}Z",
            "message": f"GET /api/orders/{n * 7919 % 100_000} took {n % 977} ms for customer {n * 31 % 5000}",
            "severity": 9,
            "correlationId": f"{n * 2654435761 % 2**32:08x}-{n:08x}",
            "client": {"ip": f"10.{n % 256}.{n // 256 % 256}.7"},
            "http": {"status": 200 + n % 3, "ms": n % 977},
            "tags": ["production", "eu-1"],
        }
    )


async def all_of(payloads: list[Documents], store: Store) -> float:
    """Store all, some at once; the documents a second."""
    waiting = iter(payloads)

    async def work() -> None:
        for payload in waiting:
            await store(payload)

    gc.collect()
    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return sum(payload.count for payload in payloads) / (time.monotonic() - started)


async def bare(url: str, payloads: list[Documents], *, ids: bool) -> float:
    """What reads each answer and no more."""
    headers = {"content-type": "application/x-ndjson"}
    ready = {id(payload): b"".join(Request([payload]).body(ids=ids)) for payload in payloads}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def store(payload: Documents) -> None:
            async with session.post(f"{url}/_bulk?filter_path={FILTER}", data=ready[id(payload)]) as reply:
                answer = await reply.read()
                assert b'"errors":false' in answer, answer[:500]

        return await all_of(payloads, store)


async def output(url: str, payloads: list[Documents], *, ids: bool) -> float:
    """The output as the daemon uses it."""
    options = Elasticsearch.Options(hosts=[url], document_id=ids, concurrency=CONCURRENCY, setup="off")
    es = Elasticsearch(options, Context("es", "bench", Nothing()))
    await es.start()
    await es.ask("GET", "/")  # the client is imported by then

    async def store(payload: Documents) -> None:
        written = await es.write([payload])
        assert written.stored == payload.count, written

    try:
        return await all_of(payloads, store)
    finally:
        await es.stop()


async def compare(url: str, payloads: list[Documents], rounds: int) -> None:
    """Print the best round of each."""
    best: dict[tuple[str, bool], float] = {}
    for _ in range(rounds):
        for ids in (True, False):
            for name, measured in (("bare client", bare), ("output", output)):
                await fresh(url)
                best[name, ids] = max(best.get((name, ids), 0), await measured(url, payloads, ids=ids))
    async with aiohttp.ClientSession() as session:
        await session.delete(f"{url}/{INDEX}")
    for ids in (True, False):
        client, ours = best["bare client", ids], best["output", ids]
        print(f"ids {'on ' if ids else 'off'}: {ours:.0f} documents a second, {client:.0f} bare: {ours / client:.0%}")
    print(f"ids cost {1 - best['output', True] / best['output', False]:.0%}")


async def fresh(url: str) -> None:
    """An empty index."""
    async with aiohttp.ClientSession() as session:
        await session.delete(f"{url}/{INDEX}")
        settings = {"settings": {"number_of_replicas": 0, "refresh_interval": "30s"}}
        async with session.put(f"{url}/{INDEX}", json=settings) as reply:
            reply.raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    asyncio.run(compare(args.url.rstrip("/"), bodies(args.documents), args.rounds))


if __name__ == "__main__":
    main()

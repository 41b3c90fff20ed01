"""A real Elasticsearch with indices of one test only, and an output that writes to it."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson

from pipeline.contract import Context, Payload, bulk
from pipeline.outputs.elasticsearch import Elasticsearch
from tests.memory import Memory


class Cluster:
    """The real one, with indices of this test only."""

    def __init__(self, url: str) -> None:
        self.url, self.prefix = url, f"aiologs-test-{uuid4().hex[:8]}-"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data, method=method, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def index(self, name: str, settings: dict[str, Any] | None = None, **body: Any) -> str:
        """Make an index; its full name."""
        settings = {"number_of_replicas": 0, **(settings or {})}
        self.ask("PUT", self.prefix + name, {"settings": settings, **body})
        return self.prefix + name

    def count(self, index: str) -> int:
        self.ask("POST", f"{index}/_refresh")
        return int(self.ask("GET", f"{index}/_count")["count"])

    def numbers(self, index: str) -> list[int]:
        """The field `n` of all documents, in order. (A cardinality is never exact.)"""
        self.ask("POST", f"{index}/_refresh")
        found: list[int] = []
        pages: dict[str, Any] = {"size": 50_000, "sources": [{"n": {"terms": {"field": "n"}}}]}
        while True:
            answer = self.ask("POST", f"{index}/_search", {"size": 0, "aggs": {"n": {"composite": pages}}})
            for each in answer["aggregations"]["n"]["buckets"]:
                found += [each["key"]["n"]] * each["doc_count"]
            if (after := answer["aggregations"]["n"].get("after_key")) is None:
                return found
            pages["after"] = after


@asynccontextmanager
async def output(url: str, **options: Any) -> AsyncIterator[Elasticsearch]:
    settings = Elasticsearch.Options(hosts=[url], **({"retry_first": 0.05, "park_after": 0.3} | options))
    output = Elasticsearch(settings, Context("es", "host", Memory()))
    await output.start()
    try:
        async with asyncio.timeout(60):
            yield output
    finally:
        await output.stop()


def docs(index: str, count: int, **fields: Any) -> Payload:
    return [bulk(index, [(f"id-{n}", orjson.dumps({"n": n, **fields})) for n in range(count)])]

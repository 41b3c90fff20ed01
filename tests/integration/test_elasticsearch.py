"""The Elasticsearch output against a real Elasticsearch, and the fake of the other tests against it too."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from pipeline.contract import Context, Documents, Payload, Written, bulk
from pipeline.outputs.elasticsearch import Elasticsearch
from pipeline.outputs.indices import Standing, existing, standings
from tests.fake_elasticsearch import CLOSED, MISSING, READ_ONLY, FakeElasticsearch
from tests.memory import Memory

pytestmark = pytest.mark.elasticsearch


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


@pytest.fixture
def cluster(elasticsearch_url: str) -> Iterator[Cluster]:
    cluster = Cluster(elasticsearch_url)
    # Without replicas, a single node is all there.
    cluster.ask(
        "PUT",
        f"_index_template/{cluster.prefix}t",
        {
            "index_patterns": [f"{cluster.prefix}*"],
            "priority": 1000,
            "template": {"settings": {"number_of_replicas": 0}},
        },
    )
    yield cluster
    cluster.ask("DELETE", f"_index_template/{cluster.prefix}t")
    names = cluster.ask("GET", f"{cluster.prefix}*?expand_wildcards=all&features=aliases")
    for name in names:
        cluster.ask("DELETE", name)


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


async def test_ten_thousand_documents_and_again(cluster):
    index = f"{cluster.prefix}many"
    async with output(cluster.url, max_request_bytes=100_000) as es:
        assert await es.write(docs(index, 10_000)) == Written(stored=10_000)
        assert await es.write(docs(index, 10_000)) == Written(already=10_000)
    assert cluster.count(index) == 10_000


async def test_compressed_requests(cluster):
    index = f"{cluster.prefix}gzip"
    async with output(cluster.url, compress="gzip") as es:
        assert await es.write(docs(index, 1000)) == Written(stored=1000)
    assert cluster.count(index) == 1000


async def test_without_ids_every_repeat_is_stored(cluster):
    index = f"{cluster.prefix}anonymous"
    async with output(cluster.url, document_id=False) as es:
        for _ in range(2):
            assert await es.write(docs(index, 10)) == Written(stored=10)
    assert cluster.count(index) == 20


async def test_a_type_that_the_mapping_does_not_take_is_refused_with_field_and_types(cluster):
    index = cluster.index("types", mappings={"properties": {"n": {"type": "long"}, "o": {"properties": {}}}})
    pairs = [("1", b'{"n":1}'), ("2", b'{"n":"abc"}'), ("3", b'{"n":{"a":1}}'), ("4", b'{"o":5}')]
    async with output(cluster.url) as es:
        written = await es.write([bulk(index, pairs)])
    assert (written.stored, [each.id for each in written.refused]) == (1, ["2", "3", "4"])
    assert "failed to parse field [n] of type [long]" in written.refused[0].reason
    assert "object mapping for [o] tried to parse field [o] as object" in written.refused[2].reason
    assert written.refused[0].document == b'{"n":"abc"}'


async def test_indices_that_take_nothing_are_parked_and_the_others_stored(cluster):
    live = cluster.index("live")
    old = cluster.index("old", {"index.blocks.write": True})
    shut = cluster.index("shut")
    cluster.ask("POST", f"{shut}/_close")
    first, second = cluster.index("first"), cluster.index("second")
    alias = f"{cluster.prefix}alias"
    adds = [{"add": {"index": name, "alias": alias}} for name in (first, second)]
    cluster.ask("POST", "_aliases", {"actions": adds})
    async with output(cluster.url) as es:
        written = await es.write([part for name in (live, old, shut, alias) for part in docs(name, 3)])
        late = {documents.index: (documents.count, reason) for documents, reason in written.late}
        assert written.stored == 3
        assert {name: count for name, (count, _) in late.items()} == {old: 3, shut: 3, alias: 3}
        assert "lift the block" in late[old][1]
        assert "_open" in late[shut][1]
        assert "is_write_index" in late[alias][1]
        assert es.blocked is None
        cluster.ask("PUT", f"{old}/_settings", {"index.blocks.write": None})
        assert await es.write(docs(old, 3)) == Written(stored=3)


async def test_an_index_that_may_not_be_made_is_parked(cluster):
    cluster.ask("PUT", "_cluster/settings", {"persistent": {"action.auto_create_index": f"-{cluster.prefix}no*,+*"}})
    try:
        live, missing = cluster.index("yes"), f"{cluster.prefix}no"
        async with output(cluster.url) as es:
            written = await es.write(docs(live, 1) + docs(missing, 1))
    finally:
        cluster.ask("PUT", "_cluster/settings", {"persistent": {"action.auto_create_index": None}})
    (late,) = written.late
    assert (written.stored, late[0].index) == (1, missing)
    assert "index_not_found_exception" in late[1]


async def test_no_room_for_another_shard_is_parked(cluster):
    live = cluster.index("before")
    cluster.ask("PUT", "_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 1}})
    try:
        async with output(cluster.url) as es:
            written = await es.write(docs(live, 1) + docs(f"{cluster.prefix}after", 1))
    finally:
        cluster.ask("PUT", "_cluster/settings", {"persistent": {"cluster.max_shards_per_node": None}})
    assert (written.stored, len(written.late)) == (1, 1)
    assert "max_shards_per_node" in written.late[0][1]


async def test_what_comes_to_a_data_stream_is_created(cluster):
    name = f"{cluster.prefix}stream"
    cluster.ask(
        "PUT",
        f"_index_template/{name}",
        {"index_patterns": [name], "priority": 2000, "data_stream": {}, "template": {"settings": {}}},
    )
    try:
        async with output(cluster.url) as es:
            payload = docs(name, 5, **{"@timestamp": "2026-11-20T10:00:00Z"})
            assert await es.write(payload) == Written(stored=5)
            assert await es.write(payload) == Written(already=5)
            written = await es.write(docs(name, 1))
            assert "timestamp field [@timestamp] is missing" in written.refused[0].reason
    finally:
        cluster.ask("DELETE", f"_data_stream/{name}")
        cluster.ask("DELETE", f"_index_template/{name}")


# --- old days ---


@pytest.fixture
def lifecycle(cluster: Cluster) -> Iterator[Cluster]:
    """Indices that turn read-only after 7 days and are deleted after 90, counted from the day in their name."""
    policy = {"warm": {"min_age": "7d", "actions": {"readonly": {}}}, "delete": {"min_age": "90d", "actions": {}}}
    policy["delete"]["actions"] = {"delete": {}}
    settings = {
        "number_of_replicas": 0,
        "index.lifecycle.name": cluster.prefix + "p",
        "index.lifecycle.parse_origination_date": True,
    }
    cluster.ask("PUT", f"_ilm/policy/{cluster.prefix}p", {"policy": {"phases": policy}})
    cluster.ask(
        "PUT",
        f"_index_template/{cluster.prefix}t",
        {"index_patterns": [f"{cluster.prefix}*"], "priority": 1000, "template": {"settings": settings}},
    )
    yield cluster
    for name in cluster.ask("GET", f"{cluster.prefix}*"):
        cluster.ask("DELETE", name)
    cluster.ask("DELETE", f"_ilm/policy/{cluster.prefix}p")


def day(cluster: Cluster, ago: int) -> tuple[str, float]:
    """The index of a day, and when that day began."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    then = today - timedelta(days=ago)
    return f"{cluster.prefix}{then:%Y.%m.%d}", then.timestamp()


async def until_read_only(es: Elasticsearch, index: str) -> Standing:
    async with asyncio.timeout(40):
        while not (standing := (await standings(es.ask, [index])).get(index, Standing(index))).blocks:
            await asyncio.sleep(0.5)
    return standing


async def test_the_index_of_a_line_of_100_days_ago_is_deleted_on_its_day_and_so_is_its_replay_index(lifecycle):
    (old, _), (young, began) = day(lifecycle, 100), day(lifecycle, 80)
    async with output(lifecycle.url) as es:
        assert await es.write(docs(old, 1) + docs(f"{old}-1", 1) + docs(young, 1)) == Written(stored=3)
        async with asyncio.timeout(40):
            while await standings(es.ask, [f"{old}*"]):
                await asyncio.sleep(0.5)
        standing = await until_read_only(es, young)
        assert (standing.phase, standing.blocks) == ("warm", frozenset({"write"}))
        assert standing.deleted == began + 90 * 86400


async def test_documents_for_a_warm_day_go_into_its_replay_index(lifecycle):
    index, began = day(lifecycle, 30)
    async with output(lifecycle.url) as es:
        assert await es.write(docs(index, 3)) == Written(stored=3)
        await until_read_only(es, index)
        assert await es.write(docs(index, 5)) == Written(stored=2, already=3)
        beside = await until_read_only(es, f"{index}-1")
        assert beside.deleted == began + 90 * 86400
        assert await es.write(docs(index, 6)) == Written(stored=1, already=5)
    counts = [lifecycle.count(f"{index}{suffix}") for suffix in ("", "-1", "-2")]
    assert counts == [3, 2, 1]


@pytest.mark.parametrize("block", ["write", "read_only"])
async def test_documents_are_added_to_a_read_only_index_and_its_block_is_restored(cluster, block):
    index = f"{cluster.prefix}2026.08.01"
    async with output(cluster.url, read_only="add") as es:
        assert await es.write(docs(index, 3)) == Written(stored=3)
        cluster.ask("PUT", f"{index}/_settings", {f"index.blocks.{block}": True})
        assert await es.write(docs(index, 5)) == Written(stored=2, already=3)
        assert await existing(es.ask, index, [f"id-{n}" for n in range(9)]) == {f"id-{n}" for n in range(5)}
    blocks = cluster.ask("GET", f"{index}/_settings")[index]["settings"]["index"]["blocks"]
    assert blocks[block] == "true"
    cluster.ask("PUT", f"{index}/_settings", {f"index.blocks.{block}": None})


# --- the fake is as the real one ---


def scenario(prefix: str) -> Payload:
    """Everything that both can be brought to answer."""
    long_id = "x" * 600
    return [
        bulk(f"{prefix}logs", [("1", b'{"n":1}'), ("2", b'{"n":"abc"}'), ("1", b'{"n":3}'), (long_id, b"{}")]),
        bulk(f"{prefix}old", [("1", b"{}")]),
        bulk(f"{prefix}shut", [("1", b"{}")]),
        bulk(f"{prefix}none", [("1", b"{}")]),
    ]


def told(written: Written, prefix: str) -> dict[str, Any]:
    """What is the same on both: numbers, fates, and reasons without the lengths of names."""

    def plain(text: str) -> str:
        return text.replace(prefix, "").split(" Preview")[0].split("; caused by")[0].split(" … ")[0][:120]

    def late(documents: Documents, reason: str) -> tuple[str, int, str]:
        return documents.index.removeprefix(prefix), documents.count, plain(reason)

    return {
        "stored": written.stored,
        "already": written.already,
        "refused": sorted((each.id, plain(each.reason)) for each in written.refused),
        "late": sorted(late(*each) for each in written.late),
    }


async def test_the_fake_answers_as_the_real_one(cluster):
    cluster.index("logs", mappings={"properties": {"n": {"type": "long"}}})
    cluster.index("old", {"index.blocks.write": True})
    shut = cluster.index("shut")
    cluster.ask("POST", f"{shut}/_close")
    none = f"{cluster.prefix}none"
    cluster.ask("PUT", "_cluster/settings", {"persistent": {"action.auto_create_index": f"-{none},+*"}})
    try:
        async with output(cluster.url) as es:
            real = told(await es.write(scenario(cluster.prefix)), cluster.prefix)
    finally:
        cluster.ask("PUT", "_cluster/settings", {"persistent": {"action.auto_create_index": None}})
    async with FakeElasticsearch() as fake:
        fake.long_fields = {"n"}
        fake.indices |= {"old": READ_ONLY, "shut": CLOSED, "none": MISSING}
        async with output(fake.url) as es:
            made_up = told(await es.write(scenario("")), "")
    assert made_up == real

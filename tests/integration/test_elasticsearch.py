"""The Elasticsearch output against a real Elasticsearch, and the fake of the other tests against it too."""

from typing import Any

import pytest

from pipeline.contract import Documents, Payload, Written, bulk
from tests.fake_elasticsearch import CLOSED, MISSING, READ_ONLY, FakeElasticsearch
from tests.integration.cluster import docs, output

pytestmark = pytest.mark.elasticsearch


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


async def test_sniffing_understands_the_nodes_of_the_cluster(cluster, caplog):
    async with output(cluster.url, sniff=True) as es:
        for n in range(5):
            assert await es.write(docs(f"{cluster.prefix}sniff-{n}", 10)) == Written(stored=10)
    assert "can't be learned" not in caplog.text


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

"""Days that a lifecycle makes read-only and deletes, on a real Elasticsearch that looks at them each second."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.contract import Written
from pipeline.outputs.elasticsearch import Elasticsearch
from pipeline.outputs.indices import Standing, existing, standings
from tests.integration.cluster import Cluster, docs, output

pytestmark = pytest.mark.elasticsearch


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

"""Replays into and out of a real Elasticsearch, and from a real broker."""

import asyncio
import json
import sqlite3
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.contract import Unusable
from pipeline.replay.sources import moment
from tests.crash.daemon import LONG, wait_until
from tests.integration.cluster import Cluster
from tests.replay.conftest import Rig

DAYS, OLD = 14, 7
A_DAY, MISSING = (28_600, 1_000) if LONG else (500, 20)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def cluster(cluster: Cluster) -> Iterator[Cluster]:
    """With a lifecycle that makes the older days read-only."""
    phases = {
        "warm": {"min_age": f"{OLD}d", "actions": {"readonly": {}}},
        "delete": {"min_age": "90d", "actions": {"delete": {}}},
    }
    cluster.ask("PUT", f"_ilm/policy/{cluster.prefix}p", {"policy": {"phases": phases}})
    yield cluster
    for name in cluster.ask("GET", f"{cluster.prefix}*"):
        cluster.ask("DELETE", name)
    cluster.ask("DELETE", f"_ilm/policy/{cluster.prefix}p")


def lifecycle(cluster: Cluster) -> dict[str, Any]:
    return {"index.lifecycle.name": f"{cluster.prefix}p", "index.lifecycle.parse_origination_date": True}


def begin(ago: int) -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=ago)


def day(ago: int, first: int) -> bytes:
    """The log of a day."""
    stamp = f"{begin(ago):%Y-%m-%d}T12:00:00.000Z".encode()
    return b"".join(b'{"time":"%b","n":%d}\n' % (stamp, first + n) for n in range(A_DAY))


@pytest.fixture
def fortnight(rig, cluster):
    """Fourteen rotated and compressed days that the daemon has shipped; the older ones are warm by now."""
    for n in range(DAYS):
        rig.write(f"app.log.{DAYS - n}.gz", day(DAYS - n, n * A_DAY))
    rig.config["inputs"]["app"]["paths"] = [f"{rig.logs}/app.log*"]
    rig.config["stages"][-1] = {"route": {"default": f"{cluster.prefix}{{day}}"}}
    rig.config["outputs"] = {"es": {"type": "elasticsearch", "hosts": [cluster.url]}}
    rig.ship()
    assert cluster.count(f"{cluster.prefix}*") == DAYS * A_DAY
    return rig


def forget(cluster: Cluster, first: int, count: int) -> None:
    """Delete some lines."""
    some = {"range": {"n": {"gte": first, "lt": first + count}}}
    found = cluster.ask("POST", f"{cluster.prefix}*/_search?size={count}&_source=false", {"query": some})["hits"][
        "hits"
    ]
    actions = [json.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) for hit in found]
    body = "\n".join([*actions, ""]).encode()
    url, kind = f"{cluster.url}/_bulk?refresh=true", {"content-type": "application/x-ndjson"}
    with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=60) as answer:
        assert len(json.load(answer)["items"]) == count


def age(cluster: Cluster) -> None:
    """Let the lifecycle take over what is there, and wait until the older days are read-only."""
    cluster.ask("PUT", f"{cluster.prefix}*/_settings", lifecycle(cluster))

    def blocked() -> bool:
        found = cluster.ask("GET", f"{cluster.prefix}*/_settings?flat_settings=true")
        settings = [each["settings"] for each in found.values()]
        return len([each for each in settings if each.get("index.blocks.write") == "true"]) == DAYS - OLD + 1

    wait_until(blocked, "the older days are read-only")


def fates(rig: Rig, **options: Any) -> tuple[int, int]:
    summary = rig.replay(rig.logs, **options)
    counts = summary["counts"]["outputs"]["es"]
    assert (counts["set_aside"], counts["parked"], summary["errors"]) == (0, 0, 0)
    return counts["stored"], counts["already"]


@pytest.mark.elasticsearch
@pytest.mark.slow
def test_a_replay_of_a_shipped_fortnight_whose_older_days_are_read_only_writes_nothing_twice(fortnight, cluster, told):
    age(cluster)
    lines, started = DAYS * A_DAY, time.monotonic()
    first = fates(fortnight)
    told(
        f"{lines:,} lines of {DAYS} days, {DAYS - OLD + 1} of them read-only, replayed in "
        f"{time.monotonic() - started:.1f} s: {first[1]:,} already there, {first[0]} new"
    )
    assert first == (0, lines)
    assert cluster.count(f"{cluster.prefix}*") == lines


@pytest.mark.elasticsearch
@pytest.mark.slow
def test_a_replay_of_a_fortnight_with_lines_missing_from_each_day_adds_just_those(fortnight, cluster, told):
    for n in range(DAYS):
        forget(cluster, n * A_DAY, MISSING)
    lines, missing = DAYS * A_DAY, DAYS * MISSING
    assert cluster.count(f"{cluster.prefix}*") == lines - missing
    age(cluster)

    plan = fortnight.replay(fortnight.logs, plan=True)["plan"]
    assert [row["documents"] - row["already"] for row in plan] == [MISSING] * DAYS
    assert sum(row["read_only"] for row in plan) == DAYS - OLD + 1
    assert {row["phase"] for row in plan if row["read_only"]} == {"warm"}
    assert all(row["deleted"] > time.time() for row in plan)

    stored = fates(fortnight)
    assert stored == (missing, lines - missing)
    assert cluster.count(f"{cluster.prefix}*") == lines
    again = fates(fortnight, again=True)
    assert again == (0, lines)
    assert cluster.numbers(f"{cluster.prefix}*") == list(range(lines))
    told(
        f"{lines:,} lines with {MISSING:,} missing from each of {DAYS} days: {stored[0]:,} new, "
        f"{stored[1]:,} already there; again: {again[0]} new"
    )


@pytest.mark.elasticsearch
def test_a_plan_says_which_indices_would_be_deleted_at_once(rig, cluster):
    template = {"settings": {"number_of_replicas": 0, **lifecycle(cluster)}}
    patterns = [f"{cluster.prefix}*"]
    body = {"index_patterns": patterns, "priority": 1000, "template": template}
    cluster.ask("PUT", f"_index_template/{cluster.prefix}t", body)
    rig.write("app.log", day(100, 0) + day(1, A_DAY))
    rig.config["stages"][-1] = {"route": {"default": f"{cluster.prefix}{{day}}"}}
    rig.config["outputs"] = {"es": {"type": "elasticsearch", "hosts": [cluster.url]}}
    plan = rig.replay(rig.logs, plan=True)["plan"]
    assert [(row["exists"], row["deleted"]) for row in plan] == [
        (False, begin(10).timestamp()),
        (False, begin(-89).timestamp()),
    ]


@pytest.mark.elasticsearch
def test_an_index_is_replayed_with_its_ids_into_another_output(fortnight, cluster, tmp_path):
    fortnight.config["outputs"]["copy"] = {"type": "local", "path": str(tmp_path / "copy.db")}
    index = f"{cluster.prefix}{begin(3):%Y.%m.%d}"
    summary = fortnight.replay(f"elasticsearch:{index}", into="copy", where="n % 2 == 0")
    assert summary["counts"]["outputs"]["copy"]["stored"] == A_DAY // 2
    hits = cluster.ask("GET", f"{index}/_search?size=10&q=n:*&_source=n")["hits"]["hits"]
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        ids = {id_ for (id_,) in copy.execute("SELECT id FROM documents")}
    assert {hit["_id"] for hit in hits if hit["_source"]["n"] % 2 == 0} <= ids
    # Into where it came from, it is there.
    counts = fortnight.replay(f"elasticsearch:{index}", into="es")["counts"]["outputs"]["es"]
    assert (counts["stored"], counts["already"]) == (0, A_DAY)
    assert fortnight.replay(f"elasticsearch:{index}", into="es")["counts"]["records"] == 0


@pytest.mark.elasticsearch
def test_an_interrupted_replay_of_an_index_goes_on_and_reads_anew_when_its_point_in_time_is_gone(
    fortnight, cluster, tmp_path
):
    from pipeline.replay.index import IndexReader

    fortnight.config["outputs"]["copy"] = {"type": "local", "path": str(tmp_path / "copy.db")}
    words, into = f"elasticsearch:{cluster.prefix}*", "copy"
    pages = IndexReader._pages

    async def stopping(self, place):
        async for page in pages(self, place):
            yield page
            raise ConnectionError("cut off")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IndexReader, "_pages", stopping)
        with pytest.raises(ConnectionError, match="cut off"):
            fortnight.replay(words, into=into)
    summary = fortnight.replay(words, into=into)["counts"]
    assert sum(summary["outputs"]["copy"].values()) in {DAYS * A_DAY - 1000, DAYS * A_DAY}
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM documents").fetchone()[0] == DAYS * A_DAY


@pytest.mark.elasticsearch
def test_an_index_that_is_not_there_is_told(fortnight, cluster):
    with pytest.raises(Unusable, match=r"the server answers 404: no such index"):
        fortnight.replay(f"elasticsearch:{cluster.prefix}nothing")


# --- Kafka ---


@pytest.fixture
def topic(rig, kafka_address):
    name = f"aiologs-test-{uuid.uuid4().hex[:12]}"

    async def fill() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_address)
        await admin.start()
        await admin.create_topics([NewTopic(name, 2, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=kafka_address) as producer:
            for n in range(200):
                stamp = round((begin(1) + timedelta(seconds=n)).timestamp() * 1000)
                await producer.send(name, b'{"n":%d}' % n, partition=n % 2, timestamp_ms=stamp)

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_address)
        await admin.start()
        await admin.delete_topics([name])
        await admin.close()

    asyncio.run(fill())
    rig.config["inputs"] = {"bus": {"type": "kafka", "brokers": [kafka_address], "topics": [name]}}
    yield name
    asyncio.run(delete())


def numbers(rig: Rig) -> dict[str, int]:
    with closing(sqlite3.connect(rig.folder / "store.db")) as store:
        return dict(store.execute("SELECT id, json_extract(document, '$.n') FROM documents"))


@pytest.mark.kafka
def test_a_topic_is_replayed_between_offsets_under_the_ids_of_live(rig, topic):
    assert rig.fates(f"kafka:{topic}@10..20") == (20, 0)
    assert numbers(rig) == {f"{topic}-{n % 2}-{n // 2}": n for n in range(20, 40)}
    assert rig.fates(f"kafka:{topic}") == (180, 20)
    assert rig.fates(f"kafka:{topic}") == (0, 0)


@pytest.mark.kafka
def test_a_topic_is_replayed_between_times(rig, topic):
    start, end = begin(1) + timedelta(seconds=50), begin(1) + timedelta(seconds=60)
    assert rig.fates(f"kafka:{topic}@{start:%Y-%m-%dT%H:%M:%SZ}..{end:%Y-%m-%dT%H:%M:%SZ}") == (10, 0)
    assert sorted(numbers(rig).values()) == list(range(50, 60))
    assert rig.fates(f"kafka:{topic}@{moment('2100-01-01'):%Y-%m-%d}") == (0, 0)


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_told(rig, topic):
    with pytest.raises(Unusable, match="there is no such topic"):
        rig.replay(f"kafka:{topic}x", input="bus")

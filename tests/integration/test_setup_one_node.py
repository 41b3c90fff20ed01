"""Indices on a cluster of one node, or behind one name, age on a real Elasticsearch with lifecycle management."""

import re

import pytest

from pipeline.setup.plan import look
from tests.integration.setup_cluster import DAY, aged, clean, explain, looks, phase, set_up, wait, write
from tests.integration.test_setup_lifecycle import NAME, TODAY, WARM, documents

pytestmark = pytest.mark.elasticsearch


@pytest.fixture
def one(elasticsearch_url):
    with clean(elasticsearch_url) as cluster:
        yield cluster


def test_on_one_data_node_warm_does_not_wait_for_a_replica(one):
    plan = look(one, "daily")
    assert plan.wanted.data_nodes == 1
    assert re.search("one data node: .* 0 replicas instead of 1; run setup again when there are more", str(plan))
    set_up(one)
    index = f"aio-logs-{TODAY.strftime(NAME)}"
    write(one, index, *documents())
    wait(lambda: phase(one, index) == "hot")
    aged(one, index, 8 * DAY)
    wait(lambda: phase(one, index) == "warm")
    assert looks(one, index) == WARM | {"replicas": 0}
    # With another node, setup sees that there can be a replica now.
    plan = look(one, "daily")
    assert plan.clean


@pytest.mark.parametrize("mode", ["data_stream", "rollover"])
def test_behind_one_name_indices_follow_each_other_and_age_from_then_on(one, mode):
    set_up(one, mode)
    for name in ("aio-logs", "aio-logs-performance", "aio-security-audit"):
        write(one, name, *documents(1))
    (before,) = backing(one, "aio-logs")
    wait(lambda: explain(one, before).get("step") == "check-rollover-ready")
    one.ask("POST", "aio-logs/_rollover")
    write(one, "aio-logs", *documents(1))
    wait(lambda: phase(one, before) == "hot")
    assert len(backing(one, "aio-logs")) == 2
    aged(one, before, 8 * DAY)
    wait(lambda: phase(one, before) == "warm")
    assert looks(one, before)["read-only"]
    write(one, "aio-logs", *documents(1))
    assert one.ask("GET", "aio-logs/_count")["count"] == 3


def backing(cluster, name: str) -> list[str]:
    """The indices behind an alias or a data stream."""
    return sorted(cluster.ask("GET", f"{name}/_settings?filter_path=*.settings.index.uuid"))

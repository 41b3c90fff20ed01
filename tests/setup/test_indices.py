"""What is wrong with indices."""

import pytest

from pipeline.setup.cluster import Refused
from pipeline.setup.definitions import wanted
from pipeline.setup.indices import examine
from tests.setup.fake_cluster import FakeCluster

INDEX = "aio-logs-2026.11.20"
WELL = {"index.lifecycle.name": "aio-logs", "index.number_of_replicas": "1"}


def findings(cluster, mode="daily"):
    return list(examine(cluster, wanted(mode, cluster.data_nodes)))


def having(name=INDEX, data_nodes=2, **settings):
    cluster = FakeCluster(data_nodes)
    cluster.indices[name] = WELL | settings
    return cluster


def explained(cluster, name=INDEX, **state):
    cluster.answers[f"GET {name}/_ilm/explain"] = {"indices": {name: {"index": name, "managed": True, **state}}}
    return cluster


def test_a_healthy_index_has_no_findings():
    assert findings(having()) == []


def test_an_index_of_others_is_not_looked_at():
    assert findings(having(name="other-2026.11.20", **{"index.lifecycle.name": "x"})) == []


@pytest.mark.parametrize(("policy", "told"), [("other", "its lifecycle is other"), (None, "it has no lifecycle")])
def test_another_policy_or_none_is_repaired(policy, told):
    cluster = FakeCluster()
    cluster.indices[INDEX] = {"index.number_of_replicas": "1"} | ({"index.lifecycle.name": policy} if policy else {})
    (finding,) = findings(cluster)
    assert told in finding.what
    finding.repair(cluster)
    assert cluster.bodies[f"PUT {INDEX}/_settings"] == {
        "index.lifecycle.name": "aio-logs",
        "index.lifecycle.parse_origination_date": True,
    }


def test_another_alias_to_roll_over_is_repaired():
    index = "aio-logs-undated-000001"
    settings = {"index.lifecycle.name": "aio-logs-undated", "index.lifecycle.rollover_alias": "elsewhere"}
    cluster = having(index, **settings)
    (finding,) = findings(cluster)
    assert finding.what == "its lifecycle rolls the alias elsewhere over, not aio-logs-undated"
    finding.repair(cluster)
    assert cluster.bodies[f"PUT {index}/_settings"]["index.lifecycle.rollover_alias"] == "aio-logs-undated"


def test_names_without_a_day_want_no_policy():
    cluster = FakeCluster()
    cluster.indices["aio-logs-web"] = {"index.number_of_replicas": "1"}
    assert findings(cluster) == []


def test_a_step_that_failed_is_tried_again():
    info = {"type": "illegal_argument_exception", "reason": "no such repository"}
    cluster = explained(having(), phase="warm", action="x", step="ERROR", failed_step="y", step_info=info)
    (finding,) = findings(cluster)
    assert "failed at warm/x/y: no such repository" in finding.what
    finding.repair(cluster)
    assert cluster.changes == [f"POST {INDEX}/_ilm/retry"]


def test_a_step_that_waits_is_told():
    info = {"message": "Waiting for all shard copies to be active"}
    state = {"phase": "warm", "action": "allocate", "step": "check-allocation", "step_info": info}
    (finding,) = findings(explained(having(), **state))
    assert finding.what == "its lifecycle waits at warm/allocate/check-allocation: " + info["message"]
    assert finding.repair is None


def test_an_index_that_is_closed_for_a_moment_hides_no_other():
    cluster = having()
    other = "aio-logs-2026.11.21"
    cluster.indices[other] = WELL
    closed = Refused("GET", 400, "index_closed_exception", "closed")
    cluster.answers[f"GET {INDEX},{other}/_ilm/explain"] = closed
    cluster.answers[f"GET {INDEX}/_ilm/explain"] = closed
    explained(cluster, other, phase="warm", action="x", step="ERROR", failed_step="y", step_info={"reason": "r"})
    assert [each.where for each in findings(cluster)] == [other]


@pytest.mark.parametrize(
    ("nodes", "replicas", "phase", "repaired"),
    [
        (1, 1, "hot", 0),
        (1, 0, "hot", None),
        (2, 0, "hot", 1),
        (2, 0, "cold", None),
        (2, 2, "warm", 1),
        (3, 1, "hot", None),
    ],
)
def test_replicas_are_as_many_as_there_are_nodes_for(nodes, replicas, phase, repaired):
    cluster = explained(having(data_nodes=nodes, **{"index.number_of_replicas": str(replicas)}), phase=phase)
    found = findings(cluster)
    for each in found:
        each.repair(cluster)
    body = cluster.bodies.get(f"PUT {INDEX}/_settings", {})
    assert body.get("index.number_of_replicas") == repaired


def test_replicas_that_elasticsearch_counts_itself_are_left_alone():
    assert findings(having(data_nodes=1, **{"index.auto_expand_replicas": "0-1"})) == []


@pytest.mark.parametrize(("percent", "repairable"), [("50", True), ("97", False)])
def test_a_block_of_a_full_disk_is_lifted_when_there_is_room(percent, repairable):
    cluster = having(**{"index.blocks.read_only_allow_delete": "true"})
    disk = {"node": "n1", "disk.percent": percent, "disk.total": "100", "disk.avail": str(100 - int(percent))}
    cluster.answers["GET _cat/allocation"] = [disk, {"node": "UNASSIGNED"}]
    (finding,) = findings(cluster)
    assert (finding.repair is not None) is repairable
    assert repairable or "n1 (97 %)" in finding.remedy


@pytest.mark.parametrize(("fields", "told"), [(80, False), (95, True)])
def test_a_mapping_near_its_limit_is_told_with_what_fills_it(fields, told):
    cluster = having(**{"index.mapping.total_fields.limit": "100"})
    inner = {f"f{n}": {"type": "long"} for n in range(fields - 2)}
    properties = {"request": {"properties": inner}, "message": {"type": "text"}}
    cluster.answers[f"GET {INDEX}/_mapping"] = {INDEX: {"mappings": {"properties": properties}}}
    found = findings(cluster)
    assert bool(found) is told
    assert not told or f"request ({fields - 1}), the top level (1)" in found[0].remedy


def test_indices_of_data_streams_are_known_by_their_stream():
    name = ".ds-aio-logs-2026.11.20-000001"
    cluster = FakeCluster()
    cluster.answers[
        "GET aio-error-groups*,aio-errors*,aio-errors-critical*,aio-logs*,aio-logs-performance*,aio-logs-undated*,"
        "aio-logs-unrouted*,aio-security*,aio-security-audit*/_settings"
    ] = {name: {"settings": {"index.number_of_replicas": "1"}}}
    (finding,) = findings(cluster, "data_stream")
    assert finding.where == name
    assert "it has no lifecycle" in finding.what

"""What is wrong with a cluster, and mending it."""

import pytest

from pipeline.setup.cluster import Refused
from pipeline.setup.definitions import ALIAS, POLICY
from pipeline.setup.doctor import examine, mend
from pipeline.setup.plan import apply, look
from tests.setup.fake_cluster import TEMPLATE, FakeCluster


def healthy(mode="daily"):
    cluster = FakeCluster()
    apply(cluster, look(cluster, mode))
    for name in cluster.indices:
        alias = name.removesuffix("-000001")
        policy = "aio-logs-undated" if alias in {"aio-logs-undated", "aio-logs-unrouted"} else alias
        policy = "aio-logs" if policy == "aio-logs-performance" else policy
        cluster.indices[name] = {"index.number_of_replicas": "1", POLICY: policy, ALIAS: alias}
    cluster.changes.clear()
    return cluster


def kinds(cluster, mode="daily", routes=()):
    return [each.kind for each in examine(cluster, mode, routes=routes)]


@pytest.mark.parametrize("mode", ["daily", "data_stream", "rollover"])
def test_nothing_is_wrong_with_a_healthy_cluster(mode):
    assert kinds(healthy(mode), mode) == []


def test_a_cluster_without_lifecycles_is_told():
    (finding,) = examine(FakeCluster(distribution="opensearch"), "daily")
    assert finding.kind == "unfit"
    assert finding.repair is None


def test_what_is_missing_is_made():
    cluster = FakeCluster()
    findings = examine(cluster, "daily")
    assert [each.kind for each in findings] == ["difference"]
    mend(cluster, findings)
    assert look(cluster, "daily").clean
    assert findings[0].outcome == "repaired"


def test_a_repair_that_is_refused_is_told_and_the_others_go_on():
    cluster = healthy()
    del cluster.stored[TEMPLATE]["aio-logs"]
    cluster.answers["GET _ilm/status"] = {"operation_mode": "STOPPED"}
    cluster.answers["POST _ilm/start"] = Refused("POST /_ilm/start", 403, "security_exception", "no")
    findings = examine(cluster, "daily")
    mend(cluster, findings)
    assert [each.outcome.partition(":")[0] for each in findings] == ["not repaired", "repaired"]


def test_an_index_for_an_alias_is_cloned_and_its_block_lifted_when_that_fails():
    cluster = healthy()
    del cluster.indices["aio-logs-undated-000001"], cluster.aliases["aio-logs-undated-000001"]
    cluster.indices["aio-logs-undated"] = {"index.number_of_replicas": "1"}
    cluster.answers["POST _index_template/_simulate_index/aio-logs-undated-000001"] = {
        "template": {"settings": {"index": {"lifecycle": {"name": "aio-logs-undated"}, "number_of_replicas": "0"}}}
    }
    (finding,) = [each for each in examine(cluster, "daily") if each.kind == "index-for-alias"]
    mend(cluster, [finding])
    assert [each.partition("?")[0] for each in cluster.changes if each.startswith("PUT")] == [
        "PUT aio-logs-undated/_block/write",
        "PUT aio-logs-undated/_clone/aio-logs-undated-000001",
        "PUT aio-logs-undated-000001/_settings",
    ]
    given = {"lifecycle": {"name": "aio-logs-undated"}, "number_of_replicas": "0"}
    assert cluster.bodies["PUT aio-logs-undated-000001/_settings"] == {"index": given}
    actions = cluster.bodies["POST _aliases"]["actions"]
    assert actions[1] == {"remove_index": {"index": "aio-logs-undated"}}
    cluster.answers["POST _aliases"] = Refused("POST /_aliases", 400, "x", "no")
    mend(cluster, [finding])
    assert finding.outcome == "not repaired: POST /_aliases: no"
    assert cluster.bodies["PUT aio-logs-undated/_settings"] == {"index.blocks.write": None}


def test_an_alias_without_an_index_to_write_to_is_told():
    cluster = healthy()
    cluster.aliases = {name: {"aio-logs-undated": {}} for name in ("a", "b")} | {"c": {"aio-logs-unrouted": {}}}
    assert kinds(cluster) == ["alias-without-writer"]


def test_an_index_for_a_data_stream_is_told():
    cluster = healthy("data_stream")
    cluster.streams.remove("aio-logs")
    cluster.indices["aio-logs"] = {"index.number_of_replicas": "1", "index.lifecycle.name": "aio-logs"}
    assert kinds(cluster, "data_stream") == ["index-for-stream"]


def test_a_template_of_others_that_comes_before_is_named():
    cluster = healthy()
    cluster.stored[TEMPLATE]["theirs"] = {"index_patterns": ["aio-security-audit-*"], "priority": 1000}
    findings = examine(cluster, "daily")
    assert {(each.kind, each.where) for each in findings} == {
        ("shadowed-template", "index template aio-security-audit")
    }
    assert "theirs (priority 1000" in findings[0].what
    assert len(findings) == 1


@pytest.mark.parametrize(
    ("mode", "route", "wrong"),
    [
        ("daily", "aio-logs-{day}", False),
        ("daily", "aio-logs-{service}-{day}", False),
        ("daily", "aio-logs-web", True),
        ("daily", "aio-error-groups", False),
        ("daily", "aio-logs-undated", False),
        ("daily", "other", False),
        ("data_stream", "aio-logs", False),
        ("data_stream", "aio-logs-{day}", True),
        ("rollover", "aio-errors-critical", False),
        ("rollover", "aio-errors-critical-{day}", True),
    ],
)
def test_routes_fit_the_mode(mode, route, wrong):
    assert (kinds(healthy(mode), mode, [route]) == ["route"]) is wrong

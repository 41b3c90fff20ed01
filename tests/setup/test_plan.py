"""Showing what is to be done, and doing it."""

import pytest

from pipeline.setup.cluster import Refused
from pipeline.setup.definitions import wanted
from pipeline.setup.plan import Unfit, apply, identify, look
from tests.setup.fake_cluster import POLICY, FakeCluster


def set_up(mode="daily", **options):
    cluster = FakeCluster(**options)
    apply(cluster, look(cluster, mode))
    cluster.changes.clear()
    return cluster


@pytest.mark.parametrize("mode", ["daily", "data_stream", "rollover"])
def test_after_apply_there_is_nothing_to_do(mode):
    cluster = FakeCluster()
    before = look(cluster, mode)
    assert not before.clean
    assert {each.origin for each in before.changes} == {"missing"}
    assert apply(cluster, before) == len(before.changes) == len(wanted(mode, 2).resources)
    after = look(cluster, mode)
    assert after.clean
    assert "Nothing to do" in str(after)
    assert apply(cluster, after) == 0


def test_what_others_rest_on_comes_first():
    cluster = FakeCluster()
    apply(cluster, look(cluster, "data_stream"))
    kinds = dict.fromkeys(each.rpartition("/")[0].removeprefix("PUT ") for each in cluster.changes)
    first_indices = {each.removeprefix("PUT ") for each in kinds if "000001" in each}
    kept = [each for each in kinds if each not in first_indices and each]
    assert kept[:3] == ["_ilm/policy", "_component_template", "_index_template"]
    assert "_data_stream" in kept[3:]


def test_only_what_differs_is_sent():
    cluster = set_up()
    cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] = "30d"
    plan = look(cluster, "daily")
    assert "! lifecycle policy aio-logs: changed by hand" in str(plan)
    assert 'policy.phases.delete.min_age: "30d" -> "90d"' in str(plan)
    apply(cluster, plan)
    assert cluster.changes == ["PUT _ilm/policy/aio-logs"]


def test_gently_what_was_changed_by_hand_stays():
    cluster = set_up()
    cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] = "180d"
    del cluster.stored[POLICY]["aio-errors"]
    assert apply(cluster, look(cluster, "daily"), gently=True) == 1
    assert cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] == "180d"
    assert "aio-errors" in cluster.stored[POLICY]


def test_more_nodes_are_a_difference():
    cluster = set_up(data_nodes=1)
    assert look(cluster, "daily").clean
    cluster.data_nodes = 2
    plan = look(cluster, "daily")
    assert {each.origin for each in plan.changes} == {"outdated"}
    assert "number_of_replicas: 0 -> 1" in str(plan)


def test_an_index_where_an_alias_should_be_is_an_obstacle():
    cluster = FakeCluster()
    cluster.indices["aio-logs-undated"] = {}
    apply(cluster, look(cluster, "daily"))
    plan = look(cluster, "daily")
    assert not plan.clean
    assert plan.obstacles == [
        "write alias aio-logs-undated: there is an index of that name; `aiologs setup doctor` tells what to do"
    ]
    assert str(plan).endswith("\nIn the way: 1 obstacle, which `apply` leaves alone.")


def test_an_alias_that_was_lost_is_put_to_the_newest_index():
    cluster = set_up()
    cluster.indices["aio-logs-undated-000002"] = {}
    cluster.aliases = {name: each for name, each in cluster.aliases.items() if "undated" not in name}
    apply(cluster, look(cluster, "daily"))
    (action,) = cluster.bodies["POST _aliases"]["actions"]
    assert action["add"] == {"index": "aio-logs-undated-000002", "alias": "aio-logs-undated", "is_write_index": True}


def test_another_one_that_was_faster_is_no_problem():
    cluster = FakeCluster()
    plan = look(cluster, "daily")
    other = look(cluster, "daily")
    apply(cluster, other)
    cluster.answers["PUT aio-logs-undated-000001"] = Refused("PUT", 400, "resource_already_exists_exception", "there")
    apply(cluster, plan)
    assert look(cluster, "daily").clean


def test_a_refusal_ends_it():
    cluster = FakeCluster()
    cluster.answers["PUT _ilm/policy/aio-errors"] = Refused("PUT", 403, "security_exception", "no")
    with pytest.raises(Refused):
        apply(cluster, look(cluster, "daily"))


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ({"distribution": "opensearch", "number": "2.1.0"}, "OpenSearch 2.1.0 has no index lifecycle"),
        ({"build_flavor": "serverless"}, "Serverless"),
        ({"number": "8.13.4"}, "older than 8.14"),
        ({"number": "7.17.0"}, "older than 8.14"),
    ],
)
def test_clusters_without_lifecycles_are_told(version, reason):
    with pytest.raises(Unfit, match=reason):
        look(FakeCluster(**version), "daily")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("_ilm/policy", {"errors": False}),
        ("_ilm/policy", ["ok"]),
        ("_component_template", "ok"),
        ("_component_template", {"component_templates": [1]}),
        ("_index_template", {"index_templates": 1}),
    ],
)
def test_a_server_that_only_takes_documents_is_told_from_a_cluster(path, answer):
    cluster = FakeCluster()
    cluster.answers[f"GET {path}"] = answer
    with pytest.raises(Unfit, match="set `setup: off`"):
        look(cluster, "daily")


@pytest.mark.parametrize("number", ["8.14.0", "8.19.1", "9.2.0", "10.0.0-SNAPSHOT"])
def test_newer_ones_will_do(number):
    assert number in identify(FakeCluster(number=number))


def test_for_programs_all_of_it_is_there():
    told = look(FakeCluster(data_nodes=1), "daily").as_dict()
    assert told["data_nodes"] == 1
    assert not told["clean"]
    assert told["notes"]
    assert {"kind", "name", "origin", "fields"} == set(told["changes"][0])

"""Comparing what is wanted with what a cluster answers."""

from copy import deepcopy

import pytest

from pipeline.setup.definitions import Resource, load, wanted
from pipeline.setup.difference import change, flat, signed

POLICY = next(each for each in load() if each.kind == "lifecycle policy" and each.name == "aio-logs")
TEMPLATE = next(each for each in load() if each.kind == "index template" and each.name == "aio-logs")


def answered(resource: Resource) -> dict:
    """As Elasticsearch words a policy that it was sent."""
    body = signed(resource)
    for phase in body["policy"]["phases"].values():
        if "allocate" in phase["actions"]:
            phase["actions"]["allocate"] |= {"include": {}, "exclude": {}, "require": {}}
        if "delete" in phase["actions"]:
            phase["actions"]["delete"]["delete_searchable_snapshot"] = True
    return body


def test_what_elasticsearch_adds_is_no_difference():
    assert change(POLICY, answered(POLICY)) is None


def test_a_template_comes_back_with_flat_settings_as_text():
    body = signed(TEMPLATE)
    body["template"]["settings"] = {"index.lifecycle.name": "aio-logs"}
    body["template"]["aliases"] = {}
    body["ignore_missing_component_templates"] = []
    assert change(TEMPLATE, body) is None
    nested = deepcopy(body)
    nested["template"]["settings"] = {"index": {"lifecycle": {"name": "aio-logs"}}}
    assert change(TEMPLATE, nested) is None


@pytest.mark.parametrize(("text", "same"), [("2160h", True), ("90d", True), ("7776000s", True), ("91d", False)])
def test_a_time_is_the_same_in_any_unit(text, same):
    body = answered(POLICY)
    body["policy"]["phases"]["delete"]["min_age"] = text
    assert (change(POLICY, body) is None) is same


def test_what_is_not_there_is_missing():
    found = change(POLICY, None)
    assert found.origin == "missing"
    assert "policy.phases.delete.min_age" in {each.path for each in found.fields}


def test_a_change_by_hand_is_told_from_an_older_aiologs():
    body = answered(POLICY)
    body["policy"]["phases"]["delete"]["min_age"] = "30d"
    found = change(POLICY, body)
    assert found.origin == "changed by hand"
    assert [(each.path, each.is_, each.wanted) for each in found.fields] == [
        ("policy.phases.delete.min_age", "30d", "90d")
    ]
    older = Resource("lifecycle policy", "aio-logs", body)
    assert change(POLICY, answered(older)).origin == "outdated"


def test_what_a_newer_aiologs_wrote_is_known():
    body = deepcopy(POLICY.body)
    body["policy"]["_meta"]["version"] = 2
    body["policy"]["phases"]["delete"]["min_age"] = "30d"
    assert change(POLICY, answered(Resource("lifecycle policy", "aio-logs", body))).origin == "newer"


def test_what_somebody_else_made_is_told():
    assert change(POLICY, {"policy": {"phases": {}}}).origin == "not by aiologs"


def test_what_somebody_added_is_a_difference_too():
    body = answered(POLICY)
    body["policy"]["phases"]["cold"]["actions"]["unfollow"] = {}
    (field,) = change(POLICY, body).fields
    assert (field.path, field.is_, field.wanted) == ("policy.phases.cold.actions.unfollow", {}, None)


def test_other_nodes_make_a_difference_that_is_ours():
    one = wanted("daily", 1).of("lifecycle policy")["aio-logs"]
    found = change(POLICY, answered(Resource("lifecycle policy", "aio-logs", one)))
    assert found.origin == "outdated"
    assert [each.path for each in found.fields] == ["policy.phases.warm.actions.allocate.number_of_replicas"]


def test_a_data_stream_is_one_with_its_defaults_too():
    wanted_ = {"data_stream": {}, "index_patterns": ["a"]}
    assert flat(wanted_) == flat({**wanted_, "data_stream": {"hidden": False, "allow_custom_routing": False}})
    assert flat(wanted_) != flat({"index_patterns": ["a"]})


def test_the_body_that_was_loaded_is_not_signed_itself():
    signed(POLICY)
    assert "digest" not in POLICY.body["policy"]["_meta"]

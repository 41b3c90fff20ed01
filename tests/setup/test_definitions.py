"""What a cluster is to have."""

from datetime import timedelta

import pytest

from pipeline.contract import Unusable
from pipeline.setup.definitions import load, shipped, wanted
from pipeline.setup.matching import first

DAYS = {
    "aio-logs": 90,
    "aio-logs-undated": 90,
    "aio-errors": 90,
    "aio-errors-critical": 365,
    "aio-security": 365,
    "aio-security-audit": 730,
}


def test_each_policy_keeps_what_the_families_promise():
    policies = {each.name: each.body["policy"]["phases"] for each in load() if each.kind == "lifecycle policy"}
    assert {name: phases["delete"]["min_age"] for name, phases in policies.items()} == {
        name: f"{days}d" for name, days in DAYS.items()
    }
    for phases in policies.values():
        warm, cold = phases["warm"], phases["cold"]
        assert (warm["min_age"], cold["min_age"]) == ("7d", "30d")
        assert warm["actions"]["allocate"]["number_of_replicas"] == 1
        assert cold["actions"]["allocate"]["number_of_replicas"] == 0
        assert "readonly" in warm["actions"]
        assert "readonly" in cold["actions"]
        assert warm["actions"]["forcemerge"] == {"max_num_segments": 1, "index_codec": "best_compression"}


def test_every_definition_says_that_aiologs_manages_it():
    for each in load():
        meta = each.body.get("policy", each.body)["_meta"]
        assert meta["managed_by"] == "aiologs"
        assert isinstance(meta["version"], int)
        assert meta["description"]


def test_templates_are_composed_of_components_that_are_there():
    want = wanted("daily", 2)
    for body in want.of("index template").values():
        assert set(body["composed_of"]) <= set(want.of("component template"))
        policy = body.get("template", {}).get("settings", {}).get("index.lifecycle.name")
        assert policy is None or policy in want.of("lifecycle policy")


@pytest.mark.parametrize(
    ("index", "template"),
    [
        ("aio-logs-2026.11.20", "aio-logs"),
        ("aio-logs-2026.11.20-1", "aio-logs"),
        ("aio-logs-web-2026.11.20", "aio-logs"),
        ("aio-logs-performance-2026.11.20", "aio-logs-performance"),
        ("aio-logs-undated-000001", "aio-logs-undated"),
        ("aio-logs-undated", "aio-other"),
        ("aio-logs-web", "aio-other"),
        ("aio-errors-2026.11.20", "aio-errors"),
        ("aio-errors-critical-2026.11.20", "aio-errors-critical"),
        ("aio-security-2026.11.20", "aio-security"),
        ("aio-security-audit-2026.11.20", "aio-security-audit"),
        ("aio-error-groups", "aio-error-groups"),
        ("other-2026.11.20", None),
    ],
)
def test_each_name_finds_its_template(index, template):
    assert first(wanted("daily", 2).of("index template"), index) == template


def test_only_names_that_end_in_a_day_are_read_for_one():
    """Elasticsearch refuses to make an index with this setting whose name has no day."""
    for name, body in wanted("daily", 2).of("index template").items():
        dated = all(pattern.endswith("-20*.*.*") for pattern in body["index_patterns"])
        assert ("aio-dated" in body["composed_of"]) == dated, name


def test_on_one_data_node_nothing_has_a_replica_and_it_is_said():
    want = wanted("daily", 1)
    for body in want.of("lifecycle policy").values():
        assert body["policy"]["phases"]["warm"]["actions"]["allocate"]["number_of_replicas"] == 0
    assert want.of("component template")["aio-settings"]["template"]["settings"]["index.number_of_replicas"] == 0
    assert "one data node" in want.notes[0]
    assert wanted("daily", 2).notes == []


def test_data_streams_have_no_day_in_their_names():
    want = wanted("data_stream", 2)
    streams = want.of("data stream")
    assert {"aio-logs", "aio-logs-performance", "aio-security-audit"} < set(streams)
    for name in streams:
        body = want.of("index template")[name]
        assert body["index_patterns"] == [name]
        assert body["data_stream"] == {}
        assert "aio-dated" not in body["composed_of"]
    assert set(want.of("write alias")) == {"aio-logs-undated", "aio-logs-unrouted"}  # a data stream needs a time
    hot = want.of("lifecycle policy")["aio-logs"]["policy"]["phases"]["hot"]["actions"]
    assert hot["rollover"] == {"max_age": "1d", "max_primary_shard_size": "50gb"}


def test_rollover_has_an_alias_for_each_family():
    want = wanted("rollover", 2)
    assert want.of("data stream") == {}
    assert want.of("write alias")["aio-errors"] == {"aliases": {"aio-errors": {"is_write_index": True}}}
    body = want.of("index template")["aio-errors"]
    assert body["index_patterns"] == ["aio-errors-0*"]
    assert body["template"]["settings"]["index.lifecycle.rollover_alias"] == "aio-errors"


def test_daily_indices_do_not_roll_over():
    hot = wanted("daily", 2).of("lifecycle policy")["aio-logs"]["policy"]["phases"]["hot"]["actions"]
    assert "rollover" not in hot


def test_a_day_may_last_a_second():
    phases = wanted("daily", 2, day=timedelta(seconds=1)).of("lifecycle policy")["aio-logs"]["policy"]["phases"]
    assert [phases[name]["min_age"] for name in ("warm", "cold", "delete")] == ["7000ms", "30000ms", "90000ms"]


def test_a_folder_of_ones_own_takes_the_place_of_what_is_shipped(tmp_path):
    (tmp_path / "ilm").mkdir()
    (tmp_path / "ilm" / "mine.json").write_text('{"policy": {"phases": {}}}')
    assert [each.name for each in wanted("daily", 2, tmp_path).resources] == ["mine"]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_definition_is_named(tmp_path, text):
    (tmp_path / "ilm").mkdir()
    (tmp_path / "ilm" / "bad.json").write_text(text)
    with pytest.raises(Unusable, match=r"bad\.json"):
        load(tmp_path)


def test_a_folder_without_definitions_is_told(tmp_path):
    with pytest.raises(Unusable, match="must hold ilm, component_templates, index_templates"):
        load(tmp_path)


def test_what_is_shipped_is_there():
    assert (shipped() / "ilm" / "aio-logs.json").is_file()

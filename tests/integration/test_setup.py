"""`aiologs setup` against a real Elasticsearch, as its user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.setup.definitions import ALIAS, POLICY
from tests.integration.setup_cluster import clean, explain, set_up, wait, write

pytestmark = pytest.mark.elasticsearch

COMMAND = [str(Path(sys.executable).parent / "aiologs"), "setup"]


@pytest.fixture
def cluster(elasticsearch_url):
    with clean(elasticsearch_url) as cluster:
        yield cluster


@pytest.fixture
def setup(elasticsearch_url, tmp_path):
    """Runs a command of `setup`: its exit code and what it prints."""

    def run(command: str, *arguments: str, mode: str = "daily") -> tuple[int, str]:
        done = start(command, *arguments, mode=mode)
        text, _ = done.communicate(timeout=120)
        return done.returncode, text

    def start(command: str, *arguments: str, mode: str = "daily") -> subprocess.Popen[str]:
        path = config(tmp_path, elasticsearch_url, mode)
        call = [*COMMAND, command, "-c", str(path), *arguments]
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    run.start = start
    return run


def config(folder: Path, url: str, mode: str) -> Path:
    path = folder / f"{mode}.yaml"
    suffix = "-{day}" if mode == "daily" else ""
    path.write_text(
        f"inputs: {{app: {{type: stdin}}}}\n"
        f"stages: [{{route: {{default: 'aio-logs{suffix}'}}}}]\n"
        f"outputs: {{es: {{type: elasticsearch, hosts: ['{url}'], mode: {mode}}}}}\n"
    )
    return path


@pytest.mark.parametrize("mode", ["daily", "data_stream", "rollover"])
def test_plan_apply_plan(cluster, setup, mode):
    code, text = setup("plan", mode=mode)
    assert code == 2
    assert "+ lifecycle policy aio-logs: hot, warm 7d, cold 30d, delete 90d" in text
    code, text = setup("apply", mode=mode)
    assert code == 0
    assert "made index template aio-logs\n" in text
    code, text = setup("plan", mode=mode)
    assert (code, "Nothing to do" in text) == (0, True)
    assert setup("apply", mode=mode)[0] == 0
    assert setup("doctor", mode=mode) == (0, "Nothing is wrong.\n")


def test_a_policy_changed_by_hand_is_seen_and_taken_back(cluster, setup):
    setup("apply")
    policy = cluster.ask("GET", "_ilm/policy/aio-logs")["aio-logs"]["policy"]
    policy["phases"]["delete"]["min_age"] = "30d"
    cluster.ask("PUT", "_ilm/policy/aio-logs", {"policy": policy})
    code, text = setup("plan", "--json")
    (change,) = json.loads(text)["es"]["changes"]
    assert (code, change["origin"]) == (2, "changed by hand")
    assert change["fields"] == [{"path": "policy.phases.delete.min_age", "is": "30d", "wanted": "90d"}]
    assert setup("apply")[0] == 0
    assert cluster.ask("GET", "_ilm/policy/aio-logs")["aio-logs"]["policy"]["phases"]["delete"]["min_age"] == "90d"


@pytest.mark.parametrize("mode", ["daily", "data_stream", "rollover"])
def test_many_may_apply_at_once(cluster, setup, mode):
    running = [setup.start("apply", mode=mode) for _ in range(5)]
    for each in running:
        text, _ = each.communicate(timeout=120)
        assert each.returncode == 0, text
    assert setup("plan", mode=mode)[0] == 0
    indices = cluster.ask("GET", "aio-logs-undated-*/_settings?filter_path=*.settings.index.uuid")
    assert list(indices) == ["aio-logs-undated-000001"]


def test_plan_says_that_nobody_answers(setup, tmp_path):
    path = config(tmp_path, "http://127.0.0.1:9", "daily")
    done = subprocess.run([*COMMAND, "plan", "-c", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no Elasticsearch answers: http://127.0.0.1:9:" in done.stderr


def test_the_fields_take_what_logs_hold(cluster):
    set_up(cluster)
    index = "aio-logs-2026.11.20"
    cluster.ask("PUT", index)
    write(
        cluster,
        index,
        {"@timestamp": "2026-11-20T10:00:00Z", "timestamp": 1795612247, "time": "10:00", "context": {"a": {"b": 1}}},
        {"@timestamp": "2026-11-20T10:00:00Z", "timestamp": "2026-11-20", "time": 12, "context": {"a": "text"}},
        {
            "@timestamp": "2026-11-20T10:00:00Z",
            "took": 5,
            "clientIp": "10.0.0.1",
            "geo": {"location": {"lat": 1, "lon": 2}},
        },
        {"@timestamp": "2026-11-20T10:00:00Z", "took": "long", "clientIp": "unknown", "geo": {"location": "nowhere"}},
        {"@timestamp": "2026-11-20T10:00:00Z", "error": {"message": "no room", "stack_trace": "at x\n" * 10_000}},
        {"@timestamp": "2026-11-20T10:00:00Z", "long": "x" * 100_000, "message": "y" * 100_000},
    )
    assert cluster.ask("GET", f"{index}/_count")["count"] == 6
    assert found(cluster, index, {"match": {"error.message": "room"}}) == 1
    assert found(cluster, index, {"term": {"context.a": "text"}}) == 1


def test_many_fields_do_not_explode_the_mapping(cluster):
    set_up(cluster)
    index = "aio-logs-2026.11.20"
    write(cluster, index, {"@timestamp": "2026-11-20T10:00:00Z", **{f"field_{n}": n for n in range(2000)}})
    write(cluster, index, {"@timestamp": "2026-11-20T10:00:00Z", "context": {f"field_{n}": n for n in range(2000)}})
    assert cluster.ask("GET", f"{index}/_count")["count"] == 2
    properties = cluster.ask("GET", f"{index}/_mapping")[index]["mappings"]["properties"]
    assert len(properties) < 1000


def found(cluster, index: str, query: dict) -> int:
    return int(cluster.ask("POST", f"{index}/_count", {"query": query})["count"])


# --- the doctor ---


def test_an_index_where_an_alias_should_be_is_cloned_behind_it(cluster, setup):
    write(cluster, "aio-logs-undated", {"message": "early"})
    assert setup("apply")[0] == 1
    code, text = setup("doctor")
    assert code == 1
    assert "aio-logs-undated: there is an index of that name where an alias should be" in text
    code, text = setup("doctor", "--repair")
    assert code == 0, text
    write(cluster, "aio-logs-undated", {"message": "late"})
    assert cluster.ask("GET", "aio-logs-undated/_count")["count"] == 2
    (name,) = cluster.ask("GET", "_alias/aio-logs-undated")
    settings = cluster.ask("GET", f"{name}/_settings?flat_settings=true")[name]["settings"]
    assert settings[POLICY] == settings[ALIAS] == "aio-logs-undated"


def test_an_index_without_its_policy_gets_it(cluster, setup):
    index = "aio-logs-2026.11.20"
    cluster.ask("PUT", index)
    code, text = setup("doctor", "--repair")
    assert code == 0, text
    settings = cluster.ask("GET", f"{index}/_settings?flat_settings=true")[index]["settings"]
    assert settings[POLICY] == "aio-logs"
    assert settings["index.lifecycle.parse_origination_date"] == "true"


def test_a_lifecycle_that_fails_is_told_with_its_reason(cluster, setup):
    set_up(cluster)
    index = "aio-logs-undated-000009"
    cluster.ask("PUT", index)
    wait(lambda: (explain(cluster, index) or {}).get("failed_step") or (explain(cluster, index) or {}).get("step_info"))
    code, text = wait(lambda: next((each for each in [setup("doctor")] if "does not point to index" in each[1]), None))
    assert code == 1
    assert index in text


def test_a_template_that_another_one_comes_before_is_named(cluster, setup):
    set_up(cluster)
    shadow = {"index_patterns": ["aio-errors-*"], "priority": 900}
    cluster.ask("PUT", "_index_template/shadow", shadow)
    code, text = setup("doctor")
    assert code == 1
    assert "shadow (priority 900, for aio-errors-*) comes before it (priority 500)" in text


def test_replicas_blocks_and_a_stopped_lifecycle_are_repaired(cluster, setup):
    set_up(cluster)
    index = "aio-logs-2026.11.20"
    cluster.ask("PUT", index, {"settings": {"number_of_replicas": 1, "blocks.read_only_allow_delete": True}})
    cluster.ask("POST", "_ilm/stop")
    code, text = setup("doctor", "--json")
    kinds = {each["kind"] for each in json.loads(text)["es"] if each["repairable"]}
    assert (code, kinds) == (1, {"lifecycle-stopped", "replicas", "disk-block"})
    code, text = setup("doctor", "--repair")
    assert code == 0, text
    write(cluster, index, {"message": "again"})


def test_a_mapping_near_its_limit_is_told(cluster, setup):
    set_up(cluster)
    cluster.ask("PUT", "aio-logs-2026.11.20", {"settings": {"index.mapping.total_fields.limit": 300}})
    write(cluster, "aio-logs-2026.11.20", {"many": {f"field_{n}": n for n in range(200)}})
    code, text = setup("doctor")
    assert code == 1
    assert "of 300 fields" in text
    assert "many (" in text


def test_a_route_that_does_not_fit_the_mode_is_told(cluster, setup, tmp_path, elasticsearch_url):
    set_up(cluster)
    path = config(tmp_path, elasticsearch_url, "daily")
    path.write_text(path.read_text().replace("aio-logs-{day}", "aio-logs-web"))
    done = subprocess.run([*COMMAND, "doctor", "-c", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "route to aio-logs-web: an index without a day has no lifecycle" in done.stdout

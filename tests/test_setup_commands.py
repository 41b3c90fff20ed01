"""`aiologs setup` as it is called."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.setup import cluster as clusters
from pipeline.setup.cluster import Away, Refused
from pipeline.setup_commands import app
from tests.setup.fake_cluster import POLICY, FakeCluster

INPUTS = "inputs: {app: {type: stdin}}\n"


@pytest.fixture
def cluster(monkeypatch):
    cluster = FakeCluster()
    monkeypatch.setattr(clusters, "Cluster", lambda _: cluster)
    return cluster


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "aiologs.yaml"
    path.write_text(f"{INPUTS}outputs: {{es: {{type: elasticsearch}}, out: {{type: console}}}}\n")

    def run(*arguments: str):
        return CliRunner().invoke(app, [*arguments, "-c", str(path)])

    run.path = path
    return run


def test_plan_exits_with_2_where_there_is_a_difference_and_0_where_there_is_none(cluster, run):
    assert run("plan").exit_code == 2
    assert cluster.changes == []
    assert run("apply").exit_code == 0
    result = run("plan")
    assert result.exit_code == 0
    assert "Nothing to do" in result.stdout


@pytest.mark.parametrize(("command", "code"), [("plan", 1), ("apply", 2), ("doctor", 2)])
@pytest.mark.parametrize("trouble", [Away("nobody"), Refused("GET /", 403, "security_exception", "unauthorized")])
def test_a_cluster_that_can_not_be_asked_is_told(cluster, run, command, code, trouble):
    cluster.answers["GET "] = trouble
    result = run(command)
    assert result.exit_code == code
    assert str(trouble) in result.stderr


@pytest.mark.parametrize(("command", "code"), [("plan", 1), ("apply", 2), ("doctor", 2)])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("inputs: [", "aiologs.yaml:2"),
        (INPUTS + "outputs: {a: {type: console}}", "no output of type elasticsearch"),
    ],
)
def test_a_configuration_that_does_not_do_is_told(run, command, code, text, reason):
    run.path.write_text(text)
    result = run(command)
    assert result.exit_code == code
    assert reason in result.stderr


def test_another_output_is_told_with_the_nearest_name(cluster, run):
    result = run("plan", "--output", "ess")
    assert result.exit_code == 1
    assert "no output 'ess' of type elasticsearch; did you mean 'es'?" in result.stderr


def test_apply_says_what_it_does(cluster, run):
    assert "made lifecycle policy aio-logs\n" in run("apply").stdout
    cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] = "30d"
    assert "updated lifecycle policy aio-logs\n" in run("apply").stdout


def test_apply_exits_with_1_where_something_is_in_the_way(cluster, run):
    cluster.indices["aio-logs-undated"] = {}
    result = run("apply")
    assert result.exit_code == 1
    assert "there is an index of that name" in result.stdout


def test_doctor_exits_with_1_until_it_has_repaired(cluster, run):
    assert run("doctor").exit_code == 1
    assert "cluster: repaired" in run("doctor", "--repair").stdout


@pytest.mark.parametrize("command", ["plan", "apply", "doctor"])
def test_programs_get_json(cluster, run, command):
    assert list(json.loads(run(command, "--json").stdout)) == ["es"]

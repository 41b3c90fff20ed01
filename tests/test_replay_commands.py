import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.contract import Unusable
from tests.replay.conftest import Rig, lines


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.log.set_up", lambda _: None)  # the tests' own log stays as it is
    rig = Rig(tmp_path)
    rig.write("app.log", lines(1, range(3)))
    rig.job(rig.logs)
    return rig


def replay(rig, *arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["replay", "-c", str(rig.path), *map(str, arguments)])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_it_says_what_became_of_everything(rig):
    said = replay(rig, rig.logs).stdout
    assert said.startswith("3 records, 3 new, 0 already there, 0 set aside; ")
    assert "There is nothing new since this was replayed on" in replay(rig, rig.logs).stdout
    assert replay(rig, rig.logs, "--again").stdout.startswith("3 records, 0 new, 3 already there")


def test_a_program_gets_json(rig):
    summary = json.loads(replay(rig, rig.logs, "--from", "2026-11-01T01:00Z", "--json").stdout)
    assert summary["counts"]["outputs"] == {"store": {"stored": 2, "already": 0, "set_aside": 0, "parked": 0}}
    assert summary["counts"]["left_out"] == 1
    assert summary["finished"]


def test_what_is_set_aside_ends_with_1_and_the_way_to_it(rig):
    rig.write("app.log", lines(1, range(3)) + b"{\n")
    said = replay(rig, rig.logs, code=1).stdout
    assert f"1 set aside: aiologs dead list -c {rig.path} --data-dir {rig.folder}/data/replay/" in said
    assert replay(rig, rig.logs, code=1)  # for as long as it is there


def test_documents_alone_are_on_the_standard_output(rig):
    result = replay(rig, rig.logs, "--into", "-", "--limit", 2)
    assert result.stderr.startswith("2 records, 2 new")


def test_the_option_as_names_the_log(rig, tmp_path):
    (rig.logs / "app.log").rename(tmp_path / "copy")
    with pytest.raises(Unusable, match="--as"):
        replay(rig, tmp_path / "copy")
    assert replay(rig, tmp_path / "copy", "--as", f"{rig.logs}/app.log").stdout.startswith("3 records, 3 new")


def test_standard_input_needs_a_name(rig):
    with pytest.raises(Unusable, match="say which log it is"):
        replay(rig, "-")


def test_a_plan_is_a_table(rig):
    said = replay(rig, rig.logs, "--plan").stdout.splitlines()
    assert said[0].split() == ["output", "index", "documents", "there", "new"]
    assert said[1].split() == ["store", "logs-2026.11.01", "3", "0", "3", "not", "there", "yet"]
    assert "Nothing was written." in said
    assert not (rig.folder / "store.db").exists()

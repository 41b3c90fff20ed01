import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from pipeline import __version__, cli, control
from pipeline.contract import Unusable
from tests.made_up import parts

PART = '''
"""Does something.

More about it.
"""
from pydantic import BaseModel, Field

class Part:
    class Options(BaseModel, extra="forbid"):
        size: int = Field(default=1, description="How large.")
    def __init__(self, options):
        pass
    def decode(self, records):
        import orjson
        return [orjson.loads(record) for record in records]
    def __call__(self, events):
        return [{**event, "@index": "logs"} for event in events]
'''.lstrip()


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory):
    stages = {"json": PART, "route": PART}
    with parts(tmp_path_factory.mktemp("parts"), inputs={"file": PART}, stages=stages, outputs={"store": PART}):
        yield


@pytest.fixture
def aiologs(monkeypatch, capsys):
    """Run the command; gives its exit code, what it printed, and its errors."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["aiologs", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: False))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "aiologs.yaml"
    path.write_text(f"data_dir: {tmp_path}\ninputs: {{app: {{type: file}}}}\noutputs: {{es: {{type: store}}}}\n")
    return path


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("inptus: {}")
    return path


def test_the_version_is_printed(aiologs):
    assert aiologs("--version") == (0, f"aiologs {__version__}\n", "")


def test_without_a_command_there_is_help(aiologs):
    code, out, err = aiologs()
    assert code == 2
    assert "explain" in out + err


@pytest.mark.parametrize("command", ["run", "check", "explain", "stages", "schema", "dead list"])
def test_every_command_has_help_with_an_example(aiologs, command):
    code, out, _ = aiologs(*command.split(), "--help")
    assert code == 0
    assert f"aiologs {command}" in out[out.index("Example") :]


def test_check_of_a_good_file(aiologs, config):
    code, out, _ = aiologs("check", "-c", config)
    assert code == 0
    assert out.startswith(f"{config}: OK\n")


def test_check_of_a_file_with_mistakes(aiologs, wrong):
    code, out, _ = aiologs("check", "-c", wrong)
    assert code == 1
    assert "unknown key 'inptus'; did you mean 'inputs'" in out


def test_check_of_a_file_that_is_not_there_could_not_run(aiologs, config):
    code, out, err = aiologs("check", "-c", config.with_name("other.yaml"))
    assert (code, out) == (2, "")
    assert "No such file or directory; -c FILE says which file is read" in err


def test_check_for_programs(aiologs, config, wrong):
    code, out, _ = aiologs("check", "-c", config, "--json")
    assert code == 0
    assert orjson.loads(out)["problems"] == []
    code, out, _ = aiologs("check", "-c", wrong, "--json")
    assert code == 1
    assert len(orjson.loads(out)["problems"]) == 3


def test_check_with_connect_tries_what_is_named(aiologs, config):
    code, out, _ = aiologs("check", "-c", config, "--connect")
    assert code == 0
    assert f"data_dir: {config.parent}" in out


def test_the_file_may_be_named_by_the_environment(aiologs, config, monkeypatch):
    monkeypatch.setenv("AIOLOGS_CONFIG", str(config))
    assert aiologs("check")[0] == 0


def test_explain_shows_the_way_of_a_record(aiologs, config):
    code, out, _ = aiologs("explain", "-c", config, '{"a": "ü"}')
    assert code == 0
    assert "stored in logs as explain-0" in out


def test_explain_reads_records_from_the_standard_input(aiologs, config):
    code, out, _ = aiologs("explain", "-c", config, "--json", stdin=b'{"a": 1}\n\nno JSON\n')
    assert code == 1
    first, second = (orjson.loads(text) for text in out.replace("}\n{", "}\0{").split("\0"))
    assert first["documents"][0]["document"] == {"a": 1}
    assert second["failed"]["stage"] == "decode"


def test_explain_of_nothing_says_what_it_wants(aiologs, config):
    code, _, err = aiologs("explain", "-c", config, stdin=b"\n")
    assert (code, "there is no record: give one" in err) == (2, True)


def test_explain_of_an_unknown_input_names_the_nearest(aiologs, config):
    code, _, err = aiologs("explain", "-c", config, "--input", "ap", "{}")
    assert code == 2
    assert "there is no input 'ap'; did you mean 'app'?" in err


def test_explain_needs_a_good_file(aiologs, wrong):
    code, _, err = aiologs("explain", "-c", wrong, "{}")
    assert code == 2
    assert err.count("\n") == 9
    assert "Traceback" not in err


def test_stages_lists_what_there_is(aiologs):
    assert aiologs("stages") == (0, "json   Does something.\nroute  Does something.\n", "")
    assert aiologs("stages", "--kind", "output")[1] == "store  Does something.\n"


def test_a_stage_is_shown_with_its_options(aiologs):
    code, out, _ = aiologs("stages", "json")
    assert code == 0
    assert out.endswith("More about it.\n\nOptions\n  size: int (default 1)\n      How large.\n")


def test_stages_for_programs(aiologs):
    assert [each["name"] for each in orjson.loads(aiologs("stages", "--json")[1])] == ["json", "route"]
    assert orjson.loads(aiologs("stages", "json", "--json")[1])["options"][0]["name"] == "size"


def test_an_unknown_stage_names_the_nearest(aiologs):
    code, _, err = aiologs("stages", "jsn")
    assert code == 2
    assert "unknown stage 'jsn'; did you mean 'json'?" in err


def test_the_schema_is_json(aiologs):
    code, out, _ = aiologs("schema")
    assert code == 0
    assert orjson.loads(out)["title"] == "aiologs"


def test_run_starts_the_daemon_and_exits_with_its_code(aiologs, config, monkeypatch):
    calls: list[Any] = []

    def run(path: Path, *, once: bool) -> int:
        calls.append((path, once))
        return 1

    monkeypatch.setitem(sys.modules, "pipeline.daemon", SimpleNamespace(run=run))
    monkeypatch.setattr("pipeline.daemon", sys.modules["pipeline.daemon"], raising=False)
    assert aiologs("run", "-c", config, "--once")[0] == 1
    assert calls == [(config, True)]


def test_the_program_has_written_everything_when_it_ends_with_the_code_of_its_command():
    def program(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", "from pipeline.cli import program; program()", *arguments]
        return subprocess.run(command, check=False, capture_output=True)

    schema = program("schema")
    assert schema.returncode == 0
    assert orjson.loads(schema.stdout)["properties"]
    mistake = program("bogus")
    assert mistake.returncode == 2
    assert mistake.stderr.endswith(b"No such command 'bogus'.\n")


def test_reload_says_what_the_daemon_changed(aiologs, monkeypatch, tmp_path):
    answer, asked = {"file": "/etc/x.yaml", "changed": "new chain"}, (tmp_path, "reload")
    monkeypatch.setattr(control, "ask", lambda *given: answer if given == asked else None)
    assert aiologs("reload", "--data-dir", tmp_path) == (0, "/etc/x.yaml: new chain\n", "")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(Unusable("it is wrong"), 1, "it is wrong"), (control.NoDaemon("x"), 2, "no daemon runs on ")],
)
def test_a_reload_that_fails_says_why(aiologs, monkeypatch, tmp_path, error, code, told):
    def ask(*_):
        raise error

    monkeypatch.setattr(control, "ask", ask)
    exit_code, _, errors = aiologs("reload", "--data-dir", tmp_path)
    assert exit_code == code
    assert told in errors


def test_the_version_is_printed_without_importing_what_is_slow():
    code = (
        "import sys; sys.argv = ['aiologs', '--version']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('pydantic', 'yaml', 'rich', 'sqlite3', 'asyncio') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == f"aiologs {__version__}\n[]\n"

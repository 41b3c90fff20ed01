import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.contract import Unusable
from pipeline.control import Control
from pipeline.database import lock
from pipeline.dead import DeadLetters
from pipeline.dead_commands import app
from pipeline.letters import Letter

CONTROLS = b'{"password":"secret","colour":"\x1b[31m"'
LETTERS = [
    Letter("a-1", "app", CONTROLS, {"host.name": "h"}, 1000.0, "", "json", "ValueError: end at 7", "Traceback\n  x"),
    Letter("a-2", "app", b"\xff\xfe", {}, 2000.0, "", "json", "ValueError: end at 8"),
    Letter("b-1", "web", b"{}", {}, 3000.0, "es", "", "mapper: no date", index="logs", document=b'{"a":1}'),
    Letter("b-1", "web", b"{}", {}, 3000.0, "file", "", "disk", document=b"{}"),
]


@pytest.fixture
def data(tmp_path):
    async def put() -> None:
        dead = DeadLetters(tmp_path / "data")
        await dead.start()
        await dead.put(LETTERS)
        await dead.stop()

    asyncio.run(put())
    return tmp_path / "data"


@pytest.fixture
def config(data):
    path = data.parent / "aiologs.yaml"
    content = {"data_dir": str(data), "inputs": {"app": {"type": "stdin"}}, "outputs": {"out": {"type": "console"}}}
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: object, code: int = 0, **more):
    result = CliRunner().invoke(app, [str(each) for each in arguments], **more)
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def left(data: Path) -> list[str]:
    return [each["sample"] for each in json.loads(run("list", "--data-dir", data, "--json").stdout)]


@contextmanager
def daemon(data: Path, **answers) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """A daemon that listens in another thread and gives these answers."""
    asked: list[tuple[str, dict[str, str]]] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        def handler(name: str):
            async def handle(request):
                asked.append((name, request["filters"]))
                return answers[name]

            return handle

        server = Control(data, {f"dead.{name}": handler(name) for name in answers})
        await server.start()
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        await server.stop()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait(10)
    try:
        yield asked
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


# --- list ---


def test_list_groups_by_cause_with_an_example(data):
    lines = run("list", "--data-dir", data).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["count", "stage", "input", "index", "output", "last", "example", "reason"],
        ["2", "json", "app", "1970-01-01T00:33:20Z", "a-1", "ValueError:", "end", "at", "N"],
        ["1", "web", "logs", "es", "1970-01-01T00:50:00Z", "b-1", "mapper:", "no", "date"],
        ["1", "web", "file", "1970-01-01T00:50:00Z", "b-1", "disk"],
    ]
    assert (
        len({line.index(word) for line, word in zip(lines, ["reason", "ValueError", "mapper", "disk"], strict=True)})
        == 1
    )


def test_list_finds_the_folder_in_the_configuration(config, monkeypatch):
    assert "end at N" in run("list", "-c", config).stdout
    monkeypatch.setenv("AIOLOGS_CONFIG", str(config))
    assert "end at N" in run("list").stdout


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["--stage", "json"], 2),
        (["--input", "web"], 2),
        (["--index", "logs"], 1),
        (["--output", "es"], 1),
        (["--reason", "END"], 2),
    ],
)
def test_list_takes_filters(data, filters, count):
    groups = json.loads(run("list", "--data-dir", data, "--json", *filters).stdout)
    assert sum(group["count"] for group in groups) == count


def test_list_of_nothing_ends_with_1(data):
    result = run("list", "--data-dir", data, "--stage", "x", code=1)
    assert (result.stdout, result.stderr) == ("", "There are no such dead letters.\n")
    run("purge", "--data-dir", data, "--yes")
    assert run("list", "--data-dir", data, code=1).stderr == "There are no dead letters.\n"


def test_list_without_a_file_is_unusable(tmp_path):
    with pytest.raises(Unusable, match=r"dead\.db does not exist"):
        run("list", "--data-dir", tmp_path)


def test_list_works_beside_a_daemon(data):
    with lock(data):
        assert len(left(data)) == 3


# --- show ---


def test_show_prints_everything_but_nothing_that_controls_a_terminal(data):
    result = run("show", "--data-dir", data, "a-1")
    for text in (
        "id        a-1",
        "reason    ValueError: end at 7",
        "time      1970-01-01T00:16:40Z",
        "--- traceback ---\nTraceback",
    ):
        assert text in result.stdout
    assert '--- record ---\n{"password":"secret","colour":"\\x1b[31m"' in result.stdout
    assert "may hold secrets" in result.stderr
    assert "document" not in result.stdout


def test_show_prints_every_letter_of_an_id_with_the_document(data):
    result = run("show", "--data-dir", data, "b")
    assert result.stdout.count("id        b-1") == 2
    assert '--- document ---\n{"a":1}' in result.stdout


def test_show_as_json_keeps_what_is_no_text(data):
    [letter] = json.loads(run("show", "--data-dir", data, "a-2", "--json").stdout)
    assert (letter["record"], letter["record_base64"]) == ("\\xff\\xfe", "//4=")
    [letter] = json.loads(run("show", "--data-dir", data, "a-1", "--json").stdout)
    assert letter["record"] == CONTROLS.decode()
    assert "record_base64" not in letter


def test_show_names_the_ids_that_begin_alike(data):
    assert run("show", "--data-dir", data, "a", code=1).stderr == "Several ids begin so:\na-1\na-2\n"


def test_show_prefers_the_id_itself(data):
    async def put() -> None:
        dead = DeadLetters(data)
        await dead.start()
        await dead.put([replace(LETTERS[0], id="a-10")])
        await dead.stop()

    asyncio.run(put())
    assert "id        a-1\n" in run("show", "--data-dir", data, "a-1").stdout


def test_show_of_nothing_ends_with_1(data):
    assert run("show", "--data-dir", data, "zzz", code=1).stdout == ""


# --- retry ---


def test_retry_is_done_by_the_daemon_that_runs(data):
    with daemon(data, retry={"tried": 2, "stored": 2, "set_aside": 0}) as asked:
        result = run("retry", "--data-dir", data, "--stage", "json", "--id", "a")
    assert result.stdout == "tried 2, stored 2, set aside 0\n"
    assert asked == [("retry", {"id": "a", "input": "", "reason": "", "stage": "json", "index": "", "output": ""})]


@pytest.mark.parametrize(("answer", "code"), [({"tried": 2, "set_aside": 1}, 1), ({"tried": 0}, 1), ({"tried": 1}, 0)])
def test_retry_ends_with_1_when_nothing_was_found_or_some_failed_again(data, answer, code):
    with daemon(data, retry=answer):
        assert json.loads(run("retry", "--data-dir", data, "--json", code=code).stdout) == answer


def test_retry_is_done_here_where_no_daemon_runs(config, data, monkeypatch):
    tried: list[str] = []

    async def retry_dead(config, letters):
        with pytest.raises(Unusable, match="another aiologs"), lock(config.data_dir):
            pass
        tried.extend(letter.id for letter in letters)
        return {"tried": len(tried), "stored": len(tried)}

    monkeypatch.setattr("pipeline.app.retry_dead", retry_dead)
    assert run("retry", "-c", config, "--input", "app").stdout == "tried 2, stored 2\n"
    assert tried == ["a-1", "a-2"]


def test_retry_of_nothing_prints_nothing(data):
    with daemon(data, retry={"tried": 0}):
        assert run("retry", "--data-dir", data, code=1).stdout == ""


# --- purge ---


def test_purge_asks_first(data):
    assert "Forget 2 dead letters" in run("purge", "--data-dir", data, "--stage", "json", input="n\n", code=1).output
    assert len(left(data)) == 3
    assert "2 removed" in run("purge", "--data-dir", data, "--stage", "json", input="y\n").stdout
    assert left(data) == ["b-1", "b-1"]


def test_purge_of_everything(data):
    assert run("purge", "--data-dir", data, "--yes").stdout == "4 removed\n"
    run("list", "--data-dir", data, code=1)
    run("purge", "--data-dir", data, "--yes", code=1)


def test_purge_is_done_by_the_daemon_that_runs(data):
    with daemon(data, purge={"removed": 3}) as asked:
        assert run("purge", "--data-dir", data, "--yes", "--output", "es").stdout == "3 removed\n"
    assert asked == [("purge", {"id": "", "input": "", "reason": "", "stage": "", "index": "", "output": "es"})]
    assert len(left(data)) == 3


def test_purge_is_refused_while_a_daemon_starts(data):
    with lock(data), pytest.raises(Unusable, match="another aiologs"):
        run("purge", "--data-dir", data, "--yes")


# --- all ---


@pytest.mark.parametrize("command", ["list", "show", "retry", "purge"])
def test_every_command_has_help_with_an_example(command):
    assert f"Example: aiologs dead {command} " in re.sub(r"\s+", " ", run(command, "--help").stdout)


def test_wrong_usage_ends_with_2():
    run("list", "--no-such-option", code=2)


def test_the_commands_are_imported_fast():
    program = "import sys, pipeline.dead_commands; sys.exit(bool({'sqlite3', 'orjson', 'asyncio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- ids with dashes, and export ---


@pytest.mark.parametrize("id_", ["-Qm3xk7tWcYbD1aa-17", "--m3xk7tWcYbD1aa-17", "-c3xk7tWcYbD1aa-17", "-hm3"])
def test_show_takes_an_id_that_begins_with_a_dash(data, id_):
    async def put() -> None:
        dead = DeadLetters(data)
        await dead.start()
        await dead.put([Letter(id_, "app", b"{}", {}, 1000.0)])
        await dead.stop()

    asyncio.run(put())
    for arguments in ([id_, "--data-dir", data, "--json"], ["--json", "--data-dir", data, id_[:5]]):
        assert [each["id"] for each in json.loads(run("show", *arguments).stdout)] == [id_]


def test_show_still_has_its_options(data):
    assert "Usage" in run("show", "--help").stdout
    assert "unexpected extra argument" in run("show", "--data-dir", data, "--jason", "a-1", code=2).output


def test_export_writes_a_line_a_letter_that_can_be_read_again(data):
    from pipeline.letter_json import imported

    lines = run("export", "--data-dir", data).stdout_bytes.splitlines()
    assert [imported(line) for line in lines] == LETTERS
    assert len(run("export", "--data-dir", data, "--input", "web").stdout_bytes.splitlines()) == 2


def test_export_of_nothing_ends_with_1(data):
    run("export", "--data-dir", data, "--input", "none", code=1)


def test_list_shows_nothing_that_a_reason_quotes(data):
    async def put() -> None:
        dead = DeadLetters(data)
        await dead.start()
        await dead.put([Letter("q", "app", b"", {}, 1000.0, reason="ValueError: no date: 'hunter2'")])
        await dead.stop()

    asyncio.run(put())
    assert "hunter2" not in run("list", "--data-dir", data).output
    assert "hunter2" in run("show", "q", "--data-dir", data).output


def test_purge_tells_a_program_how_many(data):
    result = run("purge", "--data-dir", data, "--input", "web", "--yes", "--json")
    assert json.loads(result.stdout) == {"removed": 2}

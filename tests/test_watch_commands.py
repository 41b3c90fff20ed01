import asyncio
import json

from typer.testing import CliRunner

from pipeline.cli import app as commands
from tests.test_app import app, line, load, log, until


async def run(*arguments: str):
    return await asyncio.to_thread(CliRunner().invoke, commands, [*map(str, arguments)])


async def test_top_and_tap_look_at_a_daemon_while_it_runs(tmp_path):
    pipeline = app(load(tmp_path, admin="127.0.0.1:0"))
    running = asyncio.create_task(pipeline.run())
    await pipeline.ready.wait()
    tapped = asyncio.create_task(run("tap", "-c", tmp_path / "aiologs.yaml", "--json", "--limit", "2"))
    await until(lambda: pipeline.delivery.taps._taps)
    log(tmp_path, line(n=1, password="hunter2"), line(n=2))
    shown = await tapped
    assert (shown.exit_code, shown.stderr) == (0, "2 events shown, 0 more records have passed unseen\n")
    found = [json.loads(each) for each in shown.stdout.splitlines()]
    assert [each["after"][0]["n"] for each in found] == [1, 2]
    assert "hunter2" not in shown.stdout
    await until(lambda: not pipeline.delivery.taps._taps)

    looked = await run("top", "--address", f"127.0.0.1:{pipeline.admin.port}", "--once", "--json", "--interval", "0.1")
    assert looked.exit_code == 0
    assert json.loads(looked.stdout)["outputs"]["db"]["documents"]["stored"] == 2
    pipeline.stop.set()
    await running


async def test_a_wrong_name_or_expression_is_told_with_the_nearest(tmp_path):
    load(tmp_path)
    wrong = await run("tap", "-c", tmp_path / "aiologs.yaml", "--stage", "severty")
    assert wrong.exit_code == 2
    assert "severity" in wrong.stderr
    wrong = await run("tap", "-c", tmp_path / "aiologs.yaml", "--where", "a ==")
    assert (wrong.exit_code, "--where" in wrong.stderr) == (2, True)

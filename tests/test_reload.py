import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import reload
from pipeline.contract import Unusable
from pipeline.control import ask
from tests.reload_site import Site, at_work, until


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"more": "nonsense: true"}, "nonsense"),
        ({"more": "stages: ["}, "aiologs.yaml"),
        ({"inputs": '  b: {type: http, listen: "127.0.0.1:1", tls: {certificate: /none, key: /none}}'}, "/none"),
        ({"outputs": "  b: {type: local, path: /proc/none/x.db}"}, "/proc/none"),
        ({"more": "tests: [{name: odd, input: {n: 1}, expect: {n: 2}}]"}, "n is 1, expected 2"),
        ({"more": "log: {file: /proc/none/log}"}, "/proc/none"),
    ],
)
async def test_a_configuration_with_a_mistake_leaves_the_one_before_in_force(site, caplog, values, error):
    async with at_work(site):
        running = dict(site.app.running)
        await site.changed(tag="two", **values)
        site.log(1)
        assert await site.until_stored(1) == "one"
        assert site.app.running["app"] is running["app"]
        status = await asyncio.to_thread(ask, site.folder / "data", "status")
        assert error in status["configuration"]["error"]
        assert "aiologs_config_reload_failures_total 1.0" in site.app.metrics.render().decode()
        assert "the configuration before stays in force" in caplog.text
        assert error in caplog.text
        assert site.told[-1].startswith("READY=1\nSTATUS=the last reload failed")
        await site.changed(inputs="", outputs="", more="")
        site.log(2)
        assert await site.until_stored(2) == "two"
        assert site.app.status()["configuration"]["error"] is None


async def test_the_command_says_what_changed_or_why_nothing_did(site):
    async with at_work(site):
        site.write(tag="two")
        data = site.folder / "data"
        answer = await asyncio.to_thread(ask, data, "reload")
        assert answer == {"file": str(site.path), "changed": "new chain, inputs and outputs go on"}
        site.write(more="nonsense: true")
        with pytest.raises(Unusable, match=r"(?s)is not taken over, the configuration before stays in force.*nonsense"):
            await asyncio.to_thread(ask, data, "reload")


async def test_data_dir_can_not_be_changed(site, caplog):
    async with at_work(site):
        site.path.write_text(site.path.read_text().replace("/data", "/other"))
        ready = site.ready()
        site.reload.request()
        await until(lambda: site.ready() > ready)
    assert "data_dir is" in caplog.text
    assert "restart the daemon for that" in caplog.text


@pytest.fixture
async def held(monkeypatch):
    """Holds every reload up, until it is set, after it has begun."""
    release, checked, loop = asyncio.Event(), reload.checked, asyncio.get_running_loop()

    def slow(path):
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return checked(path)

    monkeypatch.setattr(reload, "checked", slow)
    return release


async def test_several_signals_during_a_reload_are_one_more(site, held):
    async with at_work(site):
        site.reload.request()
        await until(lambda: site.app.change)
        for _ in range(5):
            site.reload.request()
        held.set()
        await until(lambda: site.ready() == 3 and site.app.change is None)
        assert sum(each.startswith("RELOADING") for each in site.told) == 2


async def test_a_stop_during_a_reload_ends_it_and_the_daemon(site, held):
    async with at_work(site):
        site.write(tag="two")
        site.reload.request()
        await until(lambda: site.app.change)
        site.app.stop.set()
        await until(lambda: "STOPPING=1" in site.told)
        held.set()
    assert site.told[-1] == "STOPPING=1"


@pytest.mark.parametrize("how", ["written", "replaced", "switched as Kubernetes does"])
async def test_a_file_that_has_changed_is_reloaded_where_that_is_asked_for(site, monkeypatch, how):
    monkeypatch.setattr(reload, "LOOK_SECONDS", 0.05)
    if how.startswith("switched"):
        (site.folder / "..1").mkdir()
        site.path.rename(site.folder / "..1" / "aiologs.yaml")
        (site.folder / "..data").symlink_to("..1")
        site.path.symlink_to(Path("..data") / "aiologs.yaml")
    site.app.config = replace(site.app.config, reload="on_change")
    async with at_work(site):
        text = site.path.read_text().replace("on_signal", "on_change").replace('"one"', '"two"')
        await asyncio.sleep(0.1)
        match how:
            case "written":
                site.path.write_text(text)
            case "replaced":
                (site.folder / "new").write_text(text)
                (site.folder / "new").replace(site.path)
            case _:
                (site.folder / "..2").mkdir()
                (site.folder / "..2" / "aiologs.yaml").write_text(text)
                (site.folder / "..data_tmp").symlink_to("..2")
                (site.folder / "..data_tmp").replace(site.folder / "..data")
        await until(lambda: site.ready() == 2)
        site.log(1)
        assert await site.until_stored(1) == "two"


async def test_a_changed_file_changes_nothing_where_that_is_not_asked_for(site, monkeypatch):
    monkeypatch.setattr(reload, "LOOK_SECONDS", 0.01)
    async with at_work(site):
        site.write(tag="two")
        await asyncio.sleep(0.2)
        assert site.ready() == 1


def test_a_file_that_can_not_be_loaded_is_unusable(tmp_path):
    with pytest.raises(Unusable, match="can't read it"):
        reload.checked(tmp_path / "none.yaml")

import asyncio
import contextlib
import json
import logging
import os
import socket
import sqlite3
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import change, config, reload
from pipeline.app import App
from pipeline.chain import Chain
from pipeline.contract import Unusable
from pipeline.control import ask
from pipeline.reload import Reload
from pipeline.workers import Inline

CONFIG = """
data_dir: {folder}/data
admin: null
workers: 0
reload: {reload}
inputs:
  app: {{type: file, paths: ["{folder}/*.log"]}}
  web: {{type: http, listen: "127.0.0.1:{port}"}}
{inputs}
stages:
  - tag: {{add: ["{tag}"]}}
  - route: {{default: logs}}
outputs:
  db: {{type: local, path: "{folder}/store.db"}}
{outputs}
{more}
"""


class Site:
    """A daemon's insides with a configuration file that is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "aiologs.yaml"
        self.told: list[str] = []
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.values = {"port": probe.getsockname()[1], "tag": "one", "inputs": "", "outputs": "", "more": ""}
        self.values["reload"] = "on_signal"
        self.write()
        settings = config.load(self.path)
        self.app = App(
            settings, lambda metrics: Inline(Chain(settings.chain_spec()), metrics.report), notify=self.told.append
        )
        self.reload = Reload(self.app, self.told.append)

    def write(self, **values) -> None:
        self.values |= values
        new = self.path.with_suffix(".new")
        new.write_text(CONFIG.format(folder=self.folder, **self.values))
        new.replace(self.path)

    async def changed(self, **values) -> None:
        """Change the file, reload, and wait until that is over."""
        self.write(**values)
        ready = self.ready()
        self.reload.request()
        await until(lambda: self.ready() > ready and self.app.change is None)

    def ready(self) -> int:
        return sum(each.startswith("READY=1") for each in self.told)

    def log(self, n: int, name: str = "app.log") -> None:
        with (self.folder / name).open("a") as file:
            file.write(f'{{"n":{n}}}\n')

    async def send(self, n: int, port: int | None = None) -> None:
        url = f"http://127.0.0.1:{port or self.values['port']}/"
        request = urllib.request.Request(url, f'{{"n":{n}}}'.encode(), {"Content-Type": "application/json"})
        with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
            assert answer.status == 200

    def stored(self, name: str = "store.db") -> dict[int, str]:
        """The tag of each document by its number."""
        if not (self.folder / name).exists():
            return {}
        with contextlib.closing(sqlite3.connect(self.folder / name)) as db:
            documents = [json.loads(text) for (text,) in db.execute("SELECT document FROM documents")]
        return {each["n"]: each["tags"][0] for each in documents}

    async def until_stored(self, n: int, name: str = "store.db") -> str:
        await until(lambda: n in self.stored(name))
        return self.stored(name)[n]


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(site: Site):
    tasks = [asyncio.create_task(site.app.run()), asyncio.create_task(site.reload.run())]
    await until(lambda: site.ready() or tasks[0].done())
    try:
        yield site
    finally:
        site.app.stop.set()
        try:
            await tasks[0]
        finally:
            tasks[1].cancel()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


async def test_the_chain_is_exchanged_and_inputs_that_did_not_change_stay_open(site, caplog):
    caplog.set_level(logging.INFO)
    async with at_work(site):
        running, ports = dict(site.app.running), site.app.inputs["web"].ports
        site.log(1)
        assert await site.until_stored(1) == "one"
        await site.changed(tag="two")
        await site.send(2)
        site.log(3)
        assert (await site.until_stored(2), await site.until_stored(3)) == ("two", "two")
        assert site.app.running == running
        assert site.app.inputs["web"].ports == ports
    assert "new chain, inputs and outputs go on" in caplog.text
    assert site.told[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert site.told[2:] == ["READY=1\nSTATUS=", "STOPPING=1"]


async def test_a_connection_that_is_kept_open_outlives_a_reload(site):
    async with at_work(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.values["port"])
        for n in range(3):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n"
            writer.write(head + b'{"n":%d}' % n)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(12)
            await site.changed(tag=f"{n}")
        writer.close()
        assert site.stored() == {0: "one", 1: "0", 2: "1"}


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


async def test_a_changed_input_goes_on_where_it_was_and_a_new_one_begins(site):
    async with at_work(site):
        site.log(1)
        await site.until_stored(1)
        other = site.folder / "more"
        other.mkdir()
        site.log(2, "more/x.log")
        old = site.app.running["app"]
        site.write(inputs=f'  more: {{type: file, paths: ["{other}/*.log"]}}', tag="two")
        site.path.write_text(site.path.read_text().replace('/*.log"]}', '/*.log"], poll: 1}', 1))
        ready = site.ready()
        site.reload.request()
        await until(lambda: site.ready() > ready)
        site.log(3)
        assert await site.until_stored(3) == await site.until_stored(2) == "two"
        assert site.stored()[1] == "one"
        assert old.task.done()
        assert site.app.running["app"] is not old
        assert 'records_total{input="app"} 2.0' in site.app.metrics.render().decode()


async def test_an_input_that_is_gone_ends_and_its_port_is_free(site, monkeypatch):
    forgotten = []
    monkeypatch.setattr(site.app.metrics, "forget_all", lambda _, name: forgotten.append(name))
    async with at_work(site):
        site.path.write_text("\n".join(line for line in site.path.read_text().splitlines() if " web:" not in line))
        ready = site.ready()
        site.reload.request()
        await until(lambda: site.ready() > ready)
        assert list(site.app.running) == ["app"]
        assert forgotten == ["web"]
        with pytest.raises(OSError, match=r"[Rr]efused"):
            await site.send(1)


async def test_an_address_that_is_taken_brings_the_old_configuration_back(site, caplog):
    async with at_work(site):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port, own = taken.getsockname()[1], site.values["port"]
            await site.changed(port=port, tag="two")
        assert f"can't listen on 127.0.0.1:{port}" in caplog.text
        await site.send(1, own)
        site.log(2)
        assert await site.until_stored(1) == await site.until_stored(2) == "one"


async def test_a_changed_input_listens_on_its_new_address(site):
    async with at_work(site):
        old = site.values["port"]
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        await site.changed(port=port)
        await site.send(1)
        with pytest.raises(OSError, match=r"[Rr]efused"):
            await site.send(2, old)


async def test_an_output_is_added_and_taken_away(site):
    async with at_work(site):
        await site.changed(outputs=f"  second: {{type: local, path: {site.folder}/second.db}}")
        site.log(1)
        await site.until_stored(1, "second.db")
        await site.until_stored(1)
        await site.changed(outputs="")
        site.log(2)
        await site.until_stored(2)
        assert list(site.stored("second.db")) == [1]


async def test_what_a_replaced_output_does_not_store_is_parked_and_stored_by_its_successor(site, monkeypatch):
    monkeypatch.setattr(change, "_OUTPUT_SECONDS", 0.1)
    monkeypatch.setattr("pipeline.app._UNPARK_SECONDS", 0.1)
    async with at_work(site):

        async def hang(payload):
            await asyncio.Event().wait()

        site.app.outputs["db"].use.it.write = hang
        site.log(1)
        await until(lambda: site.app.delivery.in_flight_batches)
        site.path.write_text(site.path.read_text().replace("store.db", "other.db"))
        ready = site.ready()
        site.reload.request()
        await until(lambda: site.ready() > ready)
        await site.until_stored(1, "other.db")
        site.log(2)
        await site.until_stored(2, "other.db")
        await until(lambda: not site.app.delivery.in_flight_batches)


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


async def test_the_address_of_admin_and_the_log_change_with_a_reload(site):
    log_file = site.folder / "own" / "aiologs.log"
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        async with at_work(site):
            site.path.write_text(
                site.path.read_text().replace("admin: null", "admin: 127.0.0.1:0") + f"log: {{file: {log_file}}}\n"
            )
            ready = site.ready()
            site.reload.request()
            await until(lambda: site.ready() > ready)
            url = f"http://127.0.0.1:{site.app.admin.port}/readyz"
            with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
                assert answer.status == 200
        assert "reloaded" in log_file.read_text()
    finally:
        for handler in root.handlers[:]:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)


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


def test_certificates_that_are_read_once_are_known_by_their_files_and_those_of_listeners_follow_by_themselves(tmp_path):
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    path = tmp_path / "aiologs.yaml"
    path.write_text(
        f"""
inputs:
  web: {{type: http, listen: ":1", tls: {{certificate: {certificate}}}}}
  topic: {{type: kafka, brokers: [b], topics: [t], tls: {{ca: {certificate}}}}}
outputs:
  es: {{type: elasticsearch, ca: {certificate}}}
  db: {{type: local, path: {certificate}}}
"""
    )
    settings = config.load(path)
    before = change.certificates(settings)
    os.utime(certificate, (1, 1))
    after = change.certificates(settings)
    assert [key for key in before if before[key] != after[key]] == [("input", "topic"), ("output", "es")]


def test_a_file_that_can_not_be_loaded_is_unusable(tmp_path):
    with pytest.raises(Unusable, match="can't read it"):
        reload.checked(tmp_path / "none.yaml")

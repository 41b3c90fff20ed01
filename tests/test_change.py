import asyncio
import contextlib
import logging
import os
import socket
import urllib.request

import pytest

from pipeline import change, config
from tests.reload_site import Site, at_work, until


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


async def test_the_chain_is_exchanged_and_inputs_that_did_not_change_stay_open(site, caplog):
    caplog.set_level(logging.INFO)
    async with at_work(site):
        running, ports = dict(site.app.running), site.app.inputs["web"].endpoint.ports
        site.log(1)
        assert await site.until_stored(1) == "one"
        await site.changed(tag="two")
        await site.send(2)
        site.log(3)
        assert (await site.until_stored(2), await site.until_stored(3)) == ("two", "two")
        assert site.app.running == running
        assert site.app.inputs["web"].endpoint.ports == ports
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
    monkeypatch.setattr("pipeline.background._UNPARK_SECONDS", 0.1)
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


@pytest.fixture
def meanwhile(monkeypatch):
    """What is done between the end of the inputs that change and the begin of their successors."""
    work, exchange = [], change.Change._exchange

    def exchanging(self, engine) -> None:
        exchange(self, engine)
        while work:
            work.pop()()

    monkeypatch.setattr(change.Change, "_exchange", exchanging)
    return work


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("kind", ["tcp", "udp", "http"])
async def test_a_listener_that_is_changed_refuses_nothing(site, meanwhile, kind):
    port, body = free_port(), b'{"n":1}\n'
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
    more = f'  in: {{type: {kind}, listen: "127.0.0.1:{port}"}}'
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as client:
        client.settimeout(20)

        def send() -> None:
            client.connect(("127.0.0.1", port))
            client.sendall(head + body if kind == "http" else body)

        async with at_work(site):
            await site.changed(inputs=more)
            before = site.app.running["in"]
            meanwhile.append(send)
            await site.changed(inputs=more.replace("}", ", in_flight: 1000}"))
            assert before.task.done()
            await site.until_stored(1)
            if kind == "http":
                assert b"200 OK" in await asyncio.to_thread(client.recv, 1000)


async def test_a_listener_that_comes_back_refuses_nothing(site, meanwhile, caplog):
    more = f'  in: {{type: tcp, listen: "127.0.0.1:{(port := free_port())}"}}'
    async with at_work(site):
        await site.changed(inputs=more)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            bad = f'\n  bad: {{type: tcp, listen: "127.0.0.1:{taken.getsockname()[1]}"}}'
            meanwhile.append(lambda: socket.create_connection(("127.0.0.1", port)).close())
            await site.changed(inputs=more.replace("}", ", in_flight: 1000}") + bad)
        assert "can't listen" in caplog.text
        assert not meanwhile
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b'{"n":1}\n')
            await site.until_stored(1)

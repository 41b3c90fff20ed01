"""The UDP input."""

import asyncio
import contextlib
import logging
import logging.handlers
import socket
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop

from pipeline.contract import Context, Unusable
from pipeline.inputs import _gather, udp
from pipeline.inputs.udp import Udp
from tests.inputs.deliveries import Deliveries, until


class Running(Deliveries):
    """A running input; while `gate` is closed, batches stay under way."""

    def __init__(self, options, once=False):
        super().__init__()
        self.stop, self.counts = asyncio.Event(), []
        context = Context("net", "host", cast("Any", None), count=lambda *each: self.counts.append(each), once=once)
        self.input = Udp(Udp.Options(**{"listen": "127.0.0.1:0", **options}), context)
        self.task = asyncio.create_task(self.input.run(self, self.stop))

    async def send(self, *datagrams, family=socket.AF_INET, host="127.0.0.1"):
        await until(lambda: self.input.ports)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            for data in datagrams:
                sock.sendto(data, (host, self.input.ports[0]))


@asynccontextmanager
async def running(**options):
    run = Running(options)
    try:
        yield run
    finally:
        run.gate.set()
        run.stop.set()
        await asyncio.gather(run.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(_gather, "_LINGER", 0.01)


async def test_each_datagram_is_a_record_without_its_line_end():
    async with running() as run:
        await run.send(b"<13>a\nb\n", b"<13>c\0", b"", b"\n", b"<13>a\nb\n")
        await until(lambda: len(run.records) == 3)
        assert run.records == [b"<13>a\nb", b"<13>c", b"<13>a\nb"]
        assert len({id_ for batch in run.batches for id_ in batch.document_ids()}) == 3
        assert run.batches[0].origin["event.created"].endswith("Z")


async def test_what_there_is_no_room_for_is_dropped_and_counted_and_told_once(caplog):
    async with running(in_flight=10) as run:
        run.gate.clear()
        await run.send(b"x" * 8, b"y" * 8, b"z" * 8)
        await until(lambda: len(run.counts) == 2)
        assert run.counts == [("datagrams_dropped", 1, {"input": "net"})] * 2
        run.gate.set()
        await until(lambda: "there is room again; 2 datagrams were dropped" in caplog.text)
        assert caplog.text.count("no room") == 1
        await run.send(b"u" * 8)
        await until(lambda: len(run.records) == 2)
        assert run.records == [b"x" * 8, b"u" * 8]


async def test_stopping_stores_what_was_received():
    async with running() as run:
        run.gate.clear()
        await run.send(b"a")
        await until(lambda: run.batches)
        run.stop.set()
        await asyncio.sleep(0.03)
        assert not run.task.done()
        run.gate.set()
        await run.task


async def test_all_addresses_are_those_of_both_families():
    async with running(listen=":0") as run:
        await run.send(b"four")
        if socket.has_dualstack_ipv6():
            await run.send(b"six", family=socket.AF_INET6, host="::1")
            await until(lambda: len(run.records) == 2)
        await until(lambda: b"four" in run.records)


async def test_without_ipv6_all_addresses_are_those_of_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    async with running(listen=":0") as run:
        await run.send(b"four")
        await until(lambda: run.records == [b"four"])


async def test_an_address_in_use_is_told():
    async with running() as run:
        await until(lambda: run.input.ports)
        with pytest.raises(Unusable, match=r"can't listen on 127.0.0.1:.*in use"):
            await Running({"listen": f"127.0.0.1:{run.input.ports[0]}"}).task


async def test_an_error_of_delivery_ends_the_input():
    async with running() as run:
        run.error = RuntimeError("the disk is gone")
        await run.send(b"a")
        with pytest.raises(RuntimeError, match="the disk is gone"):
            await run.task


async def test_working_off_what_is_there_ends_at_once():
    run = Running({}, once=True)
    await run.task
    assert run.input.ports == []


async def test_pythons_syslog_handler_is_understood():
    async with running() as run:
        await until(lambda: run.input.ports)
        handler = logging.handlers.SysLogHandler(("127.0.0.1", run.input.ports[0]))
        handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "message", (), None))
        handler.close()
        await until(lambda: run.records == [b"<11>message"])


@pytest.mark.parametrize(
    "scenario",
    [
        test_each_datagram_is_a_record_without_its_line_end,
        test_stopping_stores_what_was_received,
        test_all_addresses_are_those_of_both_families,
        test_an_address_in_use_is_told,
        test_an_error_of_delivery_ends_the_input,
        test_working_off_what_is_there_ends_at_once,
        test_pythons_syslog_handler_is_understood,
    ],
)
def test_on_the_daemons_own_event_loop(scenario):
    """Its transports differ from asyncio's."""
    uvloop.run(scenario())


async def test_datagrams_of_a_peer_become_records(monkeypatch):
    monkeypatch.setattr(udp, "_PEERS", 2)
    async with running(multiline={"start": "^>", "max_lines": 2}) as run:
        await until(lambda: run.input.ports)
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(3)]

            def send(n, data):
                peers[n].sendto(data, ("127.0.0.1", run.input.ports[0]))

            for data in (b"> 1\n", b" a\n", b" b\n"):
                send(0, data)
            await until(lambda: run.records == [b"> 1\n a"])
            assert run.counts == [("records_cut", 1, {"input": "net"})]
            send(1, b"> 2")
            send(1, b" c")
            send(2, b"> 3")
            await until(lambda: b" b" in run.records)
        run.stop.set()
        await until(lambda: len(run.records) == 4)
        assert sorted(run.records) == [b" b", b"> 1\n a", b"> 2\n c", b"> 3"]


async def test_datagrams_that_nothing_continues_are_delivered_after_a_while(monkeypatch):
    monkeypatch.setattr(udp, "_WATCH", 0.01)
    async with running(multiline={"preset": "java", "flush_seconds": 0.05}) as run:
        await run.send(b"failed", b"java.lang.Error: x")
        await until(lambda: run.records)
        assert run.records == [b"failed\njava.lang.Error: x"]

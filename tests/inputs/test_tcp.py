"""The TCP input: real sockets, a delivery that the test holds in its hands."""

import asyncio
import logging
import logging.handlers
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import uvloop

from pipeline.contract import Context, Unusable
from pipeline.inputs import _gather, _listen, _server
from pipeline.inputs.tcp import Tcp
from tests.inputs.deliveries import Deliveries, until

TIMED = b'{"@timestamp":"2026-11-20T00:00:00.000Z","n":1}'


class Running:
    """A running input and those who talk to it."""

    def __init__(self, options, once=False):
        self.delivery, self.stop, self.clients = Deliveries(), asyncio.Event(), []
        self.counts: list[tuple[object, ...]] = []
        context = Context("sys", "host", cast("Any", None), count=lambda *each: self.counts.append(each), once=once)
        self.input = Tcp(Tcp.Options(**{"listen": "127.0.0.1:0", **options}), context)
        self.task = asyncio.create_task(self.input.run(self.delivery, self.stop))

    async def connect(self):
        await until(lambda: self.input.server.endpoint.ports)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.input.server.endpoint.ports[0])
        self.clients.append(writer)
        return reader, writer

    async def send(self, data):
        """Send all of it in a connection of its own, and close that."""
        reader, writer = await self.connect()
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b""


@asynccontextmanager
async def running(**options):
    run = Running(options)
    try:
        yield run
    finally:
        run.delivery.gate.set()
        run.stop.set()
        for writer in run.clients:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        async with asyncio.timeout(60):
            await asyncio.gather(run.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(_server, "_WATCH", 0.01)
    monkeypatch.setattr(_gather, "_LINGER", 0.01)


async def test_lines_become_records_and_the_last_one_counts_without_a_newline():
    async with running() as run:
        await run.send(b'{"a":1}\n{"a":2}\r\n\n{"a":3}')
        await until(lambda: len(run.delivery.records) == 3)
        assert run.delivery.records == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
        (batch, *_) = run.delivery.batches
        assert batch.input == "sys"
        assert len(batch.origin["event.created"]) == len("2026-11-20T00:00:00.000Z")


async def test_counted_messages_and_lines_are_told_apart():
    async with running() as run:
        await run.send(b"5 <13>a9 <13>b\n\nc\n<13>d\n")
        await until(lambda: len(run.delivery.records) == 3)
        assert run.delivery.records == [b"<13>a", b"<13>b\n\nc", b"<13>d"]


async def test_records_of_many_connections_share_a_batch(monkeypatch):
    monkeypatch.setattr(_gather, "_LINGER", 0.3)
    async with running() as run:
        await asyncio.gather(*(run.send(b"%d\n" % n) for n in range(20)))
        await until(lambda: run.delivery.batches)
        assert sorted(run.delivery.records, key=int) == [b"%d" % n for n in range(20)]
        assert len(run.delivery.batches) == 1


async def test_a_full_batch_does_not_linger(monkeypatch):
    monkeypatch.setattr(_gather, "_LINGER", 60)
    monkeypatch.setattr(_gather, "_BATCH", 1000)
    async with running() as run:
        _, writer = await run.connect()
        writer.write(b"x" * 999 + b"\n" + b"y\n")
        await until(lambda: run.delivery.batches)
        assert run.delivery.records == [b"x" * 999, b"y"]


async def test_batches_grow_while_many_deliveries_are_under_way(monkeypatch):
    monkeypatch.setattr(_gather, "_DELIVERIES", 1)
    async with running() as run:
        run.delivery.gate.clear()
        _, writer = await run.connect()
        for n in range(5):
            writer.write(b"%d\n" % n)
            await asyncio.sleep(0.03)
        assert len(run.delivery.batches) == 1
        run.delivery.gate.set()
        await until(lambda: len(run.delivery.records) == 5)
        assert len(run.delivery.batches) == 2


async def test_nothing_more_is_read_while_the_room_is_full(monkeypatch):
    monkeypatch.setattr(_gather, "_BATCH", 1000)
    async with running(in_flight=2000, idle=0.4) as run:
        run.delivery.gate.clear()
        (_, one), (_, two) = await run.connect(), await run.connect()
        one.write(b"x" * 3000 + b"\n")
        await until(lambda: run.input.server.waiting)
        two.write((b"y" * 99 + b"\n") * 50_000)
        await asyncio.sleep(0.5)
        assert sum(len(batch.block) for batch in run.delivery.batches) < 1_000_000
        run.delivery.gate.set()
        await until(lambda: sum(len(batch.ends) for batch in run.delivery.batches) == 50_001)


async def test_unfinished_messages_that_fill_the_room_are_given_as_they_are():
    async with running(in_flight=2000) as run:
        (_, one), (_, two) = await run.connect(), await run.connect()
        one.write(b"x" * 1500)
        await until(lambda: any(each.held for each in run.input.server.connections))
        two.write(b"y" * 600)
        await until(lambda: run.delivery.records)
        assert run.delivery.records == [b"x" * 1500]
        one.write(b"z\n")
        two.write(b"\n")
        await until(lambda: len(run.delivery.records) == 3)
        assert sorted(run.delivery.records) == [b"x" * 1500, b"y" * 600, b"z"]


async def test_a_message_that_is_too_long_comes_in_pieces():
    async with running(max_message=1024) as run:
        await run.send(b"x" * 1500 + b"\ny\n")
        await until(lambda: len(run.delivery.records) == 3)
        assert run.delivery.records == [b"x" * 1024, b"x" * 476, b"y"]


async def test_a_stream_that_is_not_counted_is_closed(caplog):
    async with running(framing="octet_counting") as run:
        reader, writer = await run.connect()
        writer.write(b"1 aGET / HTTP/1.1\r\n")
        assert await reader.read() == b""
        await until(lambda: run.delivery.records)
        assert run.delivery.records == [b"a"]
        assert ("connection_errors", 1, {"input": "sys", "reason": "protocol"}) in run.counts
        assert "no count of octets" in caplog.text


async def test_stopping_stores_what_was_read():
    async with running() as run:
        run.delivery.gate.clear()
        _, writer = await run.connect()
        writer.write(b"one\ntwo")
        await until(lambda: run.delivery.records)
        run.stop.set()
        await asyncio.sleep(0.03)
        assert not run.task.done()
        run.delivery.gate.set()
        writer.close()
        await run.task
        assert run.delivery.records == [b"one", b"two"]


async def test_what_clients_send_that_do_not_know_of_the_stop_is_stored():
    async with running() as run:
        reader, writer = await run.connect()
        await until(lambda: run.input.server.connections)
        run.stop.set()
        assert await reader.read() == b""
        assert not run.task.done()
        writer.write(b"one\ntwo")
        writer.write_eof()
        await run.task
        assert run.delivery.records == [b"one", b"two"]


async def test_a_client_that_heeds_no_stop_is_closed_after_a_moment(monkeypatch):
    monkeypatch.setattr(_listen, "_GRACE", 0.05)
    async with running() as run:
        _, writer = await run.connect()
        writer.write(b"one\n")
        await until(lambda: run.input.server.connections)
        run.stop.set()
        await run.task
        assert run.delivery.records == [b"one"]


async def test_a_handshake_that_is_under_way_at_the_stop_is_awaited(certified, monkeypatch):
    monkeypatch.setattr(_listen, "_GRACE", 30)
    key, certificate = certified
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False
    async with running(tls={"certificate": certificate, "key": key}) as run:
        _, writer = await run.connect()
        await until(lambda: run.input.server.endpoint.coming)
        run.stop.set()
        await asyncio.sleep(0.03)
        await writer.start_tls(trusting)
        writer.write(b"one\n")
        writer.close()
        await run.task
        assert run.delivery.records == [b"one"]


async def test_a_certificate_that_is_not_there_is_told_with_the_input_that_wants_it():
    run = Running({"tls": {"certificate": "/none.crt"}})
    with pytest.raises(Unusable, match=r"^input sys: TLS: /none\.crt: No such file or directory$"):
        await run.task


async def test_a_silent_client_is_closed_only_where_that_is_asked_for():
    async with running(idle=0.03) as run:
        reader, _ = await run.connect()
        assert await reader.read() == b""
    async with running() as run:
        reader, writer = await run.connect()
        await asyncio.sleep(0.1)
        writer.write(b"a\n")
        await until(lambda: run.delivery.records)


async def test_equal_records_of_a_connection_are_different_and_those_of_another_one_are_the_same_again():
    async with running() as run:
        for _ in range(2):
            await run.send(TIMED + b"\n" + TIMED + b"\n")
        await until(lambda: len(run.delivery.records) == 4)
        assert run.delivery.ids[:2] == run.delivery.ids[2:]
        assert len(set(run.delivery.ids)) == 2


async def test_records_without_a_time_have_ids_of_their_own():
    async with running() as run:
        for _ in range(2):
            await run.send(b"<13>Nov 20 00:00:00 host app: same\n" * 2)
        await until(lambda: len(run.delivery.records) == 4)
        assert len(set(run.delivery.ids)) == 4


async def test_an_error_of_delivery_ends_the_input():
    async with running() as run:
        run.delivery.error = RuntimeError("the disk is gone")
        await run.send(b"a\n")
        with pytest.raises(RuntimeError, match="the disk is gone"):
            await run.task


async def test_working_off_what_is_there_ends_at_once():
    run = Running({}, once=True)
    await run.task
    assert run.input.server.endpoint.ports == []


async def test_pythons_syslog_handler_over_tcp_is_understood():
    async with running() as run:
        await until(lambda: run.input.server.endpoint.ports)
        address = "127.0.0.1", run.input.server.endpoint.ports[0]

        def emit():
            handler = logging.handlers.SysLogHandler(address, socktype=socket.SOCK_STREAM)
            for text in ("first", "second"):
                handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, text, (), None))
            handler.close()

        await asyncio.to_thread(emit)
        await until(lambda: len(run.delivery.records) == 2)
        assert run.delivery.records == [b"<12>first", b"<12>second"]


@pytest.mark.parametrize(
    "scenario",
    [
        test_lines_become_records_and_the_last_one_counts_without_a_newline,
        test_counted_messages_and_lines_are_told_apart,
        test_unfinished_messages_that_fill_the_room_are_given_as_they_are,
        test_a_message_that_is_too_long_comes_in_pieces,
        test_stopping_stores_what_was_read,
        test_what_clients_send_that_do_not_know_of_the_stop_is_stored,
        test_a_silent_client_is_closed_only_where_that_is_asked_for,
        test_equal_records_of_a_connection_are_different_and_those_of_another_one_are_the_same_again,
        test_records_without_a_time_have_ids_of_their_own,
        test_an_error_of_delivery_ends_the_input,
        test_working_off_what_is_there_ends_at_once,
        test_pythons_syslog_handler_over_tcp_is_understood,
    ],
)
def test_on_the_daemons_own_event_loop(scenario):
    """Its transports differ from asyncio's."""
    uvloop.run(scenario())


async def test_lines_of_a_connection_become_records():
    async with running(multiline={"start": "^>", "max_lines": 2}) as run:
        _, one = await run.connect()
        _, two = await run.connect()
        one.write(b"> 1\n a\n b\n> 2\n c")
        two.write(b"> 3\n d\n> 4\n")
        await until(lambda: len(run.delivery.records) == 3)
        assert sorted(run.delivery.records) == [b" b", b"> 1\n a", b"> 3\n d"]
        one.write_eof()
        await until(lambda: b"> 2\n c" in run.delivery.records)
        run.stop.set()
        await until(lambda: b"> 4" in run.delivery.records)
        assert ("records_cut", 1, {"input": "sys"}) in run.counts


async def test_a_record_that_nothing_continues_is_delivered_after_a_while():
    async with running(multiline={"start": "^>", "flush_seconds": 0.05}) as run:
        _, writer = await run.connect()
        writer.write(b"> 1\n a\n")
        await until(lambda: run.delivery.records)
        assert run.delivery.records == [b"> 1\n a"]
        await until(lambda: not run.input.server._held)


async def test_lines_that_fill_the_room_are_delivered_as_they_are():
    async with running(multiline={"start": "^>"}, in_flight=1024) as run:
        _, writer = await run.connect()
        writer.write(b"> 1\n" + b" abcdefg\n" * 200)
        await until(lambda: sum(map(len, run.delivery.records)) > 1024)
        writer.write(b"> 2\n")
        await until(lambda: not run.input.server.waiting)

"""The Beats input: real sockets, a delivery that the test holds in its hands."""

import asyncio
import json
import ssl
import struct
import zlib
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Context, Unusable
from pipeline.inputs import _server, beats
from pipeline.inputs._ids import Occurrences, document_ids
from pipeline.inputs.beats import Beats
from tests.inputs.deliveries import Deliveries, until

TIMED = '{"@timestamp":"2026-11-20T00:00:00.000Z","n":%d}'


class Metrics:
    def __init__(self):
        self.counts, self.gauges = {}, {}

    def count(self, name, n, labels):
        key = name, labels.get("reason")
        self.counts[key] = self.counts.get(key, 0) + n

    def gauge(self, name, value, labels):
        self.gauges[name] = value


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        """The next acknowledgement as (version, sequence), None at the end."""
        try:
            frame = await self.reader.readexactly(6)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        assert frame[1:2] == b"A"
        return int(frame[:1]), struct.unpack(">I", frame[2:])[0]

    async def acknowledged(self):
        """The next acknowledgement that is no keep-alive."""
        while (answer := await self.answer()) is not None and not answer[1]:
            pass
        return answer

    async def close(self):
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def frames(*records, first=1, version=b"2"):
    body = b""
    for n, record in enumerate(records):
        data = record if isinstance(record, bytes) else record.encode()
        body += version + b"J" + struct.pack(">II", first + n, len(data)) + data
    return body


def window(*records, first=1, version=b"2", announced=None):
    body = zlib.compress(frames(*records, first=first, version=version))
    count = len(records) if announced is None else announced
    return version + b"W" + struct.pack(">I", count) + version + b"C" + struct.pack(">I", len(body)) + body


class Running:
    """A running input and those who talk to it."""

    def __init__(self, options, once=False):
        self.delivery, self.metrics, self.stop = Deliveries(), Metrics(), asyncio.Event()
        context = Context("ship", "host", cast("Any", None), self.metrics.gauge, self.metrics.count, once)
        self.input = Beats(Beats.Options(**{"listen": "127.0.0.1:0", **options}), context)
        self.task = asyncio.create_task(self.input.run(self.delivery, self.stop))
        self.clients = []

    async def connect(self, **settings):
        while not self.input.server.endpoint.ports:
            await asyncio.sleep(0)
        client = Client(*await asyncio.open_connection("127.0.0.1", self.input.server.endpoint.ports[0], **settings))
        self.clients.append(client)
        return client


@asynccontextmanager
async def running(**options):
    run = Running(options)
    try:
        yield run
    finally:
        run.delivery.gate.set()
        run.stop.set()
        for client in run.clients:
            await client.close()
        async with asyncio.timeout(60):
            await asyncio.gather(run.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(beats, "_KEEP_ALIVE", 0.01)
    monkeypatch.setattr(_server, "_WATCH", 0.01)


async def test_a_window_is_acknowledged_when_it_is_stored_and_not_before():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window('{"a":1}', '{"a":2}'))
        await run.delivery.came.wait()
        assert await client.answer() == (2, 0)  # still at work
        assert await client.answer() == (2, 0)
        run.delivery.gate.set()
        assert await client.acknowledged() == (2, 2)
        assert run.delivery.records == [b'{"a":1}', b'{"a":2}']
        assert run.delivery.batches[0].input == "ship"
        await client.close()
        await until(lambda: not run.input.server.connections)
        assert run.metrics.gauges["connections"] == 0


async def test_the_last_sequence_number_is_acknowledged_wherever_the_client_began_to_count():
    async with running() as run:
        client = await run.connect()
        client.send(window("1", "2", first=8))
        assert await client.acknowledged() == (2, 9)


async def test_an_empty_window_is_answered_with_0():
    async with running() as run:
        client = await run.connect()
        client.send(window())
        assert await client.answer() == (2, 0)
        client.send(window("1"))
        assert await client.acknowledged() == (2, 1)


async def test_a_window_cut_short_is_stored_and_acknowledged_as_far_as_it_came():
    async with running() as run:
        client = await run.connect()
        client.send(window("1", "2", announced=5) + window("3"))
        assert [await client.acknowledged() for _ in range(2)] == [(2, 2), (2, 1)]
        assert run.delivery.records == [b"1", b"2", b"3"]


async def test_two_windows_are_under_way_at_once_and_acknowledged_in_order():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1") + window("2", "3") + window("4", "5", "6"))
        await until(lambda: len(run.delivery.batches) == 2)
        assert await client.answer() == (2, 0)
        assert len(run.delivery.batches) == 2
        run.delivery.gate.set()
        assert [await client.acknowledged() for _ in range(3)] == [(2, 1), (2, 2), (2, 3)]


async def test_a_later_window_that_is_stored_first_waits_for_the_one_before():
    async with running() as run:
        run.delivery.gates = {b"1": asyncio.Event(), b"2": asyncio.Event()}
        client = await run.connect()
        client.send(window("1") + window("2", first=7))
        run.delivery.gates[b"2"].set()
        assert await client.answer() == (2, 0)
        run.delivery.gates[b"1"].set()
        assert [await client.acknowledged() for _ in range(2)] == [(2, 1), (2, 7)]


async def test_a_long_window_is_acknowledged_in_parts():
    large = [json.dumps({"n": n, "x": "y" * 1000}) for n in range(1200)]
    async with running() as run:
        client = await run.connect()
        client.send(window(*large))
        answers: list[tuple[int, int]] = []
        while not answers or answers[-1][1] < 1200:
            answers.append(await client.acknowledged())
        assert len(answers) == len(run.delivery.batches) == 3
        assert [record.decode() for record in run.delivery.records] == large
        assert answers == sorted(answers)


async def test_a_long_window_with_equal_events_is_acknowledged_as_a_whole():
    """Who was told of the first of two equal events sends the second again, which would then be taken for the first."""
    large = [TIMED % n + " " * 1000 for n in [*range(1200), 0]]
    async with running() as run:
        client = await run.connect()
        client.send(window(*large))
        assert await client.acknowledged() == (2, 1201)
        assert len(run.delivery.batches) == 3


async def test_version_1_hears_of_nothing_but_the_whole_window():
    """logstash-forwarder takes any acknowledgement for that of the whole window."""
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window(*[json.dumps({"n": n, "x": "y" * 1000}) for n in range(1200)], version=b"1"))
        await until(lambda: len(run.delivery.batches) == 3)
        await asyncio.sleep(0.03)
        run.delivery.gate.set()
        assert await client.answer() == (1, 1200)


async def test_stopping_finishes_and_acknowledges_what_is_under_way():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1") + window("2") + window("3"))
        await until(lambda: len(run.delivery.batches) == 2)
        run.stop.set()
        client.send(b"x" * 100_000)  # unread bytes must not cost the acknowledgements
        await asyncio.sleep(0.02)
        assert not run.task.done()
        run.delivery.gate.set()
        assert [await client.acknowledged() for _ in range(3)] == [(2, 1), (2, 1), None]
        await client.close()
        await run.task
        assert run.delivery.records == [b"1", b"2"]


async def test_a_client_that_stays_after_the_end_is_left(monkeypatch):
    monkeypatch.setattr(_server, "_LINGER", 0.02)
    async with running() as run:
        client = await run.connect()
        client.send(window("1"))
        await client.acknowledged()
        run.stop.set()
        await run.task
        assert await client.answer() is None


async def test_a_client_that_closed_its_sending_side_still_gets_its_acknowledgements():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1") + window("2") + window("3"))
        client.writer.write_eof()
        await until(lambda: len(run.delivery.batches) == 2)
        run.delivery.gate.set()
        assert [await client.acknowledged() for _ in range(4)] == [(2, 1), (2, 1), (2, 1), None]


async def test_a_client_that_is_gone_leaves_its_complete_windows_to_be_stored():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1"))
        await run.delivery.came.wait()
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert len(run.input.server.connections) == 1  # it counts as long as something is under way
        run.delivery.gate.set()
        await until(lambda: not run.input.server.connections)


async def test_rubbish_closes_the_connection_after_the_windows_before_it(caplog):
    async with running() as run:
        client, other = await run.connect(), await run.connect()
        client.send(window("1") + b"GET / HTTP/1.1\r\n\r\n")
        assert [await client.acknowledged() for _ in range(2)] == [(2, 1), None]
        assert run.metrics.counts["connection_errors", "protocol"] == 1
        assert "no version and type of Lumberjack" in caplog.text
        other.send(window("2"))
        assert await other.acknowledged() == (2, 1)


async def test_a_silent_client_is_closed():
    async with running(idle=0.05) as run:
        client = await run.connect()
        assert await client.answer() is None
        assert run.metrics.counts["connection_errors", "timeout"] == 1


async def test_a_client_that_waits_for_us_is_not_taken_for_silent():
    async with running(idle=0.05) as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1"))
        await asyncio.sleep(0.2)
        run.delivery.gate.set()
        assert await client.acknowledged() == (2, 1)


async def test_a_window_that_dribbles_in_for_too_long_is_given_up():
    async with running(window_seconds=0.1) as run:
        client = await run.connect()
        client.send(window("1") + b"2W\0\0\0\1" + b"2C\0\0\4\0")
        assert await client.acknowledged() == (2, 1)
        for _ in range(50):
            if run.metrics.counts:
                break
            client.send(b"x")
            await asyncio.sleep(0.01)
        assert run.metrics.counts == {("connection_errors", "timeout"): 1}
        assert await client.answer() is None


async def test_nothing_more_is_taken_from_a_client_that_reads_no_acknowledgements():
    async with running() as run:
        client = await run.connect()
        await until(lambda: run.input.server.connections)
        (connection,) = run.input.server.connections
        connection.pause_writing()  # as the transport does when its buffer is full
        client.send(b"".join(window(str(n)) for n in range(10)))
        await until(lambda: len(run.delivery.batches) == 2)
        await asyncio.sleep(0.02)
        assert len(run.delivery.batches) == 2
        connection.resume_writing()
        assert [await client.acknowledged() for _ in range(10)] == [(2, 1)] * 10


async def test_a_client_that_reads_no_acknowledgements_is_closed_in_the_end():
    async with running(idle=0.05) as run:
        client = await run.connect()
        await until(lambda: run.input.server.connections)
        next(iter(run.input.server.connections)).pause_writing()
        client.send(window("1") + window("2"))
        await until(lambda: not run.input.server.connections)
        assert run.metrics.counts == {("connection_errors", "timeout"): 1}


async def test_a_client_that_floods_with_empty_windows_is_closed_and_holds_up_nobody():
    async with running() as run:
        flood, good = await run.connect(), await run.connect()
        flood.send(window() * 3000)
        await until(lambda: ("connection_errors", "protocol") in run.metrics.counts)
        good.send(window("1"))
        assert await good.acknowledged() == (2, 1)


async def test_more_connections_than_allowed_are_closed_at_once():
    async with running(connections=1) as run:
        first = await run.connect()
        first.send(window("1"))
        assert await first.acknowledged() == (2, 1)
        assert await (await run.connect()).answer() is None
        assert run.metrics.counts["connection_errors", "too_many"] == 1
        first.send(window("2"))
        assert await first.acknowledged() == (2, 1)


async def test_full_room_pauses_reading_until_something_is_stored():
    async with running(in_flight=1000) as run:
        run.delivery.gate.clear()
        one, two = await run.connect(), await run.connect()
        one.send(window("x" * 2000))
        await until(lambda: len(run.delivery.batches) == 1)
        two.send(window("y" * 2000))
        await until(lambda: run.input.server.waiting)
        await asyncio.sleep(0.02)
        assert len(run.delivery.batches) == 1
        assert ("peers_held_back", None) in run.metrics.counts
        run.delivery.gate.set()
        assert await one.acknowledged() == await two.acknowledged() == (2, 1)


async def test_a_room_full_of_incomplete_windows_is_cleared_by_closing_who_holds_most():
    async with running(in_flight=2600, peer_share=1) as run:
        small, large, last = [await run.connect() for _ in range(3)]
        small.send(window("x" * 500, announced=2))
        large.send(window("x" * 2000, announced=2))
        await until(lambda: sum(each.held for each in run.input.server.connections) == 2500)
        last.send(window("y" * 1000, announced=2))
        assert await large.answer() is None
        last.send(frames("z", first=2))
        assert await last.acknowledged() == (2, 2)
        small.send(frames("x", first=2))
        assert await small.acknowledged() == (2, 2)
        assert run.metrics.counts == {("connection_errors", "no_room"): 1}


async def test_an_address_with_incomplete_windows_leaves_room_for_others_and_clears_its_own():
    async with running(in_flight=2600) as run:
        small, large = [await run.connect() for _ in range(2)]
        small.send(window("x" * 1000, announced=2))
        await until(lambda: sum(each.held for each in run.input.server.connections) == 1000)
        large.send(window("x" * 1200, announced=2))
        assert await large.answer() is None
        other = await run.connect(local_addr=("127.0.0.2", 0))
        other.send(window("y" * 1200))
        assert await other.acknowledged() == (2, 1)
        small.send(frames("x", first=2))
        assert await small.acknowledged() == (2, 2)


async def test_an_error_of_delivery_ends_the_input_and_acknowledges_nothing():
    async with running() as run:
        run.delivery.error = RuntimeError("the disk is gone")
        client = await run.connect()
        client.send(window("1"))
        with pytest.raises(RuntimeError, match="the disk is gone"):
            await run.task
        assert await client.acknowledged() is None


async def test_cancelling_leaves_nothing_behind():
    async with running() as run:
        run.delivery.gate.clear()
        client = await run.connect()
        client.send(window("1"))
        await run.delivery.came.wait()
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
        assert await client.acknowledged() is None


async def test_an_address_in_use_is_told():
    async with running() as run:
        await run.connect()
        other = Running({"listen": f"127.0.0.1:{run.input.server.endpoint.ports[0]}"})
        with pytest.raises(Unusable, match=r"can't listen on 127.0.0.1:.*in use"):
            await other.task


async def test_working_off_what_is_there_ends_at_once():
    run = Running({}, once=True)
    await run.task
    assert run.input.server.endpoint.ports == []


async def test_over_tls(certified):
    key, certificate = certified
    client_side = ssl.create_default_context(cafile=certificate)
    client_side.check_hostname = False
    async with running(tls={"certificate": certificate, "key": key}) as run:
        client, plain = await run.connect(ssl=client_side), await run.connect()
        plain.send(window("0"))
        client.send(window("1") + window(*map(str, range(50_000))))
        assert [await client.acknowledged() for _ in range(2)] == [(2, 1), (2, 50_000)]
        run.stop.set()
        assert await client.answer() is None
        assert await plain.answer() is None


def test_over_tls_on_the_daemons_own_event_loop(certified):
    uvloop.run(test_over_tls(certified))


async def test_a_handshake_that_ends_after_the_stop_is_too_late(certified):
    key, certificate = certified
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False
    async with running(tls={"certificate": certificate, "key": key}) as run:
        client = await run.connect()
        await asyncio.sleep(0.02)
        run.stop.set()
        await run.task
        with suppress(ConnectionError, ssl.SSLError):
            await client.writer.start_tls(trusting)
            assert await client.answer() is None
        assert not run.input.server.connections


async def test_hostile_clients_do_not_disturb_a_good_one():
    bomb = zlib.compress(b"\0" * (80 << 20), 9)
    hostile = [
        b"\0" * 100_000,
        b"2W\0\0\0\1" + b"2C" + struct.pack(">I", len(bomb)) + bomb,
        b"2",
        b"2W\xff\xff\xff\xff",
    ]
    async with running() as run:
        good = await run.connect()
        for data in hostile * 2:
            (await run.connect()).send(data)
        for n in range(20):
            good.send(window(str(n)))
            assert await good.acknowledged() == (2, 1)
        await until(lambda: run.metrics.counts.get(("connection_errors", "protocol")) == 6)


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_window_is_acknowledged_when_it_is_stored_and_not_before,
        test_the_last_sequence_number_is_acknowledged_wherever_the_client_began_to_count,
        test_an_empty_window_is_answered_with_0,
        test_a_window_cut_short_is_stored_and_acknowledged_as_far_as_it_came,
        test_two_windows_are_under_way_at_once_and_acknowledged_in_order,
        test_a_later_window_that_is_stored_first_waits_for_the_one_before,
        test_a_long_window_is_acknowledged_in_parts,
        test_a_long_window_with_equal_events_is_acknowledged_as_a_whole,
        test_version_1_hears_of_nothing_but_the_whole_window,
        test_stopping_finishes_and_acknowledges_what_is_under_way,
        test_a_client_that_closed_its_sending_side_still_gets_its_acknowledgements,
        test_a_client_that_is_gone_leaves_its_complete_windows_to_be_stored,
        test_a_silent_client_is_closed,
        test_a_client_that_waits_for_us_is_not_taken_for_silent,
        test_a_window_that_dribbles_in_for_too_long_is_given_up,
        test_nothing_more_is_taken_from_a_client_that_reads_no_acknowledgements,
        test_a_client_that_reads_no_acknowledgements_is_closed_in_the_end,
        test_a_client_that_floods_with_empty_windows_is_closed_and_holds_up_nobody,
        test_more_connections_than_allowed_are_closed_at_once,
        test_full_room_pauses_reading_until_something_is_stored,
        test_a_room_full_of_incomplete_windows_is_cleared_by_closing_who_holds_most,
        test_an_error_of_delivery_ends_the_input_and_acknowledges_nothing,
        test_cancelling_leaves_nothing_behind,
        test_an_address_in_use_is_told,
        test_working_off_what_is_there_ends_at_once,
        test_hostile_clients_do_not_disturb_a_good_one,
    ],
)
def test_on_the_daemons_own_event_loop(scenario):
    """Its transports differ from asyncio's."""
    uvloop.run(scenario())


# --- identity ---

GIVEN = b'{"@timestamp":"2026","@metadata":{"beat":"x","_id":"abc\\u00e9"}}'


def ids(*records, identity="client", occurrences=None):
    return document_ids(list(records), identity, occurrences or Occurrences(keep=100))


def test_the_id_that_the_client_gave_counts_first():
    assert ids(GIVEN) == ["abcé"]
    assert ids(GIVEN, identity="content") != ["abcé"]


def test_the_content_counts_where_a_record_has_a_time():
    timed = (TIMED % 1).encode()
    first = ids(timed, (TIMED % 2).encode())
    assert first == ids(timed, (TIMED % 2).encode())
    assert len(set(first)) == 2
    assert ids(timed)[0] == first[0]


def test_equal_records_are_numbered():
    timed = (TIMED % 1).encode()
    first, second, third = ids(timed, timed, timed)
    assert (second, third) == (f"{first}-1", f"{first}-2")


@pytest.mark.parametrize(
    "record", [b'{"a":1}', b"text", b'{"_id":"not in @metadata"}', b'{"@metadata":{"_id":7}}', b'"_id"']
)
def test_ids_are_random_where_there_is_no_time(record):
    assert len(set(ids(record, record) + ids(record))) == 3


def test_identity_random_is_always_random():
    assert len({*ids(GIVEN, GIVEN, identity="random"), *ids(GIVEN, identity="random")}) == 3


def test_identity_content_needs_no_time():
    assert ids(b"x", identity="content") == ids(b"x", identity="content")


@pytest.mark.parametrize("metadata", ["null", '{"_id":null}', '{"_id":""}', "{}", "[]"])
def test_an_empty_id_is_none(metadata):
    record = b'{"@metadata":%b,"a":"\\"_id\\"","b":{"_id":1},"timestamp":1}' % metadata.encode()
    assert ids(record) == ids(record, identity="content")


@given(st.lists(st.binary()))
def test_any_records_have_an_id_each(records):
    assert len(ids(*records)) == len(records)
    assert len(set(ids(*records, identity="content"))) == len(records)


def test_contents_of_long_ago_are_forgotten_and_recent_ones_are_not():
    occurrences = Occurrences(keep=2)
    assert [name for each in "aabca" for name in occurrences.numbered([each])] == ["a", "a-1", "b", "c", "a-2"]
    assert occurrences.repeated
    assert [name for each in "defgha" for name in occurrences.numbered([each])] == list("defgha")


def test_given_ids_times_and_neither_stand_side_by_side():
    timed = (TIMED % 1).encode()
    first, second, third, fourth = ids(timed, GIVEN, b"neither", timed)
    assert (first, second, fourth) == (ids(timed)[0], "abcé", f"{first}-1")
    assert third != ids(timed, GIVEN, b"neither", timed)[2]

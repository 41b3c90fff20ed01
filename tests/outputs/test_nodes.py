"""Which node a request goes to, when some of them hang, are away, or come back."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self

import elastic_transport
import pytest

from pipeline.outputs import _nodes
from pipeline.outputs._answers import Failed
from pipeline.outputs._connection import Connection
from pipeline.outputs._nodes import reason
from tests.fake_elasticsearch import FakeElasticsearch, Hang


class Silent:
    """A node whose process is stopped: connections are accepted, and nothing is ever answered."""

    def __init__(self) -> None:
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for each in self._writers:
            each.close()


@contextlib.asynccontextmanager
async def connection(*urls: str) -> AsyncIterator[Connection]:
    made = Connection("es", urls, {}, ssl.create_default_context(), timeout=20, most=5)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(_nodes, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(_nodes, "PROBE_SECONDS", 1.0)


@pytest.fixture
async def fake():
    async with FakeElasticsearch() as fake:
        yield fake


async def bulk(made: Connection, n: int = 0) -> Any:
    body = [b'{"create":{"_index":"logs","_id":"%d"}}\n{}\n' % n]
    status, _, _ = await made.bulk(body, {})
    assert status == 200


async def tries(made: Connection, count: int) -> int:
    """Send so many requests; how many failed."""
    failed = 0
    for n in range(count):
        try:
            await bulk(made, n)
        except Failed:
            failed += 1
    return failed


@pytest.mark.parametrize("tls", ["default", "False", "<ssl.SSLContext object at 0x7fbed54211c0>"])
def test_a_reason_does_not_speak_of_tls_where_there_may_be_none(tls):
    error = elastic_transport.ConnectionError(f"Cannot connect to host a:9 ssl:{tls} [Connect call failed ('a', 9)]")
    assert reason(error) == "Cannot connect to host a:9 [Connect call failed ('a', 9)]"


async def test_each_gets_requests_in_turn(fake):
    async with FakeElasticsearch() as other, connection(fake.url, other.url) as made:
        assert await tries(made, 10) == 0
        assert (len(fake.requests), len(other.requests)) == (5, 5)


async def test_a_node_that_hangs_costs_one_try_long_before_the_timeout(fake, caplog):
    async with Silent() as silent, connection(silent.url, fake.url) as made:
        async with asyncio.timeout(10):
            assert await tries(made, 20) == 1
    assert f"node {silent.url} is left out until it answers" in caplog.text


async def test_all_that_hang_at_once_ask_once(fake):
    async with Silent() as silent, connection(silent.url, fake.url) as made:
        results = await asyncio.gather(*(bulk(made, n) for n in range(8)), return_exceptions=True)
        assert sum(isinstance(each, Failed) for each in results) == 4
        assert silent.connections < 4 + 4


async def test_a_node_that_is_slow_is_waited_for(fake, monkeypatch):
    monkeypatch.setattr(_nodes, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(_nodes, "PROBE_SECONDS", 10)
    hang = Hang()
    async with FakeElasticsearch() as other, connection(fake.url, other.url) as made:
        fake.always = other.always = hang
        sent = [asyncio.create_task(bulk(made, n)) for n in range(2)]
        await asyncio.sleep(0.5)
        assert not any(each.done() for each in sent)
        hang.release.set()
        await asyncio.gather(*sent)


async def test_a_single_node_is_waited_for_however_long_it_hangs():
    async with Silent() as silent, connection(silent.url) as made:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await bulk(made)
        assert silent.connections == 1


async def test_a_node_that_is_back_is_asked_before_it_gets_documents(fake, caplog):
    caplog.set_level(logging.INFO)
    async with FakeElasticsearch() as other, connection(fake.url, other.url) as made:
        await other.stop()
        assert await tries(made, 10) == 1
        async with asyncio.timeout(20):
            while f"node {other.url} is left out" not in caplog.text:
                await bulk(made)
                await asyncio.sleep(0.05)
            await other.start()
            while not other.requests:
                await bulk(made)
                await asyncio.sleep(0.05)
    assert f"node {other.url} answers again" in caplog.text


async def test_where_none_answers_each_is_tried_in_turn(fake):
    async with FakeElasticsearch() as other, connection(fake.url, other.url) as made:
        await fake.stop()
        await other.stop()
        assert await tries(made, 4) == 4
        await other.start()
        assert await tries(made, 2) <= 1


async def test_a_node_that_was_given_stays_when_the_cluster_no_longer_names_it(fake):
    async with FakeElasticsearch() as other, connection(fake.url) as made:
        fake.nodes = [fake.url, other.url]
        await made.sniff()
        assert await tries(made, 4) == 0
        assert len(other.requests) == 2
        fake.nodes = other.nodes = [other.url]
        await made.sniff()
        fake.requests.clear()
        assert await tries(made, 4) == 0
        assert len(fake.requests) == 2
        fake.nodes = other.nodes = [fake.url]
        await made.sniff()
        other.requests.clear()
        assert await tries(made, 4) == 0
        assert not other.requests


async def test_a_question_goes_to_the_next_node_when_one_is_away(fake):
    async with connection("http://127.0.0.1:9", "http://127.0.0.1:10", fake.url) as made:
        for _ in range(3):
            assert (await made.about())[0] == 200
    async with connection("http://127.0.0.1:9", "http://127.0.0.1:10") as made:
        with pytest.raises(Failed):
            await made.about()

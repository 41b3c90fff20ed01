"""The Kafka input and a real broker: real producers, and three daemons that share a group."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Coroutine
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.dead import reading
from tests.crash.daemon import LONG, PATIENCE, Daemon, wait_until
from tests.crash.elastic import elastic
from tests.integration.daemon import Receiver
from tests.services import servers
from tests.services.versions import KAFKA

pytestmark = pytest.mark.kafka

COUNT = 500
PARTITIONS = 6
RECORDS, SECONDS = (500_000, 60) if LONG else (20_000, 8)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Do something asynchronous in a test that else waits for processes."""
    with closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(work)


class Topic:
    """A topic of its own for a test, and what a group has committed in it."""

    def __init__(self, broker: str) -> None:
        self.broker, self.name = broker, f"aiologs-test-{uuid.uuid4().hex[:12]}"
        self.group = f"{self.name}-group"

    @asynccontextmanager
    async def _admin(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def create(self) -> None:
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])

    async def delete(self) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([self.name])

    async def committed(self) -> list[int]:
        """The group's offset in each partition, 0 where it has none."""
        async with self._admin() as admin:
            found = await admin.list_consumer_group_offsets(self.group)
        offsets = {partition.partition: each.offset for partition, each in found.items()}
        return [max(0, offsets.get(partition, 0)) for partition in range(PARTITIONS)]

    def input(self, **options: Any) -> dict[str, Any]:
        """The configuration of an input that reads it."""
        return {"type": "kafka", "brokers": [self.broker], "topics": [self.name], "group": self.group, **options}


@pytest.fixture
def topic(kafka_address):
    topic = Topic(kafka_address)
    run(topic.create())
    yield topic
    run(topic.delete())


@pytest.fixture
def daemon(tmp_path, topic):
    daemon = Receiver(tmp_path, {"topic": topic.input()})
    daemon.start()
    yield daemon
    daemon.close()


def until_stored(daemon: Receiver, text: str, count: int = COUNT) -> None:
    wait_until(lambda: len(daemon.found(text)) >= count, f"{text} is stored")
    assert [each["message"] for each in daemon.found(text)] == [f"{text} {n:06}" for n in range(count)]


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_aiokafka_producer(daemon, topic, compression):
    text = f"aiokafka {compression}"

    async def produce() -> None:
        options = {"compression_type": compression, "linger_ms": 20}
        async with AIOKafkaProducer(bootstrap_servers=topic.broker, **options) as producer:
            for n in range(COUNT):
                await producer.send(topic.name, b'{"message":"%s %06d"}' % (text.encode(), n), key=b"%d" % n)

    run(produce())
    until_stored(daemon, text)
    assert daemon.found(text)[0]["kafka.topic"] == topic.name


def test_what_is_no_record_is_set_aside_and_reading_goes_on(daemon, topic):
    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=topic.broker) as producer:
            for value in (b'{"message":"odd 000000"}', None, b"", b"no JSON", b"[]", b'{"message":"odd 000001"}'):
                await producer.send_and_wait(topic.name, value, key=b"k", partition=2)

    run(produce())
    until_stored(daemon, "odd", 2)
    wait_until(lambda: run(topic.committed())[2] == 6, "all are committed")
    with reading(daemon.data) as dead:
        letters = sorted((letter.id, letter.record) for letter in dead.each())
    assert letters == [(f"{topic.name}-2-{n}", record) for n, record in enumerate([b"", b"", b"no JSON", b"[]"], 1)]


def test_kafkas_own_console_producer(daemon, topic):
    if not shutil.which("mvn") or not (java := shutil.which("java")):
        pytest.skip("Kafka's tools need Maven and Java")
    libs = servers._program(f"kafka-tools-{KAFKA}", _install_tools) / "libs"
    command = [java, "-cp", f"{libs}/*", "org.apache.kafka.tools.ConsoleProducer"]
    lines = "".join(f'{{"message":"console {n:06}"}}\n' for n in range(COUNT))
    options = ["--bootstrap-server", topic.broker, "--topic", topic.name, "--compression-codec", "gzip"]
    subprocess.run([*command, *options], input=lines.encode(), check=True, capture_output=True, timeout=60)
    until_stored(daemon, "console")


def _install_tools(folder: Path) -> None:
    (folder / "pom.xml").write_text(servers._POM.replace("<artifactId>kafka_2.13<", "<artifactId>kafka-tools<"))
    servers._run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"], cwd=folder)


# --- a group ---


class Producer(threading.Thread):
    """Sends numbered records evenly over some seconds; number n goes to partition n % 6, where its offset is n // 6."""

    def __init__(self, topic: Topic) -> None:
        super().__init__(daemon=True)
        self._topic, self.sent = topic, 0

    def run(self) -> None:
        run(self._produce())

    async def _produce(self) -> None:
        started = time.monotonic()
        # Idempotent: a record that is sent again within the producer gets no second offset.
        options = {"enable_idempotence": True, "linger_ms": 10}
        async with AIOKafkaProducer(bootstrap_servers=self._topic.broker, **options) as producer:
            while self.sent < RECORDS:
                due = min(RECORDS, 1 + int((time.monotonic() - started) / SECONDS * RECORDS))
                for n in range(self.sent, due):
                    value = json.dumps({"n": n, "message": "x" * 100}).encode()
                    await producer.send(self._topic.name, value, partition=n % PARTITIONS)
                self.sent = due
                await asyncio.sleep(0.02)


class Group:
    """Daemons that share a group and a store."""

    def __init__(self, folder: Path, topic: Topic, stack: ExitStack) -> None:
        self._topic = topic
        self.store = stack.enter_context(elastic())
        self.daemons = []
        for name in "abcd":
            (folder / name).mkdir()
            daemon = Daemon(
                folder / name,
                {"es": {"type": "elasticsearch", "hosts": [self.store.url]}},
                inputs={"topic": topic.input(session_seconds=6, batch_records=500)},
                stages=[{"route": {"default": "group"}}],
            )
            stack.callback(daemon.close)
            self.daemons.append(daemon)

    def committed(self) -> int:
        """How many records the group has committed; fails where one of them is not in the store."""
        # Asked for first: what is committed now must be in the store when that is asked afterwards.
        committed, found = run(self._topic.committed()), self.store.findings(RECORDS)
        ahead = [n for n in found.missing if n // PARTITIONS < committed[n % PARTITIONS]]
        assert not ahead, f"committed, and not in the store: {ahead[:10]}"
        return sum(committed)


@pytest.mark.slow
def test_daemons_of_one_group_come_and_go_and_nothing_is_lost_or_stored_twice(tmp_path, topic, told):
    with ExitStack() as stack:
        group, producer = Group(tmp_path, topic, stack), Producer(topic)
        first, killed, other, added = group.daemons
        for daemon in (first, killed, other):
            daemon.start()
        producer.start()
        wait_until(lambda: group.committed() > RECORDS // 4, "a quarter is committed", 4 * SECONDS + PATIENCE)
        killed.kill()
        wait_until(lambda: group.committed() > RECORDS // 2, "half is committed", 4 * SECONDS + PATIENCE)
        added.start()
        wait_until(lambda: group.committed() == RECORDS, "all is committed", 4 * SECONDS + PATIENCE)
        found = group.store.findings(RECORDS)
        told(
            f"{RECORDS:,} records, one of three daemons killed, one added: {len(found.missing)} lost, "
            f"{len(found.twice)} twice in the store, {found.repeats:,} sent twice"
        )
        assert not found.missing
        assert not found.twice
        assert found.stored == RECORDS
        for daemon in (first, other, added):
            daemon.stop()

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

import aiokafka
import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition, codec
from aiokafka.errors import CommitFailedError, KafkaConnectionError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndTimestamp
from pydantic import ValidationError

from pipeline.contract import Context, Unusable
from pipeline.inputs import kafka
from pipeline.inputs._brokers import ClientTLS
from pipeline.inputs.kafka import Kafka
from tests.inputs.deliveries import Deliveries, until

P0, P1 = TopicPartition("logs", 0), TopicPartition("logs", 1)


@dataclass
class Record:
    offset: int
    value: bytes | None
    timestamp: int = 1_795_132_800_123


class Consumer:
    """A member of a group whose partitions and records the test sets."""

    made: ClassVar[list["Consumer"]] = []

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.records: dict[TopicPartition, list[Record]] = {}
        self.assigned: set[TopicPartition] = set()
        self.commits: list[dict[TopicPartition, int]] = []
        self.known: dict[TopicPartition, int] = {}
        self.seeks: dict[TopicPartition, int | str] = {}
        self.times: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        self.errors: list[Exception] = []
        self.listener = ConsumerRebalanceListener
        self.topics: tuple[Any, Any] = ((), None)
        self.stopped = False
        Consumer.made.append(self)

    def fill(self, partition: TopicPartition, *values: bytes | None, first: int = 0) -> None:
        self.records[partition] = [Record(first + n, value) for n, value in enumerate(values)]
        self.assigned = self.assigned | {partition}

    async def start(self) -> None:
        self._fail(KafkaConnectionError)

    async def stop(self) -> None:
        self.stopped = True

    def subscribe(self, topics: list[str], pattern: str | None, listener: Any) -> None:
        self.topics, self.listener = (topics, pattern), listener

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.assigned)

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[Any, list[Record]]:
        self._fail(TopicAuthorizationFailedError)
        assert set(partitions) <= self.assigned
        for partition in partitions:
            if taken := self.records.get(partition, [])[:max_records]:
                del self.records[partition][:max_records]
                return {partition: taken}
        await asyncio.sleep(timeout_ms / 1000)
        return {partition: [] for partition in partitions}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self._fail(CommitFailedError, ZeroDivisionError)
        self.commits.append(offsets)

    def highwater(self, partition: TopicPartition) -> int | None:
        return {P0: 10}.get(partition)

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.known.get(partition)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        assert set(times.values()) == {1_763_596_800_000}
        return {partition: self.times[partition] for partition in times}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.seeks[partition] = offset

    async def seek_to_end(self, partition: TopicPartition) -> None:
        self.seeks[partition] = "end"

    def _fail(self, *kinds: type[Exception]) -> None:
        if self.errors and isinstance(self.errors[0], kinds):
            raise self.errors.pop(0)


class Running(Deliveries):
    """A running input; while `gate` is closed, batches stay under way."""

    def __init__(self, *, once: bool = False, **options: Any) -> None:
        super().__init__()
        self.stop = asyncio.Event()
        self.gauges: dict[str, float] = {}
        context = Context("topic", "host", cast("Any", None), gauge=self.gauge, once=once)
        defaults = {"brokers": ["a:9092"], **({} if "pattern" in options else {"topics": ["logs"]})}
        self.input = Kafka(Kafka.Options(**{**defaults, **options}), context)
        self.task = asyncio.create_task(self.input.run(self, self.stop))

    def gauge(self, name: str, value: float, labels: Any) -> None:
        self.gauges[f"{name} {labels['topic']} {labels['partition']}"] = value

    async def consumer(self) -> Consumer:
        await until(lambda: Consumer.made and Consumer.made[-1].topics != ((), None))
        return Consumer.made[-1]


@asynccontextmanager
async def running(**options: Any):
    run = Running(**options)
    try:
        yield run
    finally:
        run.gate.set()
        run.stop.set()
        await asyncio.gather(run.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    Consumer.made = []
    monkeypatch.setattr(aiokafka, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(kafka, "_COMMIT_SECONDS", 0.01)
    monkeypatch.setattr(kafka, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(kafka, "_POLL_MS", 5)


async def test_records_are_delivered_with_ids_from_topic_partition_and_offset_and_then_committed():
    async with running() as run:
        consumer = await run.consumer()
        consumer.fill(P0, b'{"a":1}', b'{"b":2}', first=7)
        await until(lambda: consumer.commits)
        [batch] = run.batches
        assert batch.records() == [b'{"a":1}', b'{"b":2}']
        assert batch.document_ids() == ["logs-0-7", "logs-0-8"]
        assert batch.origin == {"kafka.topic": "logs", "kafka.partition": 0}
        assert not batch.refuse
        assert consumer.commits == [{P0: 9}]
        assert run.gauges == {"kafka_lag logs 0": 1}
    assert consumer.stopped


@pytest.mark.parametrize(
    ("timestamp", "origin"), [(1_795_132_800_123, {"event.created": "2026-11-20T00:00:00.123Z"}), (-1, {})]
)
async def test_events_can_get_the_time_of_the_broker_where_it_has_one(timestamp, origin):
    async with running(created=True) as run:
        consumer = await run.consumer()
        consumer.records[P0] = [Record(0, b"one", timestamp)]
        consumer.assigned = {P0}
        await until(lambda: run.batches)
        assert run.batches[0].origin == {"kafka.topic": "logs", "kafka.partition": 0, **origin}


async def test_a_tombstone_is_an_empty_record():
    async with running() as run:
        (await run.consumer()).fill(P0, b"1", None, b"3")
        await until(lambda: run.batches)
        assert run.batches[0].records() == [b"1", b"", b"3"]


async def test_nothing_is_committed_before_it_is_stored_and_no_more_is_read_than_allowed():
    async with running(batch_records=1, read_ahead=2) as run:
        run.gate.clear()
        consumer = await run.consumer()
        consumer.fill(P0, b"1", b"2", b"3")
        await until(lambda: len(run.batches) == 2)
        await asyncio.sleep(0.05)
        assert (len(run.batches), consumer.commits) == (2, [])
        consumer.fill(P1, b"4")  # another partition has room of its own
        await until(lambda: run.batches[-1].records() == [b"4"])
        run.gate.set()
        await until(lambda: {P0: 3} in [{P0: each.get(P0)} for each in consumer.commits])


async def test_stopping_finishes_and_commits_what_is_under_way():
    async with running() as run:
        run.gate.clear()
        consumer = await run.consumer()
        consumer.fill(P0, b"1")
        await until(lambda: run.batches)
        run.stop.set()
        await asyncio.sleep(0.02)
        assert not consumer.commits
        run.gate.set()
        await run.task
        assert consumer.commits == [{P0: 1}]


async def test_partitions_taken_away_are_finished_and_committed_first():
    async with running() as run:
        run.gate.clear()
        consumer = await run.consumer()
        consumer.fill(P0, b"1")
        await until(lambda: run.batches)
        revoked = asyncio.create_task(consumer.listener.on_partitions_revoked([P0, P1]))
        await asyncio.sleep(0.02)
        assert not revoked.done()
        run.gate.set()
        await revoked
        assert consumer.commits == [{P0: 1}]


async def test_what_is_not_stored_in_time_is_left_to_the_next_owner(caplog):
    caplog.set_level("INFO")
    async with running(revoke_seconds=0) as run:
        run.gate.clear()
        consumer = await run.consumer()
        consumer.fill(P0, b"1")
        await until(lambda: run.batches)
        await consumer.listener.on_partitions_revoked([P0])
        consumer.assigned = set()
        run.gate.set()
        await asyncio.sleep(0.03)
        assert not consumer.commits
        assert "1 partitions go on elsewhere" in caplog.text


async def test_an_offset_of_a_partition_that_is_not_ours_any_more_is_not_committed():
    async with running() as run:
        consumer = await run.consumer()
        run.gate.clear()
        consumer.fill(P0, b"1")
        await until(lambda: run.batches)
        consumer.assigned = set()  # lost, without a word
        run.gate.set()
        await asyncio.sleep(0.03)
        assert not consumer.commits


async def test_a_commit_that_fails_is_told_and_tried_again(caplog):
    async with running() as run:
        consumer = await run.consumer()
        consumer.errors.append(CommitFailedError())
        consumer.fill(P0, b"1")
        await until(lambda: consumer.commits)
        assert consumer.commits == [{P0: 1}]
        assert "offsets not committed" in caplog.text


async def test_an_unexpected_error_while_committing_ends_the_input():
    async with running() as run:
        consumer = await run.consumer()
        consumer.errors.append(ZeroDivisionError())
        consumer.fill(P0, b"1")
        with pytest.raises(ZeroDivisionError):
            await run.task
        assert consumer.stopped


async def test_a_delivery_that_fails_ends_the_input_and_commits_nothing():
    async with running() as run:
        consumer = await run.consumer()
        run.error = RuntimeError("broken")
        consumer.fill(P0, b"1")
        with pytest.raises(RuntimeError, match="broken"):
            await run.task
        assert not consumer.commits
        assert consumer.stopped


async def test_brokers_that_are_away_are_waited_for(caplog):
    run = Running()
    await until(lambda: Consumer.made)
    Consumer.made[0].errors.append(KafkaConnectionError())
    consumer = await run.consumer()
    consumer.fill(P0, b"1")
    await until(lambda: consumer.commits)
    run.stop.set()
    await run.task


async def test_stopping_while_brokers_are_away_closes_the_client(monkeypatch, caplog):
    async def away(_):
        raise KafkaConnectionError

    monkeypatch.setattr(Consumer, "start", away)
    async with running() as run:
        await until(lambda: "a:9092 can't be used" in caplog.text)
        run.stop.set()
        await run.task
        assert Consumer.made[0].stopped


async def test_an_error_while_reading_is_told_and_reading_goes_on(caplog):
    async with running() as run:
        consumer = await run.consumer()
        consumer.errors.append(TopicAuthorizationFailedError())
        consumer.fill(P0, b"1")
        await until(lambda: run.batches)
        assert "reading failed: [Error 29]" in caplog.text


async def test_records_of_a_partition_that_went_meanwhile_are_left(monkeypatch):
    async def late(self, *partitions, **_):
        self.assigned = set()
        return {P0: [Record(0, b"1")]}

    monkeypatch.setattr(Consumer, "getmany", late)
    async with running() as run:
        (await run.consumer()).fill(P0)
        await asyncio.sleep(0.02)
        assert not run.batches


@pytest.mark.parametrize(("start", "reset"), [("earliest", "earliest"), ("latest", "latest")])
async def test_a_new_group_starts_where_it_is_told(start, reset):
    async with running(start=start) as run:
        consumer = await run.consumer()
        assert consumer.options["auto_offset_reset"] == reset
        assert consumer.topics == (["logs"], None)
        await consumer.listener.on_partitions_assigned([P0])
        assert not consumer.seeks


async def test_a_new_group_starts_at_a_time():
    p2 = TopicPartition("logs", 2)
    async with running(start=datetime(2025, 11, 20, tzinfo=UTC)) as run:
        consumer = await run.consumer()
        consumer.known, consumer.times = {P0: 5}, {P1: OffsetAndTimestamp(42, 0), p2: None}
        await consumer.listener.on_partitions_assigned([P0, P1, p2])
        assert consumer.seeks == {P1: 42, p2: "end"}
        await consumer.listener.on_partitions_assigned([P0])
        await consumer.listener.on_partitions_assigned([])


async def test_topics_may_be_named_by_a_pattern():
    async with running(pattern="aio[.].*") as run:
        assert (await run.consumer()).topics == ([], "aio[.].*")


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": {}}, "SSL"),
        ({"sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"}}, "SASL_PLAINTEXT"),
        ({"tls": {}, "sasl": {"mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"}}, "SASL_SSL"),
    ],
)
async def test_security_is_passed_to_the_client(options, protocol):
    async with running(**options) as run:
        given = (await run.consumer()).options
        assert given["security_protocol"] == protocol
        assert isinstance(given["ssl_context"], ssl.SSLContext) is ("tls" in options)
        assert given.get("sasl_plain_password") == ("p" if "sasl" in options else None)


async def test_each_consumer_has_an_assignor_of_its_own():
    async with running() as one, running() as other:
        await until(lambda: len(Consumer.made) == 2)
        first, second = (each.options["partition_assignment_strategy"][0] for each in Consumer.made)
        assert first is not second
        assert first.name == second.name == "sticky"
        assert other.input is not one.input


async def test_with_once_nothing_is_read(caplog):
    async with running(once=True) as run:
        await run.task
        assert "nothing is read with --once" in caplog.text
        assert not Consumer.made


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_can_be_read(name):
    assert getattr(codec, f"has_{name}")(), "aiokafka reads it with cramjam, which it does not bring along"


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unusable, match=r"no\.pem"):
        ClientTLS(certificate=tmp_path / "no.pem").context()


@pytest.mark.parametrize("topics", [{}, {"topics": ["a"], "pattern": "b"}, {"pattern": "("}])
def test_topics_and_pattern_exclude_each_other(topics):
    with pytest.raises(ValidationError, match="pattern"):
        Kafka.Options(brokers=["a:9092"], **topics)

"""Reads topics of Kafka, as one member of a consumer group.

    topic: {type: kafka, brokers: ["kafka:9092"], topics: [aio.logs], group: aiologs}

Offsets are committed for what is stored, in order; so after a crash some records are read again, and their ids (topic,
partition, offset) keep them from being stored twice. Any number of daemons may share a group: its partitions are
spread over them, with as few moves as possible (sticky). When partitions are taken away, what is under way of them is
finished and committed first, for `revoke_seconds` at most; what is not is read again by the next owner.

A value that the decoder can't read, also a tombstone (no value), is set aside. All compressions are understood.
"""

import asyncio
import logging
import re
from array import array
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from pipeline.contract import Batch, Context, Deliver
from pipeline.inputs._brokers import ClientTLS, Sasl, consumer
from pipeline.times import written
from pipeline.window import Window

log = logging.getLogger("aiologs.input.kafka")

_POLL_MS = 500
_COMMIT_SECONDS = 1.0
_RETRY_SECONDS = 5.0


class Kafka:
    """A member of a consumer group."""

    class Options(BaseModel, extra="forbid"):
        """The options of the input."""

        brokers: list[str] = Field(min_length=1, description="`host:port` of some brokers; the others are found.")
        topics: list[str] = Field(default=[], description="The topics to read.")
        pattern: str | None = Field(default=None, description="Instead: a regular expression for topics' names.")
        group: str = Field(default="aiologs", min_length=1, description="The consumer group.")
        start: Literal["earliest", "latest"] | AwareDatetime = Field(
            default="earliest",
            description="Where to begin in a partition of which the group has no offset; a time with its zone is "
            "possible as well.",
        )
        tls: ClientTLS | None = Field(default=None, description="Speak TLS; `{}` trusts what the system trusts.")
        sasl: Sasl | None = Field(default=None, description="Log in.")
        created: bool = Field(
            default=False,
            description="Whether each event gets, as `event.created`, the broker's time of the first record of its "
            "batch: for times without a year, with `timestamp: {reference: event.created}`.",
        )
        batch_records: int = Field(default=2000, ge=1, description="The most records of a batch.")
        read_ahead: int = Field(default=4, ge=1, description="Batches of a partition that may be under way.")
        session_seconds: float = Field(
            default=30.0, ge=6, description="After so long without a word from this daemon, others take its partitions."
        )
        revoke_seconds: float = Field(
            default=20.0, ge=0, description="How long what is under way may take when partitions are taken away."
        )

        @model_validator(mode="after")
        def _one_of(self) -> Self:
            if bool(self.topics) == bool(self.pattern):
                raise ValueError("give either topics or a pattern for their names")
            if self.pattern is not None:
                try:
                    re.compile(self.pattern)
                except re.error as error:
                    raise ValueError(f"pattern: {error}") from error
            return self

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self._windows: dict[Any, Window[int]] = {}
        self._delivered: dict[Any, int] = {}
        """Offsets behind what is stored and not yet committed, by partition."""
        self._stored: dict[Any, int] = {}
        """The same, committed or not."""
        self._measured: set[Any] = set()
        self._changed = asyncio.Event()

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Read until told to stop; then finish and commit what is under way and leave the group."""
        if self._context.once:
            log.warning("input %s: a topic has no end: nothing is read with --once", self._context.name)
            return
        await asyncio.to_thread(__import__, "aiokafka")  # a quarter of a second: other inputs go on meanwhile
        self._deliver = deliver
        consumer = self._consumer()
        if not await self._join(consumer, stop):
            await consumer.stop()
            return
        ticking = asyncio.create_task(self._tick(consumer))
        try:
            while not stop.is_set():
                await self._read(consumer, stop)
                if ticking.done():
                    ticking.result()  # without commits we can't go on
            await self._finish(consumer, [*self._windows])
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            for window in self._windows.values():
                window.cancel()
            await consumer.stop()

    def _consumer(self) -> Any:
        return consumer(self._options, self._context.host)

    async def _join(self, consumer: Any, stop: asyncio.Event) -> bool:
        """Connect, for as long as it takes; False: told to stop meanwhile."""
        from aiokafka import ConsumerRebalanceListener  # noqa: PLC0415 - see run
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        outer = self

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
            async def on_partitions_revoked(self, revoked: Any) -> None:
                await outer._revoked(consumer, revoked)

            async def on_partitions_assigned(self, assigned: Any) -> None:
                await outer._assigned(consumer, assigned)

        options = self._options
        while not stop.is_set():
            try:
                await consumer.start()
            except KafkaError as error:
                log.warning(
                    "input %s: %s can't be used: %s; the next try is in %g s",
                    self._context.name,
                    ", ".join(options.brokers),
                    error,
                    _RETRY_SECONDS,
                )
                await _first(stop.wait(), seconds=_RETRY_SECONDS)
            else:
                consumer.subscribe(topics=options.topics, pattern=options.pattern, listener=Listener())
                return True
        return False

    # --- reading ---

    async def _read(self, consumer: Any, stop: asyncio.Event) -> None:
        """Take what is there of the partitions that have room, and start its delivery."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - see run

        self._changed.clear()
        assigned = consumer.assignment()
        free = [each for each in assigned if each not in self._windows or self._windows[each].has_room()]
        if not free:
            # Nothing to do until a batch is stored or partitions are assigned.
            await _first(self._changed.wait(), stop.wait(), seconds=_POLL_MS / 1000)
            return
        try:
            found = await consumer.getmany(
                *free,
                timeout_ms=_POLL_MS if len(free) == len(assigned) else 20,
                max_records=self._options.batch_records,
            )
        except KafkaError as error:
            log.warning("input %s: reading failed: %s; it goes on", self._context.name, error)
            await _first(stop.wait(), seconds=_RETRY_SECONDS)
            return
        for partition, records in found.items():
            if records and partition in consumer.assignment():
                self._window(partition).submit(self._batch(partition, records), records[-1].offset + 1)

    def _window(self, partition: Any) -> Window[int]:
        if partition not in self._windows:

            def delivered(offset: int) -> None:
                self._delivered[partition] = self._stored[partition] = offset

            self._windows[partition] = Window(
                self._deliver, delivered, self._options.read_ahead, lambda _: self._changed.set()
            )
        return self._windows[partition]

    def _batch(self, partition: Any, records: list[Any]) -> Batch:
        ends, at = array("Q"), 0
        for record in records:
            at += len(record.value or b"")
            ends.append(at)
        origin: dict[str, str | int] = {"kafka.topic": partition.topic, "kafka.partition": partition.partition}
        if self._options.created and records[0].timestamp > 0:
            origin["event.created"] = written(datetime.fromtimestamp(records[0].timestamp / 1000, UTC))
        return Batch(
            input=self._context.name,
            block=b"".join([record.value or b"" for record in records]),
            identity=f"{partition.topic}-{partition.partition}",
            ends=ends,
            positions=[record.offset for record in records],
            origin=origin,
        )

    # --- committing ---

    async def _tick(self, consumer: Any) -> None:
        """Commit and measure, about once a second."""
        while True:
            await asyncio.sleep(_COMMIT_SECONDS)
            await self._commit(consumer)
            self._measure(consumer)

    async def _commit(self, consumer: Any) -> None:
        """Commit what is stored of the partitions that are still ours."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - see run

        assigned = consumer.assignment()
        offsets = {partition: offset for partition, offset in self._delivered.items() if partition in assigned}
        if not offsets:
            return
        try:
            await consumer.commit(offsets)
        except KafkaError as error:
            # The next owner reads these records again; their ids keep them from being stored twice.
            log.warning("input %s: offsets not committed: %s", self._context.name, error)
            return
        for partition, offset in offsets.items():
            if self._delivered.get(partition) == offset:
                del self._delivered[partition]

    def _measure(self, consumer: Any) -> None:
        """How many records of our partitions are not stored yet."""
        ours = consumer.assignment() & self._stored.keys()
        for partition in self._measured - ours:
            self._context.forget("kafka_lag", self._labels(partition))
        for partition in ours:
            lag = max(0, (consumer.highwater(partition) or 0) - self._stored[partition])
            self._context.gauge("kafka_lag", lag, self._labels(partition))
        self._measured = ours

    def _labels(self, partition: Any) -> dict[str, str]:
        return {"input": self._context.name, "topic": partition.topic, "partition": str(partition.partition)}

    # --- coming and going of partitions ---

    async def _assigned(self, consumer: Any, partitions: Any) -> None:
        """Begin where the group stands, or where `start` says."""
        names = ", ".join(sorted(f"{each.topic}-{each.partition}" for each in partitions))
        log.info("input %s: reads %s", self._context.name, names or "no partitions")
        if isinstance(self._options.start, str):
            return
        moment = round(self._options.start.timestamp() * 1000)
        new = [each for each in partitions if await consumer.committed(each) is None]
        found = await consumer.offsets_for_times(dict.fromkeys(new, moment)) if new else {}
        for partition, place in found.items():
            if place is None:  # nothing is that young
                await consumer.seek_to_end(partition)
            else:
                consumer.seek(partition, place.offset)

    async def _revoked(self, consumer: Any, partitions: Any) -> None:
        """Finish and commit what is under way of partitions that are taken away, as far as time allows."""
        late = await self._finish(consumer, [each for each in partitions if each in self._windows])
        if late:
            log.info("input %s: %d partitions go on elsewhere with what is under way here", self._context.name, late)

    async def _finish(self, consumer: Any, partitions: list[Any]) -> int:
        """Wait for what is under way of these, commit, and forget them; returns how many were not done in time."""
        windows = [self._windows[each] for each in partitions]
        if windows:
            await _first(asyncio.gather(*(window.drain() for window in windows)), seconds=self._options.revoke_seconds)
        await self._commit(consumer)
        late = 0
        for partition in partitions:
            window = self._windows.pop(partition)
            late += bool(len(window))
            window.cancel()
            self._stored.pop(partition, None)
            self._delivered.pop(partition, None)
        return late


async def _first(*awaitables: Awaitable[Any], seconds: float) -> None:
    """Wait until one is done, so long at most; the others are given up. Raises what a done one raised."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    done, pending = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()

"""Reads a topic of Kafka from a place to a place, beside the consumer group that reads it live.

No group's offsets are read or changed. Ids are those of the input `kafka`: topic, partition, offset.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

from pipeline.config import InputPart
from pipeline.contract import Context, Deliver, Unusable
from pipeline.inputs.kafka import Kafka
from pipeline.replay.sources import Topic
from pipeline.window import Window

log = logging.getLogger("aiologs.replay")

_POLL_MS = 200


class TopicReader(Kafka):
    """A consumer without a group, of every partition of one topic."""

    def __init__(self, part: InputPart, topic: Topic, context: Context) -> None:
        options: Any = part.options
        if part.type != "kafka":
            raise Unusable(
                f"kafka:{topic.name}: input {part.name} is of type {part.type}; say --input with a kafka one"
            )
        super().__init__(options.model_copy(update={"group": None}), context)
        self._topic, self._brokers = topic, ", ".join(options.brokers)

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver every record between the places; raises `Unusable` where the topic can't be read."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - takes a quarter of a second

        self._deliver = deliver
        consumer = self._consumer()
        try:
            await consumer.start()
            ends = await self._begin(consumer)
            while ends and not stop.is_set():
                await self._read_until(consumer, ends)
            for window in self._windows.values():
                await window.drain()
        except KafkaError as error:
            raise Unusable(f"kafka:{self._topic.name}: {self._brokers} can't be used: {error}") from error
        finally:
            for window in self._windows.values():
                window.cancel()
            await consumer.stop()

    async def _begin(self, consumer: Any) -> dict[Any, int]:
        """Seek in every partition that has something to read; returns where each of them ends."""
        from aiokafka import TopicPartition  # noqa: PLC0415 - see run

        topic = self._topic
        if topic.name not in await consumer.topics():
            raise Unusable(f"kafka:{topic.name}: there is no such topic at {self._brokers}")
        consumer.assign([TopicPartition(topic.name, 0)])
        await consumer.position(TopicPartition(topic.name, 0))  # by then it knows the topic
        partitions = [TopicPartition(topic.name, n) for n in sorted(consumer.partitions_for_topic(topic.name))]
        consumer.assign(partitions)
        first, last = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        starts = await _offsets(consumer, partitions, topic.start, last)
        stops = await _offsets(consumer, partitions, topic.end, last)
        known = self._context.positions.load()
        ends = {}
        for each in partitions:
            done = known.get(str(each.partition), {}).get("offset", 0)
            start, end = max(first[each], starts.get(each, 0), done), min(last[each], stops.get(each, last[each]))
            if start < end:
                consumer.seek(each, start)
                ends[each] = end
        consumer.pause(*(each for each in partitions if each not in ends))
        return ends

    async def _read_until(self, consumer: Any, ends: dict[Any, int]) -> None:
        """Take what is there of the partitions that have room; those that are read to their end leave `ends`."""
        self._changed.clear()
        free = [each for each in ends if self._window(each).has_room()]
        if not free:
            await self._changed.wait()
            return
        most = self._options.batch_records
        found = await consumer.getmany(*free, timeout_ms=_POLL_MS, max_records=most)
        for partition, records in found.items():
            within = [record for record in records if record.offset < ends[partition]]
            if within:
                self._window(partition).submit(self._batch(partition, within), within[-1].offset + 1)
        for partition in free:
            # Behind the last record there may be offsets without one: marks of transactions, what compaction took.
            if await consumer.position(partition) >= ends[partition]:
                del ends[partition]
                consumer.pause(partition)

    def _window(self, partition: Any) -> Window[int]:
        if partition not in self._windows:

            def delivered(offset: int) -> None:
                self._context.positions.put(str(partition.partition), {"offset": offset})

            self._windows[partition] = Window(
                self._deliver, delivered, self._options.read_ahead, lambda _: self._changed.set()
            )
        return self._windows[partition]


async def _offsets(
    consumer: Any, partitions: list[Any], place: datetime | int | None, last: dict[Any, int]
) -> dict[Any, int]:
    """The offset of a place in each partition; none where no place is given."""
    if place is None:
        return {}
    if isinstance(place, int):
        return dict.fromkeys(partitions, place)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, round(place.timestamp() * 1000)))
    return {each: last[each] if found.get(each) is None else found[each].offset for each in partitions}

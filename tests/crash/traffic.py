"""Steady traffic on all four kinds of inputs at once: a file that is rotated, HTTP, Beats and Kafka."""

import asyncio
import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.crash.elastic import Elastic
from tests.crash.test_push import TOGETHER, Beat, Sender, Web
from tests.crash.writer import Writer
from tests.integration.daemon import Receiver
from tests.integration.test_kafka import PARTITIONS, Topic, run

SENDERS = 2
"""Clients over HTTP that keep their connection, and such that open a new one each time; as many over Beats."""


class Steady(Sender):
    """Sends at a steady rate, whatever single answers take."""

    seconds = 0.0
    fresh = False
    """Whether it opens a new connection for each lot."""

    def run(self) -> None:
        started, lots = time.monotonic(), self.numbers[::TOGETHER]
        for n, first in enumerate(lots):
            time.sleep(max(0, started + n * self.seconds / len(lots) - time.monotonic()))
            lot = range(first, min(first + TOGETHER, self.numbers.stop))
            while not self._try(lot):
                time.sleep(0.05)
            self.acknowledged += len(lot)
            if self.fresh:
                self.close()
        self.close()


class SteadyWeb(Steady, Web):
    """Over HTTP."""


class SteadyBeat(Steady, Beat):
    """Over Beats."""


class Producer(threading.Thread):
    """Sends records to Kafka; the n-th goes to partition n % 6, where its offset is n // 6."""

    def __init__(self, topic: Topic, numbers: range, seconds: float) -> None:
        super().__init__(daemon=True)
        self._topic, self._numbers, self._seconds, self.sent = topic, numbers, seconds, 0

    def run(self) -> None:
        run(self._produce())

    async def _produce(self) -> None:
        started, count = time.monotonic(), len(self._numbers)
        options: dict[str, Any] = {"enable_idempotence": True, "linger_ms": 10}
        async with AIOKafkaProducer(bootstrap_servers=self._topic.broker, **options) as producer:
            while self.sent < count:
                due = min(count, 1 + int((time.monotonic() - started) / self._seconds * count))
                for n in range(self.sent, due):
                    value = json.dumps({"n": self._numbers[n], "message": "x" * 100}).encode()
                    await producer.send(self._topic.name, value, partition=n % PARTITIONS)
                self.sent = due
                await asyncio.sleep(0.02)


class Traffic:
    """So many records over so many seconds, a quarter of them on each kind of input."""

    def __init__(self, folder: Path, topic: Topic, store: Elastic, records: int, seconds: float) -> None:
        self.records, self.store, self.topic = records, store, topic
        self.file, self.web, self.beat, self.kafka = (range(n * records // 4, (n + 1) * records // 4) for n in range(4))
        self.daemon = Receiver(
            folder,
            {
                "app": {"type": "file", "paths": [str(folder / "logs" / "app.log*")]},
                "web": {"type": "http"},
                "ship": {"type": "beats"},
                "topic": topic.input(session_seconds=6),
            },
            outputs={"es": {"type": "elasticsearch", "hosts": [store.url]}},
            stages=[{"tag": {"add": ["0"]}}, {"route": {"default": "steady"}}],
            workers=2,
        )
        self.senders = [
            *self._senders(SteadyWeb, self.daemon.ports["web"], self.web, seconds),
            *self._senders(SteadyBeat, self.daemon.ports["ship"], self.beat, seconds),
        ]
        lines = len(self.file)
        self._threads = [
            *self.senders,
            Writer(self.daemon.logs / "app.log", lines, seconds, max(1, lines // 4)),
            Producer(topic, self.kafka, seconds),
        ]

    @staticmethod
    def _senders(kind: type[Steady], port: int, numbers: range, seconds: float) -> list[Steady]:
        count = 2 * SENDERS
        cuts = [numbers.start + n * len(numbers) // count for n in range(count + 1)]
        senders = [kind(port, range(*pair)) for pair in itertools.pairwise(cuts)]
        for n, sender in enumerate(senders):
            sender.seconds, sender.fresh = seconds, bool(n % 2)
        return senders

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    @property
    def flows(self) -> bool:
        """Whether somebody still sends."""
        return any(thread.is_alive() for thread in self._threads)

    def errors(self) -> list[Exception]:
        """What went wrong with connections."""
        return [error for sender in self.senders for error in sender.errors]

    def committed(self) -> int:
        """How many records the group has committed; fails where one of them is not in the store."""
        # Asked for first: what is committed now must be in the store when that is asked afterwards.
        committed = run(self.topic.committed())
        end = self.kafka.start + (max(committed) + 1) * PARTITIONS
        missing = self.store.findings(min(end, self.kafka.stop), first=self.kafka.start).missing
        places = [n - self.kafka.start for n in missing]
        ahead = [n for n in places if n // PARTITIONS < committed[n % PARTITIONS]]
        assert not ahead, f"committed, and not in the store: {ahead[:10]}"
        return sum(committed)

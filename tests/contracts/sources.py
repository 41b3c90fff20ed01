"""Who sends to each kind of input, and sees what it acknowledges: what `test_input` needs to play the other side."""

import asyncio
import contextlib
import os
import struct
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import aiokafka
import pytest
from aiokafka import TopicPartition

from pipeline.contract import Context, Input
from pipeline.inputs import kafka
from pipeline.inputs.beats import Beats
from pipeline.inputs.file import File
from pipeline.inputs.http import Http
from pipeline.inputs.kafka import Kafka
from pipeline.inputs.stdin import Stdin
from pipeline.inputs.tcp import Tcp
from pipeline.inputs.udp import Udp

ANY_PORT = "127.0.0.1:0"


class Store:
    """Positions that outlive the input."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.damaged = False

    def load(self) -> dict[str, dict[str, Any]]:
        return dict(self.entries)

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.entries[key] = value

    def remove(self, key: str) -> None:
        self.entries.pop(key, None)


class Source(Protocol):
    """Who sends to an input, and sees what it acknowledges."""

    replays: bool
    """What was not acknowledged comes again after a restart, with the same document ids."""
    outlives: bool
    """A delivery that fails is only answered with an error: clients decide, and the input goes on."""

    late: float
    """Seconds after the stop in which it may still read: its clients can't know of it, and would not send again."""

    def __init__(self, folder: Path) -> None: ...

    def make(self, context: Context) -> Input:
        """The input; again after a restart."""
        ...

    async def send(self, lines: list[bytes]) -> None:
        """Send lines, without waiting for their acknowledgement."""
        ...

    async def acknowledged(self, store: Store) -> int:
        """How many lines the input has acknowledged so far."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class FileSource:
    """A log file that grows."""

    replays, outlives, late = True, False, 0.05

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.log"
        self.ends = [0]

    def make(self, context: Context) -> File:
        return File(File.Options(paths=[str(self.path)], poll=0.02, batch_bytes=256), context)

    async def send(self, lines: list[bytes]) -> None:
        with self.path.open("ab") as file:
            for line in lines:
                file.write(line + b"\n")
                self.ends.append(file.tell())

    async def acknowledged(self, store: Store) -> int:
        offsets = [entry["offset"] for entry in store.entries.values() if "offset" in entry]
        return self.ends.index(offsets[0]) if offsets else 0

    def close(self) -> None:
        pass


class StdinSource:
    """A pipe: it has no acknowledgement, and what was read can't be read again."""

    replays, outlives, late = False, False, 0.05

    def __init__(self, folder: Path) -> None:
        self.reading, self.writing = os.pipe()

    def make(self, context: Context) -> Stdin:
        return Stdin(Stdin.Options(), context, self.reading)

    async def send(self, lines: list[bytes]) -> None:
        os.write(self.writing, b"".join(line + b"\n" for line in lines))

    async def acknowledged(self, store: Store) -> int:
        return 0

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class Client:
    """Sends lot after lot over one connection, each again and again until it is acknowledged."""

    replays, outlives, late = True, False, 0.05
    together = 5

    def __init__(self, folder: Path) -> None:
        self.lots: deque[tuple[int, list[bytes]]] = deque()
        self.sent = self.done = 0
        self.input: Any = None
        self.task: asyncio.Task[None] | None = None
        self.writer: asyncio.StreamWriter | None = None

    @property
    def ports(self) -> list[int]:
        ports: list[int] = self.input.server.endpoint.ports
        return ports

    async def send(self, lines: list[bytes]) -> None:
        for n in range(0, len(lines), self.together):
            lot = lines[n : n + self.together]
            self.lots.append((self.sent, lot))
            self.sent += len(lot)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self.lots:
            number, lot = self.lots[0]
            try:
                acknowledged = await self._try(number, lot)
            except (OSError, EOFError):
                acknowledged = False
            if acknowledged:
                self.lots.popleft()
                self.done += len(lot)
            else:
                self._disconnect()
                await asyncio.sleep(0.01)

    async def _try(self, number: int, lot: list[bytes]) -> bool:
        if self.writer is None:
            while not self.ports:
                await asyncio.sleep(0.001)
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.ports[0])
        self.writer.write(self.packed(number, lot))
        return await self.answered(len(lot))

    def packed(self, number: int, lot: list[bytes]) -> bytes:
        """What goes over the wire for lines of which the first has this number."""
        raise NotImplementedError

    async def answered(self, count: int) -> bool:
        """Whether so many lines are acknowledged now."""
        raise NotImplementedError

    async def acknowledged(self, store: Store) -> int:
        return self.done

    def _disconnect(self) -> None:
        if self.writer:
            self.writer.close()
        self.writer = None

    def close(self) -> None:
        if self.task:
            self.task.cancel()
        self._disconnect()


class HttpSource(Client):
    """Requests that have a name, one after the other."""

    outlives = True

    def make(self, context: Context) -> Input:
        self.input = Http(Http.Options(listen=ANY_PORT), context)
        return cast("Input", self.input)

    @property
    def ports(self) -> list[int]:
        ports: list[int] = self.input.endpoint.ports
        return ports

    def packed(self, number: int, lot: list[bytes]) -> bytes:
        body = b"\n".join(lot)
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: {number}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def answered(self, count: int) -> bool:
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        await self.reader.readexactly(int(head.partition(b"content-length:")[2].split(maxsplit=1)[0]))
        return head.startswith(b"http/1.1 200")


class BeatsSource(Client):
    """Windows of events with a time: their content is their id."""

    def make(self, context: Context) -> Input:
        self.input = Beats(Beats.Options(listen=ANY_PORT, identity="content"), context)
        return cast("Input", self.input)

    def packed(self, number: int, lot: list[bytes]) -> bytes:
        frames = [struct.pack(">2sII", b"2J", n, len(line)) + line for n, line in enumerate(lot, 1)]
        return struct.pack(">2sI", b"2W", len(lot)) + b"".join(frames)

    async def answered(self, count: int) -> bool:
        while struct.unpack(">2sI", await self.reader.readexactly(6))[1] < count:
            pass
        return True


class TcpSource(Client):
    """Lines over one connection: nothing is acknowledged, and nothing comes again."""

    replays, late = False, 0.6

    def make(self, context: Context) -> Input:
        self._disconnect()
        self.input = Tcp(Tcp.Options(listen=ANY_PORT), context)
        return cast("Input", self.input)

    def packed(self, number: int, lot: list[bytes]) -> bytes:
        return b"".join(line + b"\n" for line in lot)

    async def answered(self, count: int) -> bool:
        return True

    async def acknowledged(self, store: Store) -> int:
        return 0


class UdpSource(TcpSource):
    """Datagrams."""

    late = 0.05

    def make(self, context: Context) -> Input:
        self.input = Udp(Udp.Options(listen=ANY_PORT), context)
        return cast("Input", self.input)

    @property
    def ports(self) -> list[int]:
        ports: list[int] = self.input.ports
        return ports

    async def _try(self, number: int, lot: list[bytes]) -> bool:
        while not self.ports:
            await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", self.ports[0])
        )
        for line in lot:
            transport.sendto(line)
        transport.close()
        return True


class KafkaSource:
    """A partition of a topic, and what the group has committed of it; both outlive the input."""

    replays, outlives, late = True, False, 0.05
    partition = TopicPartition("logs", 0)

    def __init__(self, folder: Path) -> None:
        self.log: list[bytes] = []
        self.committed = 0
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(aiokafka, "AIOKafkaConsumer", lambda **_: KafkaConsumer(self))
        self._patch.setattr(kafka, "_POLL_MS", 10)
        self._patch.setattr(kafka, "_COMMIT_SECONDS", 0.01)

    def make(self, context: Context) -> Kafka:
        return Kafka(Kafka.Options(brokers=["broker:9092"], topics=["logs"], batch_records=7), context)

    async def send(self, lines: list[bytes]) -> None:
        self.log += lines

    async def acknowledged(self, store: Store) -> int:
        return self.committed

    def close(self) -> None:
        self._patch.undo()


class KafkaConsumer:
    """The only member of its group: as aiokafka's, it goes on where the group stands, and commits what it is told."""

    def __init__(self, source: KafkaSource) -> None:
        self._source, self._at, self._assigned = source, 0, frozenset[TopicPartition]()

    async def start(self) -> None:
        pass

    def subscribe(self, *, topics: list[str], pattern: str | None, listener: Any) -> None:
        assert (topics, pattern) == (["logs"], None)
        self._joining = asyncio.create_task(self._join(listener))

    async def _join(self, listener: Any) -> None:
        await asyncio.sleep(0.001)
        self._at, self._assigned = self._source.committed, frozenset({self._source.partition})
        await listener.on_partitions_assigned(self._assigned)

    def assignment(self) -> frozenset[TopicPartition]:
        return self._assigned

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        assert set(partitions) <= self._assigned
        if not (values := self._source.log[self._at : self._at + max_records]):
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        records = [SimpleNamespace(offset=self._at + n, value=value, timestamp=0) for n, value in enumerate(values)]
        self._at += len(records)
        return {self._source.partition: records}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        [(partition, offset)] = offsets.items()
        assert partition in self._assigned
        assert self._source.committed <= offset <= self._at
        self._source.committed = offset

    def highwater(self, partition: TopicPartition) -> int:
        return len(self._source.log)

    async def stop(self) -> None:
        self._joining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._joining
        self._assigned = frozenset()


SOURCES: dict[str, type[Source]] = {
    "file": FileSource,
    "stdin": StdinSource,
    "http": HttpSource,
    "beats": BeatsSource,
    "tcp": TcpSource,
    "udp": UdpSource,
    "kafka": KafkaSource,
}
"""By the type of the input."""

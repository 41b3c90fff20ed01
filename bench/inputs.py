"""The inputs that are sent to, measured: the reference job's records over HTTP, Beats and Kafka, with its whole chain.

usage: python -m bench.inputs [--lines N] [--workers N] [--only NAME ...]
Prints the records a second and the CPU seconds per million records of all of aiologs' processes, less their start-up;
clients and sink are not counted. Kafka needs a broker: its address (host:port) in AIOLOGS_TEST_KAFKA, or one that is
started and stopped: `tests/services/with-services .venv/bin/python -m bench.inputs`.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from bench import job, measure

BROKER = os.environ.get("AIOLOGS_TEST_KAFKA", "")
WINDOW = 2048
"""Records that Filebeat sends together."""
PARTITIONS = 4
PATIENCE = 300.0

Send = Callable[[list[bytes], int], Coroutine[Any, Any, None]]
"""Sends records to a port."""


@dataclass
class Result:
    """What one input needed."""

    name: str
    lines: int
    seconds: float
    """From the first byte sent until the sink had the last document."""
    cpu: float

    def row(self) -> tuple[str, str, str]:
        """The columns of the table."""
        return self.name, f"{self.lines / self.seconds:,.0f}", f"{self.cpu * 1e6 / self.lines:.1f}"


# --- clients: each sends all records to a port of the loopback, and returns when they are acknowledged ---


async def http(records: list[bytes], port: int, together: int, connections: int) -> None:
    """Send NDJSON, so many records a request, over connections that stay."""
    lots = (b"\n".join(records[n : n + together]) for n in range(0, len(records), together))
    requests = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%b"
        % (len(lot), lot)
        for lot in lots
    )
    await asyncio.gather(*(_requests(requests, port) for _ in range(connections)))


async def _requests(requests: Iterator[bytes], port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        while True:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(maxsplit=1)[0]))
            if head.startswith(b"http/1.1 200"):
                break
            await asyncio.sleep(0.1)  # 429: no room now
    writer.close()


async def one_line(records: list[bytes], port: int) -> None:
    """A request a record."""
    await http(records, port, 1, 32)


async def many_lines(records: list[bytes], port: int) -> None:
    """A request for a hundred records."""
    await http(records, port, 100, 8)


async def beats(records: list[bytes], port: int) -> None:
    """Send windows as Filebeat does: compressed at level 3, two workers."""
    lots = (records[n : n + WINDOW] for n in range(0, len(records), WINDOW))
    await asyncio.gather(*(_windows(lots, port) for _ in range(2)))


async def _windows(lots: Iterator[list[bytes]], port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for lot in lots:
        frames = [struct.pack(">2sII", b"2J", n, len(record)) + record for n, record in enumerate(lot, 1)]
        body = zlib.compress(b"".join(frames), 3)
        writer.write(struct.pack(">2sI2sI", b"2W", len(lot), b"2C", len(body)) + body)
        while struct.unpack(">2sI", await reader.readexactly(6))[1] < len(lot):
            pass
    writer.close()


async def produce(records: list[bytes], topic: str) -> None:
    """Fill a new topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKER)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=BROKER, linger_ms=20, max_batch_size=1 << 18) as producer:
        for n, record in enumerate(records):
            await producer.send(topic, record, partition=n % PARTITIONS)


async def delete(topic: str) -> None:
    """Remove the topic again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKER)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()


@dataclass
class Case:
    """An input to measure."""

    type: str
    send: Send | None = None
    """None: it reads what is there."""
    share: int = 1
    """One in so many of the records is enough."""


CASES = {
    "http, 1 line a request": Case("http", one_line, 5),
    "http, 100 lines a request": Case("http", many_lines),
    "beats, windows of 2,048": Case("beats", beats),
    "kafka": Case("kafka"),
}


def client(send: Send, path: Path, lines: int, port: int, started: Any) -> None:
    """Run a client, in a process of its own; tells when it began to send."""
    records = path.read_bytes().splitlines()[:lines]
    started.value = time.time()
    asyncio.run(send(records, port))


# --- measuring ---


@contextmanager
def daemon(options: dict[str, Any], sink: job.Sink, path: Path, workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """Aiologs with the reference job's chain behind another input, once it is ready."""
    state = job.DATA / "state"
    shutil.rmtree(state, ignore_errors=True)
    config = yaml.safe_load(job.CONFIG.read_text())
    config["inputs"] = {"in": options}
    file, log = job.DATA / "inputs.yaml", job.DATA / "inputs.log"
    file.write_text(yaml.safe_dump(config))
    env = os.environ | job.environment(state, path, f"http://127.0.0.1:{sink.port}", workers)
    with log.open("wb") as output:
        process = subprocess.Popen([job.AIOLOGS, "run", "-c", file], env=env, stderr=output)
    try:
        _until(process, lambda: (b"listening" if "listen" in options else b'"ready:') in log.read_bytes())
        yield process
    finally:
        process.terminate()
        process.wait()


def _until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"it ended, or was not done within {PATIENCE:g} s; see {job.DATA / 'inputs.log'}")
        time.sleep(0.02)


def _usage(process: subprocess.Popen[bytes]) -> measure.Usage:
    usage = measure.Usage()
    usage.look({process.pid, *measure.descendants(process.pid)})
    return usage


def run(name: str, sink: job.Sink, path: Path, lines: int, workers: int) -> Result:
    """Measure one input."""
    case, topic, port = CASES[name], f"aiologs-bench-{uuid.uuid4().hex[:8]}", job.free_port()
    lines //= case.share
    sink.ask("/_reset_sink")
    options: dict[str, Any] = {"type": case.type, "listen": f"127.0.0.1:{port}"}
    if not case.send:
        asyncio.run(produce(path.read_bytes().splitlines()[:lines], topic))
        options = {"type": case.type, "brokers": [BROKER], "topics": [topic], "group": topic}
    with daemon(options, sink, path, workers) as process:
        spawn = multiprocessing.get_context("spawn")
        started, before = spawn.Value("d", time.time()), _usage(process).cpu
        if case.send:
            spawn.Process(target=client, args=(case.send, path, lines, port, started), daemon=True).start()
        _until(process, lambda: sink.ask("/_stats_sink")["total"] >= lines)
        result = Result(name, lines, sink.ask("/_stats_sink")["last"] - started.value, _usage(process).cpu - before)
    if not case.send:
        asyncio.run(delete(topic))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES))
    args = parser.parse_args()
    job.build_sink()
    path, console = job.prepare(args.lines), Console(width=140)
    size = path.stat().st_size // args.lines
    table = Table("", title=f"the inputs, with records of {size} bytes and the whole chain", title_justify="left")
    for head in ("records/s", "CPU s per million records"):
        table.add_column(head, justify="right")
    with job.sink() as sink:
        for name in args.only:
            if not CASES[name].send and not BROKER:
                table.add_row(name, "-", "not measured: no broker (*)")
                continue
            with console.status(name):
                table.add_row(*run(name, sink, path, args.lines, args.workers).row())
    console.print(table)
    if not BROKER and "kafka" in args.only:
        console.print(
            "(*) set AIOLOGS_TEST_KAFKA to a broker's host:port, or have one started: "
            "tests/services/with-services make bench",
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()

"""The yardstick: the reference job written by hand in one file, with no structure, no ids and no safety.

usage: python -m bench.handwritten SINK_PORT WORKERS INPUT.ndjson DATABASE.mmdb
The parent reads the file in chunks and hands them to the workers; each parses, enriches, redacts, routes and sends.
Nothing is configurable, a bad record ends the program, and a position is never kept.
"""

import asyncio
import gc
import os
import re
import socket
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import maxminddb
import orjson
import uvloop

CHUNK = 262144
SEVERITY = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
SECRET = {"password", "token", "secret", "authorization", "apikey", "creditcard"}
EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
BEARER = re.compile(r"Bearer\s+[A-Za-z0-9._~+/-]+=*")
CARD = re.compile(r"\b(?:\d[ -]?){13,16}\b")
TRIGGER = re.compile(r"@|Bearer|\d[ -]?\d")
KEYS: dict[str, bool] = {}
HEAD = struct.Struct("<QI")

Event = dict[str, Any]


def redact(value: Event) -> None:
    for key, inner in value.items():
        try:
            secret = KEYS[key]
        except KeyError:
            secret = KEYS[key] = key.lower() in SECRET
        if secret:
            value[key] = "[REDACTED]"
        elif type(inner) is dict:
            redact(inner)
        elif type(inner) is list:
            for each in inner:
                if type(each) is dict:
                    redact(each)


def stamp(events: list[Event], fromtimestamp: Any = datetime.fromtimestamp) -> None:
    for event in events:
        value = event["timestamp"]
        if type(value) is str and len(value) == 24 and value[-1] == "Z":
            event["@timestamp"] = value
        elif type(value) is int:
            event["@timestamp"] = fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
        else:
            raise TypeError(value)


def locate(events: list[Event], get: Any, cache: dict[str, Any]) -> None:
    for event in events:
        ip = event["clientIp"]
        try:
            found = cache[ip]
        except KeyError:
            found = get(ip)
            if found:
                at = found["location"]
                place = {
                    "country_iso_code": found["country"]["iso_code"],
                    "city_name": found["city"]["names"]["en"],
                    "location": {"lat": at["latitude"], "lon": at["longitude"]},
                }
                found = orjson.Fragment(orjson.dumps(place))
            cache[ip] = found
        if found:
            event["geo"] = found


def clean(events: list[Event], search: Any = TRIGGER.search) -> None:
    for event in events:
        redact(event)
    for event in events:
        message = event["message"]
        if search(message):
            message = EMAIL.sub("[REDACTED]", message)
            message = BEARER.sub("[REDACTED]", message)
            event["message"] = CARD.sub("[REDACTED]", message)


def encode(events: list[Event], dumps: Any = orjson.dumps) -> bytes:
    out: list[bytes] = []
    for event in events:
        category, level = event["category"], event["level"]
        if category in ("security", "audit"):
            index = b"aio-security-"
        elif level in ("error", "fatal"):
            index = b"aio-errors-"
        else:
            index = b"aio-logs-"
        day = event["@timestamp"][:10].replace("-", ".").encode()
        out.extend((b'{"create":{"_index":"' + index + day + b'"}}', dumps(event)))
    return b"\n".join(out)


def process(chunk: bytes, get: Any, cache: dict[str, Any], loads: Any = orjson.loads) -> tuple[bytes, int]:
    """The bulk body for a chunk of lines, and how many documents it has."""
    events = [loads(line) for line in chunk.split(b"\n")]
    stamp(events)
    number = SEVERITY.get
    for event in events:
        event["severity"] = number(event["level"], 0)
    locate(events, get, cache)
    clean(events)
    for event in events:
        event["tags"] = [event["environment"]]
    return encode(events), len(events)


async def worker(sock: socket.socket, port: int, database: str) -> None:
    from elasticsearch import AsyncElasticsearch  # noqa: PLC0415 - half a second, in the workers only

    client = AsyncElasticsearch(f"http://127.0.0.1:{port}", http_compress=False, connections_per_node=8)
    get = maxminddb.open_database(database).get
    cache: dict[str, Any] = {}
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 22)
    room = asyncio.Semaphore(4)

    async def send(number: int, chunk: bytes) -> None:
        body, count = process(chunk, get, cache)
        operations: Any = [body]  # the client takes lines already joined, though its types do not say so
        async with room:
            reply = await client.bulk(operations=operations, filter_path="errors,items.*.status")
        assert not reply["errors"]
        writer.write(HEAD.pack(number, count))

    tasks: set[asyncio.Task[None]] = set()
    while True:
        try:
            number, size = HEAD.unpack(await reader.readexactly(HEAD.size))
        except asyncio.IncompleteReadError:
            break
        chunk = await reader.readexactly(size)
        while len(tasks) >= 6:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(send(number, chunk))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    writer.close()
    await client.close()


async def parent(socks: list[socket.socket], path: Path) -> int:
    """Hand out the file's lines; returns how many documents were stored."""
    connections = [await asyncio.open_connection(sock=sock) for sock in socks]
    free: asyncio.Queue[int] = asyncio.Queue()
    for n in range(len(connections)):
        for _ in range(6):
            free.put_nowait(n)

    async def acknowledged(n: int) -> int:
        total = 0
        while True:
            try:
                head = await connections[n][0].readexactly(HEAD.size)
            except asyncio.IncompleteReadError:
                return total
            total += HEAD.unpack(head)[1]
            free.put_nowait(n)

    counting = [asyncio.create_task(acknowledged(n)) for n in range(len(connections))]
    await hand_out(path, connections, free)
    for _, writer in connections:
        writer.write_eof()
    return sum(await asyncio.gather(*counting))


async def hand_out(path: Path, connections: list[Any], free: asyncio.Queue[int]) -> None:
    number, rest = 0, b""
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            lines, _, rest = (rest + block).rpartition(b"\n")
            n = await free.get()
            number += 1
            writer = connections[n][1]
            writer.write(HEAD.pack(number, len(lines)))
            writer.write(lines)
            await writer.drain()


def fork(socks: list[socket.socket], port: int, database: str) -> int:
    """Start a worker and add its socket; returns its process id."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        for sock in [*socks, ours]:
            sock.close()
        gc.disable()
        gc.freeze()
        uvloop.run(worker(theirs, port, database))
        os._exit(0)
    theirs.close()
    socks.append(ours)
    return pid


def main() -> None:
    port, count, path, database = sys.argv[1:]
    socks: list[socket.socket] = []
    pids = [fork(socks, int(port), database) for _ in range(int(count))]
    print(uvloop.run(parent(socks, Path(path))), "documents")
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

"""Listeners that reloads change, on the same addresses, while clients connect."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest

from tests.crash.daemon import LONG, wait_until
from tests.integration.daemon import Receiver

RELOADS, EVERY = (60, 0.5) if LONG else (8, 0.3)
PAUSE = 0.005
"""Seconds from one connection of a client to its next."""


def tcp(port: int, record: bytes) -> str:
    """A line over a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(record)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    return "sent"


def web(port: int, record: bytes) -> str:
    """The status of a request over a connection of its own."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(record)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + record)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    return answer.split(b" ", 2)[1].decode()


def udp(port: int, record: bytes) -> str:
    """A datagram."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(record, ("127.0.0.1", port))
    return "sent"


@pytest.fixture
def daemon(tmp_path):
    daemon = Receiver(tmp_path, {"tcp": {"type": "tcp"}, "web": {"type": "http"}, "udp": {"type": "udp"}})
    yield daemon
    daemon.close()


@pytest.mark.slow
def test_listeners_that_are_changed_refuse_no_connection_and_lose_no_datagram(daemon, told):
    daemon.start()
    came, flows, numbers = Counter[tuple[str, str]](), threading.Event(), count()
    flows.set()

    def client(name: str, send: Callable[[int, bytes], str]) -> None:
        while flows.is_set():
            record = b'{"message":"%b %d"}\n' % (name.encode(), next(numbers))
            try:
                came[name, send(daemon.ports[name], record)] += 1
            except OSError as error:
                came[name, repr(error)] += 1
            time.sleep(PAUSE)

    clients = [threading.Thread(target=client, args=(each.__name__, each)) for each in (tcp, web, udp)]
    for each in clients:
        each.start()
    try:
        for n in range(RELOADS):
            for options in daemon.config["inputs"].values():
                options["in_flight"] = (32 << 20) + n
            daemon.reload()
            time.sleep(EVERY)
    finally:
        flows.clear()
        for each in clients:
            each.join()
    counts = ", ".join(f"{n} {name} {how}" for (name, how), n in came.items())
    told(f"{RELOADS} reloads that change all listeners: {counts}")
    assert came.keys() == {("tcp", "sent"), ("udp", "sent"), ("web", "200")}
    wait_until(
        lambda: len(daemon.ids()) >= came["tcp", "sent"] + came["udp", "sent"] + came["web", "200"], "all is stored"
    )
    daemon.stop()

"""Hostile bytes on every listener, beside a good client that sends 1,000 records a second."""

import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.crash import hostile, steady
from tests.crash.daemon import LONG, wait_until
from tests.integration.daemon import Receiver

INPUTS = {
    "web": {"type": "http", "idle_seconds": 3, "body_seconds": 3},
    "ship": {"type": "beats", "idle": 3},
    "lines": {"type": "tcp", "idle": 3},
    "syslog": {"type": "tcp", "decode": "syslog", "idle": 3},
    "devices": {"type": "udp", "decode": "syslog"},
}
BASE, ATTACK = (10.0, 120.0) if LONG else (3.0, 8.0)
"""Seconds of the good client alone, and among hostile ones."""
ATTACKERS = 8
MEMORY = 256 << 20
"""Bytes by which the daemon's peak may grow."""
SLOWEST = 30.0
"""Seconds that the good client may wait at most: this is no measure of speed, but a stalled daemon is found."""


class Good:
    """The good client: a process of its own, so that our work does not slow it down."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            command = [sys.executable, str(Path(__file__).with_name("steady.py")), str(port)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)

    def answers(self) -> list[tuple[float, float, int]]:
        """Each answer: when it was due, the seconds that it took, its status."""
        assert self._process.poll() is None, "the good client ended"
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def close(self) -> None:
        self._process.communicate()


class Attacker(threading.Thread):
    """Sends one hostile thing after the other, each over a connection of its own, until told to stop."""

    def __init__(self, ports: dict[str, int], things: Iterator[tuple[str, bytes]], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._ports, self._things, self._stop_now, self.sent = ports, things, stop, 0

    def run(self) -> None:
        # Attackers come from elsewhere: the CPU time that they need is not to be taken from the daemon.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while not self._stop_now.is_set():
            to, data = next(self._things)
            # What it does with us is its own business; that it lives is asked of the good client.
            with contextlib.suppress(OSError):
                self._attack(to, data)
            self.sent += 1

    def _attack(self, to: str, data: bytes) -> None:
        if to == "devices":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for n in range(0, min(len(data), 200_000), 20_000):
                    sock.sendto(data[n : n + 20_000], ("127.0.0.1", self._ports[to]))
            return
        with socket.create_connection(("127.0.0.1", self._ports[to]), timeout=2) as sock:
            sock.sendall(data)
            if self.sent % 2:
                sock.shutdown(socket.SHUT_WR)
            sock.settimeout(0.2)
            while sock.recv(1 << 16):
                pass


def things() -> Iterator[tuple[str, bytes]]:
    """Where to send what, without end."""
    bombs = [("web", hostile.body(data, encoding=name)) for name, data in hostile.bombs().items()]
    bombs += [("ship", data) for data in hostile.lumberjack_bombs()]
    kinds: list[Iterator[tuple[str, bytes]]] = [
        itertools.cycle([("web", data) for data in hostile.HTTP.values()]),
        itertools.cycle([("web", hostile.body(data, path=path)) for data in hostile.JSON for path in PATHS]),
        itertools.cycle([("ship", data) for data in hostile.BEATS.values()]),
        itertools.cycle([(to, data) for data in hostile.TCP.values() for to in ("lines", "syslog", "devices")]),
        itertools.cycle([("lines", data + b"\n") for data in hostile.JSON]),
        zip(itertools.cycle(["web", "ship", "lines", "syslog", "devices"]), hostile.noise(1)),
        itertools.cycle(bombs),
    ]
    while True:
        for kind in kinds:
            yield next(kind)


PATHS = ["/", "/_bulk", "/v1/logs"]


class Locked:
    """An iterator that several threads share."""

    def __init__(self, inner: Iterator[tuple[str, bytes]]) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def __iter__(self) -> "Locked":
        return self

    def __next__(self) -> tuple[str, bytes]:
        with self._lock:
            return next(self._inner)


@pytest.fixture
def daemon(tmp_path):
    # Only the good client's records are kept: some of the others are valid.
    stages = [{"drop": {"when": "n == None"}}, {"route": {"default": "all"}}]
    # All that is hostile and no record is set aside: a GiB in two minutes, after which all inputs would wait.
    daemon = Receiver(tmp_path, INPUTS, stages=stages, dead_letters={"max_bytes": 8 << 30})
    daemon.start()
    yield daemon
    daemon.close()


def peaks(daemon: Receiver) -> dict[int, int]:
    """The most memory that each of its processes ever had, in bytes."""
    found = {}
    for pid in (daemon.pid, *(child.pid for child in daemon.children())):
        status = Path(f"/proc/{pid}/status").read_text()
        found[pid] = int(status.partition("VmHWM:")[2].split()[0]) << 10
    return found


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def half_open(daemon: Receiver, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Clients that connect and say nothing, or stop in the middle, or never read what they are answered."""
    greeting = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    begun = {
        "web": [b"", b"POST / HT", hostile.HTTP["body cut off"], greeting * 20_000],
        "ship": [b"", b"2W", b"2W\0\0\0\x05", b"2W\0\0\0\0" * 200_000],
        "lines": [b"", b'{"half":'],
        "syslog": [b"", b"100 <13>half"],
    }
    opened = []
    for name, beginnings in begun.items():
        for data in beginnings * 5:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.ports[name])))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(data)
            opened.append(sock)
    return opened


def connections(daemon: Receiver, to: str) -> int:
    """How many connections an input has."""
    found = psutil.Process(daemon.pid).net_connections("tcp")
    return sum(each.laddr.port == daemon.ports[to] and each.status != "LISTEN" for each in found)


@pytest.mark.slow
def test_hostile_bytes_harm_no_good_client(daemon, tmp_path, told):
    with contextlib.ExitStack() as stack:
        good = Good(daemon.ports["web"], tmp_path / "good.log")
        stack.callback(good.close)
        wait_until(lambda: len(good.answers()) > 20, "the good client is answered")
        shared = Locked(things())
        next(shared)
        time.sleep(BASE)
        before, began = peaks(daemon), time.monotonic()

        half_open(daemon, stack)
        stop = threading.Event()
        attackers = [Attacker(daemon.ports, shared, stop) for _ in range(ATTACKERS)]
        for attacker in attackers:
            attacker.start()
        time.sleep(ATTACK)
        stop.set()
        for attacker in attackers:
            attacker.join()
        ended = time.monotonic()
        wait_until(lambda: max(good.answers())[0] > ended, "the good client is answered")
        after, answers = peaks(daemon), good.answers()
        wait_until(
            lambda: connections(daemon, "web") <= steady.CONNECTIONS, "half-open and slow connections are closed"
        )

        alone = [took for due, took, _ in answers if due < began]
        among = [took for due, took, _ in answers if began <= due < ended]
        growth = {pid: after[pid] - before[pid] for pid in before}
        told(
            f"{sum(attacker.sent for attacker in attackers):,} attacks in {ended - began:.0f} s beside 1,000 "
            f"records a second: p99 {p99(alone) * 1000:.0f} → {p99(among) * 1000:.0f} ms, slowest "
            f"{max(among) * 1000:.0f} ms, memory + {max(growth.values()) >> 20} MiB"
        )
        assert after.keys() == before.keys(), "a process was replaced"
        assert {status for _, _, status in answers} == {200}
        assert max(growth.values()) < MEMORY
        assert max(among) < SLOWEST
    daemon.stop()
    assert "Traceback" not in daemon.log

"""kill -9 of the daemon, again and again, while clients over HTTP and Beats send until they are acknowledged."""

import http.client
import json
import struct
import threading
import time
from collections import Counter

import pylogbeat
import pytest

from tests.crash.daemon import LONG, PATIENCE
from tests.integration.daemon import Receiver

EVENTS, SECONDS = (200_000, 60) if LONG else (10_000, 6)
"""Events of each kind of client, and how long they take to send them at least."""
SENDERS = 4
"""Clients of each kind."""
TOGETHER = 50
"""Events of a request or a window."""
LIFETIME = 2.0


class Sender(threading.Thread):
    """Sends its events in turn, each lot again and again until it is acknowledged."""

    def __init__(self, port: int, numbers: range) -> None:
        super().__init__(daemon=True)
        self.port, self.numbers = port, numbers
        self.acknowledged = 0
        self.errors: list[Exception] = []
        """What went wrong with its connections."""
        self.waits = False
        """Whether it has sent something and waits for the acknowledgement."""

    def run(self) -> None:
        pause = SECONDS * TOGETHER / len(self.numbers)
        for first in self.numbers[::TOGETHER]:
            lot = range(first, min(first + TOGETHER, self.numbers.stop))
            while not self._try(lot):
                time.sleep(0.05)
            self.acknowledged += len(lot)
            time.sleep(pause)
        self.close()

    def _try(self, lot: range) -> bool:
        self.waits = True
        try:
            return self.send(lot)
        # What a client meets when the daemon dies under it.
        except (OSError, http.client.HTTPException, pylogbeat.ConnectionException, struct.error) as error:
            self.errors.append(error)
            self.close()
            return False
        finally:
            self.waits = False

    def send(self, lot: range) -> bool:
        """Whether these events are acknowledged."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the connection."""
        raise NotImplementedError


class Web(Sender):
    """Records with a time over HTTP: their content is their id."""

    def __init__(self, port: int, numbers: range) -> None:
        super().__init__(port, numbers)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.answers: Counter[int] = Counter()

    def send(self, lot: range) -> bool:
        records = [{"timestamp": "2026-11-20T00:00:00Z", "n": n, "message": "x" * 200} for n in lot]
        body = "\n".join(map(json.dumps, records))
        self._connection.request("POST", "/", body, {"Content-Type": "application/x-ndjson"})
        with self._connection.getresponse() as response:
            response.read()
            self.answers[response.status] += 1
            assert response.status in {200, 429, 503}
            return response.status == 200

    def close(self) -> None:
        self._connection.close()


class Beat(Sender):
    """Events with ids of the client's over Beats."""

    def __init__(self, port: int, numbers: range) -> None:
        super().__init__(port, numbers)
        self._client: pylogbeat.PyLogBeatClient | None = None

    def send(self, lot: range) -> bool:
        if self._client is None:
            self._client = pylogbeat.PyLogBeatClient("127.0.0.1", self.port, timeout=PATIENCE)
        self._client.send([{"@metadata": {"_id": f"beat-{n}"}, "n": n, "message": "x" * 200} for n in lot])
        return True

    def close(self) -> None:
        if self._client and self._client._socket:
            self._client._socket.close()
        self._client = None


@pytest.mark.slow
def test_what_a_killed_daemon_acknowledged_is_stored_once(tmp_path, store, told):
    outputs = {"es": {"type": "elasticsearch", "hosts": [store.url]}}
    daemon = Receiver(tmp_path, {"web": {"type": "http"}, "ship": {"type": "beats"}}, outputs=outputs)
    senders: list[Sender] = []
    for n, (kind, port) in enumerate([(Web, daemon.ports["web"]), (Beat, daemon.ports["ship"])] * SENDERS):
        size = EVENTS // SENDERS
        senders.append(kind(port, range(n * size, (n + 1) * size)))
        senders[-1].start()
    kills, slowest = 0, 0.0
    try:
        while any(sender.is_alive() for sender in senders):
            slowest = max(slowest, daemon.start())
            _live(daemon, senders)
            daemon.kill()
            kills += 1
            _see_that_all_is_stored(store, senders)
    finally:
        daemon.close()
    found = store.findings(2 * EVENTS)
    told(
        f"{EVENTS:,} events over HTTP and as many over Beats, {kills} kills: {len(found.missing)} lost, "
        f"{len(found.twice)} twice in the store, {found.repeats:,} sent twice. Slowest start: {slowest:.2f} s"
    )
    assert kills >= 3
    assert not found.missing
    assert not found.twice
    assert found.stored == 2 * EVENTS


def _live(daemon: Receiver, senders: list[Sender]) -> None:
    """Some seconds, and then until the daemon is in the middle of something."""
    daemon.live(LIFETIME)
    while any(sender.is_alive() for sender in senders) and sum(sender.waits for sender in senders) < 2:
        time.sleep(0.001)


def _see_that_all_is_stored(store, senders: list[Sender]) -> None:
    """While the daemon is dead: what was acknowledged by now must be in the store."""
    acknowledged = [(sender.numbers.start, sender.acknowledged) for sender in senders]
    missing = set(store.findings(2 * EVENTS).missing)
    lost = [n for start, count in acknowledged for n in range(start, start + count) if n in missing]
    assert not lost, f"acknowledged, and not stored: {lost[:10]}"

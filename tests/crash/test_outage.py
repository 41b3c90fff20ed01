"""A sink that is away, then flaps in every way that one can: nothing is lost, nothing stored twice, memory stays flat.

Real daemon, fake Elasticsearch in an own process.
"""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.crash import flapping
from tests.crash.daemon import AIOLOGS, LONG, PATIENCE, Daemon, wait_until
from tests.crash.elastic import elastic
from tests.crash.flapping import Flapper

BACKLOG = 500_000 if LONG else 15_000
"""Lines that wait at once: long, so many that a rate over them says something on a machine that others use, too."""
REFUSE_SECONDS, FLAP_SECONDS, POISON_SECONDS = (600.0, 1800.0, 60.0) if LONG else (3.0, 8.0, 3.0)
PER_SECOND = 500
MOST_DELAY = 5.0 if LONG else PATIENCE
"""Seconds by which a document that is refused may delay others; only the long run measures, for which the machine is
to be quiet."""
PAD = "x" * 300


class Lines:
    """Writes numbered lines; a few of them are poison, too large, or for a closed index."""

    def __init__(self, path: Path) -> None:
        self.path, self.n, self.poison, self.closed = path, 0, 0, 0

    def write(self, count: int, *, trouble: bool) -> None:
        """Append so many lines at once."""
        with self.path.open("ab") as file:
            file.writelines(self.line(trouble=trouble) for _ in range(count))

    def line(self, *, trouble: bool) -> bytes:
        record = {"n": self.n, "time": "2026-11-20T10:00:00Z", "written": time.time(), "message": PAD}
        if trouble and self.n % 97 == 0:
            record["poison"] = True
            self.poison += 1
        elif trouble and self.n % 1999 == 0:
            record["message"] = "y" * (2 * flapping.TOO_LARGE)
            self.poison += 1
        elif trouble and self.n % 101 == 0:
            record["kind"] = "closed"
            self.closed += 1
        self.n += 1
        return json.dumps(record).encode().replace(b": ", b":") + b"\n"

    def live(self, seconds: float) -> None:
        """Write evenly for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.write(PER_SECOND // 20, trouble=True)
            time.sleep(0.05)


class Memory(threading.Thread):
    """The resident bytes of a daemon and its children, as they went."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.now, self.most, self.ended = psutil.Process(pid), 0, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.now = sum(each.memory_info().rss for each in family)
            except psutil.NoSuchProcess:
                continue
            self.most = max(self.most, self.now)


@pytest.fixture
def sink():
    with elastic(flapping.__file__) as fake:
        yield Flapper(fake.url)


@pytest.fixture
def daemon(tmp_path, sink):
    options = {"timeout": 2.0, "retry_first": 0.1, "retry_most": 1.0, "park_after": 1.0}
    daemon = Daemon(tmp_path, {"es": {"type": "elasticsearch", "hosts": [sink.url], **options}})
    rules = [{"when": 'kind == "closed"', "index": "closed-{day}"}]
    daemon.config["stages"] = [{"timestamp": {"field": "time"}}, {"route": {"rules": rules, "default": "crash-{day}"}}]
    yield daemon
    daemon.close()


def dead(daemon: Daemon, *command: str) -> str:
    done = subprocess.run(
        [AIOLOGS, "dead", *command, "-c", daemon.path], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


def drained(sink: Flapper, lines: Lines) -> float:
    """Wait until all that can be stored is; the documents a second that came meanwhile."""
    started, before = time.monotonic(), sink.stored()
    wait_until(lambda: sink.stored() >= lines.n - lines.poison - lines.closed, "everything that can be is stored")
    return (sink.stored() - before) / (time.monotonic() - started)


@pytest.mark.slow
def test_a_sink_that_is_away_and_flaps_loses_nothing_and_gets_nothing_twice(daemon, sink, told):
    lines = Lines(daemon.logs / "app.log")
    lines.write(BACKLOG, trouble=False)  # as much waits at once as after the outage
    daemon.start()
    memory = Memory(daemon.pid)
    memory.start()
    wait_until(lambda: sink.stored() > 0, "the first document")
    normal = drained(sink, lines)
    lines.write(BACKLOG, trouble=False)
    drained(sink, lines)
    baseline, memory.most = memory.most, 0

    sink.mode("refuse")
    lines.write(BACKLOG, trouble=False)
    daemon.live(REFUSE_SECONDS)
    with pytest.raises(urllib.error.HTTPError) as not_ready:
        urllib.request.urlopen(f"http://{daemon.config['admin']}/readyz", timeout=60)
    assert b"output es" in not_ready.value.read()
    relieved = time.monotonic()
    sink.mode("well")
    wait_until(lambda: sink.stored() > 2 * BACKLOG, "the first document after the outage")
    first = time.monotonic() - relieved
    after = drained(sink, lines)

    sink.mode("flap")
    lines.live(FLAP_SECONDS)
    daemon.balance()
    for _ in range(60):  # where the machine is slow there are few requests
        met, _ = sink.told()
        if all(met.values()):
            break
        lines.live(1.0)
    sink.mode("well")
    drained(sink, lines)

    sink.mode("well")
    lines.live(POISON_SECONDS)
    drained(sink, lines)
    _, slowest = sink.told()

    letters = sum(each["count"] for each in json.loads(dead(daemon, "list", "--json")))
    memory.ended.set()
    sink.mode("well", healed=True)
    dead(daemon, "retry")
    daemon.stop()
    daemon.start()  # what is parked is tried again at once
    wait_until(lambda: sink.stored() >= lines.n, "what was parked or set aside is stored")
    daemon.stop()
    found = sink.findings(lines.n)
    told(
        f"{lines.n} documents, {lines.poison} of them poison, {lines.closed} for a closed index\n"
        f"troubles met: {met}\n"
        f"missing {len(found.missing)}, twice {len(found.twice)}, sent again though stored {found.repeats}\n"
        f"first document {first:.1f} s after the outage; {after:.0f} documents a second then, {normal:.0f} before\n"
        f"memory {baseline >> 20} MiB before, at most {memory.most >> 20} MiB in trouble; "
        f"slowest document beside poison {slowest:.1f} s; {letters} dead letters, all stored by `dead retry`"
    )
    assert (found.missing, found.twice, found.stored) == ([], [], lines.n)
    assert not LONG or after >= 0.8 * normal
    assert letters >= lines.poison
    assert memory.most <= 1.2 * baseline
    assert slowest <= MOST_DELAY
    assert all(met.values())

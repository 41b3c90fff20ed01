"""A long life with all that happens in one: rotation, outages, kills, a clock that jumps, another day.

`make soak` takes an hour; in CI the same happens in half a minute, where memory and times say nothing yet.
"""

import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import psutil
import pytest

from tests.crash.daemon import PATIENCE, wait_until
from tests.crash.elastic import Elastic
from tests.crash.test_push import Web
from tests.crash.writer import Writer, line
from tests.integration.daemon import Receiver

MINUTES = float(os.environ.get("AIOLOGS_SOAK_MINUTES", "0.5"))
RATE = int(os.environ.get("AIOLOGS_SOAK_RATE", "1000"))
"""Records a second, half of them through a file, half over HTTP."""
MINUTE = MINUTES
"""A sixtieth of the whole, in seconds: what is said of minutes below is true of the hour."""
KEPT = 5 if MINUTES >= 30 else 60
"""Rotated files that are kept, each of a minute: enough of them that none goes before it is read."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""Debian's package faketime; without it the clock does not jump."""
WARM_UP = 120.0
"""Seconds of each life that do not count for how memory grows: caches fill."""
SETTLED = 25.0
"""Seconds after an event in which memory is not looked at: what an outage held is given back every ten seconds."""
EVENTS = {
    **dict.fromkeys(range(1, 60, 10), "outage"),
    **dict.fromkeys((14, 29, 44, 59), "kill"),
    35: "clock +1h",
    38: "clock +0",
}
"""What happens in which minute. Every second life has two outages, so that it shows whether each leaves something."""


class DayWriter(Writer):
    """Its second half is of the next day, and so of another index."""

    keep = KEPT

    def __init__(self, path: Path, lines: int) -> None:
        super().__init__(path, lines, MINUTES * 60, max(1, lines // 60))
        self.line = lambda n: line(n) if n < lines // 2 else line(n).replace(b"2026-11-20", b"2026-11-21")


class SteadyWeb(Web):
    """A client over HTTP at half the rate, that resends until acknowledged."""

    def run(self) -> None:
        started, size = time.monotonic(), len(self.numbers)
        while self.acknowledged < size:
            due = int((time.monotonic() - started) / (MINUTES * 60) * size)
            lot = self.numbers[self.acknowledged : min(due, self.acknowledged + 1000)]
            if lot and self._try(lot):
                self.acknowledged += len(lot)
            else:
                time.sleep(0.02)
        self.close()


@dataclass
class Life:
    """What was seen from one start of the daemon to its end."""

    fresh: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and bytes of memory of all its processes, in calm moments before its first outage."""
    tried: list[tuple[float, int]] = field(default_factory=list)
    """The same after it: from here on nothing is new, and nothing may grow."""
    outages: int = 0
    most: int = 0
    """The most bytes of memory at any moment."""
    fds: list[int] = field(default_factory=list)


@dataclass
class Soak:
    """The daemon, what it is sent, and what happens to it."""

    daemon: Receiver
    store: Elastic
    clock: Path
    writer: DayWriter
    web: SteadyWeb
    lives: list[Life] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    _calm: float = 0.0
    """From when on nothing of the last event is under way."""
    recoveries: dict[str, float] = field(default_factory=dict)
    """The longest time from the end of each kind of event until lag was below two seconds."""

    def run(self) -> None:
        """Send, and let happen what has to; at the end everything is stored."""
        env = {"LD_PRELOAD": str(FAKETIME)} if FAKETIME.exists() else {}
        env |= {"FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}
        self.clock.write_text("+0")
        self._start(**env)
        began = time.monotonic()
        self.writer.start()
        self.web.start()
        for minute, event in sorted(EVENTS.items()):
            self._watch(began + minute * MINUTE)
            self._calm = math.inf
            self._happen(event)
            self._recover(event)
            self._calm = time.monotonic() + SETTLED
        while self.writer.is_alive() or self.web.is_alive():
            self._watch(time.monotonic() + MINUTE / 6)
        wait_until(lambda: self.store.stored() == self.sent, "all is stored", 2 * PATIENCE)
        self.daemon.stop()

    @property
    def sent(self) -> int:
        """How many records there are by now."""
        return self.writer.written + self.web.acknowledged

    def _start(self, **env: str) -> None:
        self.daemon.start(**env)
        self.lives.append(Life())
        self._began = time.monotonic()

    def _happen(self, event: str) -> None:
        match event.split():
            case ["outage"]:
                self.lives[-1].outages += 1
                self.store.block(on=True)
                self._watch(time.monotonic() + MINUTE / 2)
                self.store.block(on=False)
            case ["kill"]:
                self.daemon.kill()
                self._start()
            case ["clock", step]:
                self.clock.write_text(step)

    def _recover(self, event: str) -> None:
        """Wait until not more is unstored than comes in two seconds."""
        began = time.monotonic()
        wait_until(lambda: self.sent - self.store.stored() < 2 * RATE, f"lag is back after {event}", 2 * PATIENCE)
        took = time.monotonic() - began
        self.recoveries[event] = max(took, self.recoveries.get(event, 0))

    def _watch(self, until: float) -> None:
        """Look at the daemon now and then."""
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, max(MINUTE / 6, 0.1)))
            self.daemon.balance()
            process, life = psutil.Process(self.daemon.pid), self.lives[-1]
            memory = sum(each.memory_info().rss for each in [process, *self.daemon.workers()])
            life.most = max(life.most, memory)
            now = time.monotonic()
            if now > max(self._calm, self._began + WARM_UP):
                (life.tried if life.outages else life.fresh).append((now - self._began, memory))
            life.fds.append(process.num_fds())
            self.entries.append(_entries(self.daemon.data / "state.db"))

    def slope(self) -> float:
        """How memory grows in lives that had an outage, in MiB an hour: least squares, each with its own beginning."""
        pairs = [pair for life in self.lives for pair in _centred(life.tried)]
        spread = sum(x * x for x, _ in pairs)
        return sum(x * y for x, y in pairs) / spread * 3600 / 2**20 if spread else 0.0

    def step(self) -> float:
        """How much more memory a life has after its first outage than before, in MiB."""
        steps = [_mean(life.tried) - _mean(life.fresh) for life in self.lives if life.fresh and life.tried]
        return max(steps, default=0.0) / 2**20


def _centred(samples: list[tuple[float, int]]) -> Iterator[tuple[float, float]]:
    if samples:
        x, y = fmean(seconds for seconds, _ in samples), _mean(samples)
        yield from ((seconds - x, memory - y) for seconds, memory in samples)


def _mean(samples: list[tuple[float, int]]) -> float:
    return fmean(memory for _, memory in samples)


def _entries(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables)


@pytest.fixture
def soak(tmp_path, store):
    half = int(RATE * MINUTES * 60) // 2
    logs = tmp_path / "logs"
    daemon = Receiver(
        tmp_path,
        {
            # Forgotten after some minutes, so that an hour shows whether anything is.
            "app": {"type": "file", "paths": [str(logs / "app.log*")], "forget_days": 3 * MINUTE / 86_400},
            "web": {"type": "http"},
        },
        outputs={"es": {"type": "elasticsearch", "hosts": [store.url], "retry_most": 2}},
        stages=[{"timestamp": {"field": ["time", "timestamp"]}}, {"route": {"default": "soak-{day}"}}],
    )
    web = SteadyWeb(daemon.ports["web"], range(half, 2 * half))
    yield Soak(daemon, store, tmp_path / "clock", DayWriter(daemon.logs / "app.log", half), web)
    daemon.close()


@pytest.mark.slow
def test_nothing_is_lost_stored_twice_or_grows_in_a_long_life(soak, told):
    soak.run()
    records = soak.sent
    found, slope = soak.store.findings(records), soak.slope()
    most = max(life.most for life in soak.lives) / 2**20
    fds = [max(life.fds) for life in soak.lives if life.fds]
    told(
        f"{records:,} records in {MINUTES:g} minutes: {len(found.missing)} lost, {len(found.twice)} twice in the "
        f"store, {found.repeats:,} sent twice. All processes: at most {most:.0f} MiB, {soak.step():+.2f} MiB after "
        f"the first outage of a life, from then on {slope:+.2f} MiB an hour; "
        f"file descriptors at most {fds}, entries of the state at most {max(soak.entries)}, last "
        f"{soak.entries[-1]}. Lag was below 2 s again after "
        + ", ".join(f"{seconds:.1f} s ({event})" for event, seconds in soak.recoveries.items())
        + ("" if FAKETIME.exists() else "; the clock did not jump: faketime is not installed")
    )
    assert not found.missing
    assert not found.twice
    assert found.stored == records
    # Files that are gone are forgotten, and none stays open.
    assert all(b <= a + KEPT for a, b in pairwise(fds))
    if MINUTES >= 30:
        assert max(soak.entries) < 8 * KEPT
        assert max(soak.recoveries.values()) < 60
        assert slope < 1
        assert soak.step() < 2 * 8  # twice what may be in flight

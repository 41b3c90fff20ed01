"""A replay that is killed, interrupted, and run beside what the daemon has shipped already.

Into an embedded store; killed, also into a real Elasticsearch.
"""

import gzip
import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.crash.daemon import AIOLOGS, LONG, PATIENCE, Daemon, wait_until
from tests.integration.cluster import Cluster

DAYS = 14
A_DAY = 28_600 if LONG else 500
KILLS = 10
RATE = 20_000 if LONG else 1_000
"""Records a second: few enough that a busy machine can kill it before it ends."""


class Fortnight:
    """Two weeks of a log, rotated and compressed each day, and a daemon that writes to an embedded store."""

    a_day = A_DAY

    def __init__(self, folder: Path, **config: Any) -> None:
        self.store = folder / "store.db"
        store = {"type": "local", "path": str(self.store)}
        self.daemon = Daemon(folder, **{"outputs": {"store": store}, **config})
        for day in range(DAYS):
            (self.daemon.logs / f"app.log.{DAYS - day}.gz").write_bytes(gzip.compress(self.text(day), 1))

    def text(self, day: int) -> bytes:
        """The log of a day."""
        stamps = (f"2026-11-{day + 1:02d}T{n * 24 // self.a_day:02d}:00:00.000Z" for n in range(self.a_day))
        return b"".join(
            b'{"time":"%b","n":%d,"level":"info","message":"request %d done"}\n'
            % (stamp.encode(), day * self.a_day + n, n)
            for n, stamp in enumerate(stamps)
        )

    def command(self, *options: object) -> list[str]:
        """A replay of all of it."""
        words = ["replay", "-c", self.daemon.path, self.daemon.logs, "--json", *options]
        return [str(AIOLOGS), *map(str, words)]

    def replay(self, *options: object, code: int = 0) -> dict[str, Any]:
        """Replay to the end; returns the counts."""
        command = self.command(*options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE, check=False)
        assert done.returncode == code, done.stderr
        counts: dict[str, Any] = json.loads(done.stdout)["counts"]
        return counts

    def kill_when(self, stored: int) -> None:
        """Begin a replay, and kill it when more documents than this are stored."""
        process = subprocess.Popen(self.command("--rate", RATE), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: self.stored() > stored or process.poll() is not None, "it stores")
            assert process.poll() is None, f"it ended before it was killed, with {self.stored()} lines"
        finally:
            process.kill()
            process.communicate()

    def numbers(self) -> list[int]:
        """The numbers of all stored lines."""
        query = "SELECT json_extract(document, '$.n') FROM documents ORDER BY 1"
        return [n for (n,) in self._query(query)]

    def stored(self) -> int:
        """How many documents there are."""
        return self._query("SELECT count(*) FROM documents")[0][0] if self.store.exists() else 0

    def forget(self, day: int, lines: int) -> None:
        """Have the store lack some lines of a day."""
        with closing(sqlite3.connect(self.store)) as db, db:
            db.execute(
                "DELETE FROM documents WHERE json_extract(document, '$.n') BETWEEN ? AND ?",
                (day * A_DAY, day * A_DAY + lines - 1),
            )

    def _query(self, statement: str) -> list[Any]:
        try:
            with closing(sqlite3.connect(f"{self.store.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
                return db.execute(statement).fetchall()
        except sqlite3.OperationalError:  # it is being made
            return [(0,)]


class Real(Fortnight):
    """The same with a real Elasticsearch in the place of the embedded store; more lines, since its count is late."""

    a_day = A_DAY if LONG else 3 * A_DAY

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._cluster, self._indices = cluster, f"{cluster.prefix}20*"
        output = {"type": "elasticsearch", "hosts": [cluster.url], "setup": "off"}
        route = {"route": {"default": f"{cluster.prefix}{{day}}"}}
        stages = [{"timestamp": {"field": "time"}}, route]
        super().__init__(folder, outputs={"store": output}, stages=stages)

    def numbers(self) -> list[int]:
        return self._cluster.numbers(self._indices)

    def stored(self) -> int:
        return self._cluster.count(self._indices)


@pytest.fixture
def fortnight(tmp_path):
    fortnight = Fortnight(tmp_path)
    yield fortnight
    fortnight.daemon.close()


@pytest.fixture
def real(tmp_path, cluster):
    fortnight = Real(tmp_path, cluster)
    yield fortnight
    fortnight.daemon.close()


@pytest.mark.slow
def test_a_replay_of_what_the_daemon_has_shipped_adds_just_what_is_missing(fortnight, told):
    fortnight.daemon.once()
    lines, missing = DAYS * A_DAY, A_DAY // 28
    started = time.monotonic()
    first = fortnight.replay()["outputs"]["store"]
    seconds = time.monotonic() - started
    assert (first["stored"], first["already"]) == (0, lines)
    for day in range(DAYS):
        fortnight.forget(day, missing)
    second = fortnight.replay("--again")["outputs"]["store"]
    told(
        f"{lines:,} lines of {DAYS} days replayed in {seconds:.1f} s: {first['already']:,} already there, "
        f"{first['stored']} new; with {missing:,} missing a day: {second['stored']:,} new"
    )
    assert (second["stored"], second["already"]) == (DAYS * missing, lines - DAYS * missing)
    assert fortnight.numbers() == list(range(lines))


@pytest.mark.slow
def test_a_replay_killed_ten_times_stores_every_line_once(fortnight, told):
    killed(fortnight, told)


@pytest.mark.slow
@pytest.mark.elasticsearch
def test_a_replay_into_elasticsearch_killed_ten_times_stores_every_line_once(real, told):
    killed(real, told)


def killed(fortnight: Fortnight, told: Any) -> None:
    """Kill a replay ten times, and let it end."""
    fortnight.daemon.path.write_text(json.dumps(fortnight.daemon.config))
    lines = DAYS * fortnight.a_day
    step = lines // (KILLS + 2)
    for _ in range(KILLS):
        fortnight.kill_when(fortnight.stored() + step // 2)
    last = fortnight.replay("--rate", 10 * RATE)
    fates = last["outputs"]["store"]
    told(f"{lines:,} lines, {KILLS} kills: {fates['stored']:,} stored by the last run, {fates['already']:,} sent again")
    assert fates["stored"] + fates["already"] == last["records"]
    assert fortnight.numbers() == list(range(lines))


@pytest.mark.slow
def test_an_interrupted_replay_says_so_and_goes_on_where_it_was(fortnight):
    fortnight.daemon.path.write_text(json.dumps(fortnight.daemon.config))
    process = subprocess.Popen(fortnight.command("--rate", RATE), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: fortnight.stored() > 0, "it stores")
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    summary = json.loads(said)
    assert not summary["finished"]
    stored = fortnight.stored()
    assert summary["counts"]["outputs"]["store"]["stored"] == stored
    fates = fortnight.replay("--rate", 10 * RATE)["outputs"]["store"]
    assert fates["stored"] == DAYS * A_DAY - stored
    assert fortnight.numbers() == list(range(DAYS * A_DAY))

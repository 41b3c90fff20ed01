"""Workers that are killed, that hang, and records that kill them."""

import json
import signal
import subprocess

import pytest

from tests.crash.daemon import AIOLOGS, Daemon, wait_until
from tests.crash.writer import write

LINES = 20_000

KILLER = '''
import os
from pydantic import BaseModel

class Killer:
    """Ends its process at one record."""

    class Options(BaseModel, extra="forbid"):
        n: int

    def __init__(self, options):
        self.n = options.n

    def __call__(self, events):
        if any(event["n"] == self.n for event in events):
            os._exit(9)
        return events
'''


@pytest.fixture
def plugins(tmp_path):
    """A folder for PYTHONPATH, with the stage `killer` as an installed distribution would bring it."""
    folder = tmp_path / "plugins"
    information = folder / "killer-1.dist-info"
    information.mkdir(parents=True)
    (folder / "killer.py").write_text(KILLER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: killer\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[aiologs.stages]\nkiller = killer:Killer\n")
    return folder


def test_a_killed_worker_is_replaced_and_nobody_notices_but_the_log_and_a_metric(daemon, store):
    write(daemon.logs / "app.log", range(LINES))
    daemon.start()
    for n in range(3):
        (worker,) = daemon.workers()
        worker.kill()
        write(daemon.logs / "app.log", range(LINES * (n + 1), LINES * (n + 2)))
        wait_until(lambda total=LINES * (n + 2): store.findings(0).stored == total, "all documents")
    found = store.findings(LINES * 4)
    assert not found.missing
    assert not found.twice
    assert 'aiologs_worker_restarts_total{reason="died"} 3.0' in daemon.metrics()
    assert daemon.log.count("has died: it is replaced") == 3
    daemon.stop()


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_replaced(daemon, store):
    write(daemon.logs / "app.log", range(LINES))
    daemon.start()
    wait_until(lambda: store.findings(0).stored == LINES, "all documents")
    (worker,) = daemon.workers()
    worker.send_signal(signal.SIGSTOP)
    write(daemon.logs / "app.log", range(LINES, LINES * 2))
    wait_until(lambda: store.findings(0).stored == LINES * 2, "all documents")
    assert not store.findings(LINES * 2).missing
    assert 'aiologs_worker_restarts_total{reason="hung"} 1.0' in daemon.metrics()
    assert "it is killed and replaced" in daemon.log
    daemon.stop()


def test_a_killed_nursery_is_replaced(daemon, store):
    daemon.start()
    (worker,) = daemon.workers()
    worker.parent().kill()
    worker.kill()
    write(daemon.logs / "app.log", range(LINES))
    wait_until(lambda: store.findings(0).stored == LINES, "all documents")
    assert 'aiologs_worker_restarts_total{reason="nursery"} 1.0' in daemon.metrics()
    daemon.stop()


def test_a_record_that_kills_its_worker_is_found_and_set_aside(daemon: Daemon, store, plugins):
    killer = 12_345
    daemon.config["stages"].insert(0, {"killer": {"n": killer}})
    write(daemon.logs / "app.log", range(LINES))
    daemon.once(PYTHONPATH=str(plugins))
    assert store.findings(LINES).missing == [killer]
    listed = subprocess.run(
        [AIOLOGS, "dead", "list", "--json", "--data-dir", daemon.data], capture_output=True, text=True, check=True
    )
    (letter,) = json.loads(listed.stdout)
    assert letter["count"] == 1
    assert letter["stage"] == "worker"
    assert "ends its worker" in daemon.log

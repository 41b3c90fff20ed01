"""Ends that come too early for what is under way: the deadline of a drain, and a second signal."""

import os
import signal
import time

import pytest

from tests.crash.daemon import LONG, PATIENCE, wait_until
from tests.crash.traffic import Traffic
from tests.integration.test_kafka import topic  # noqa: F401 - a fixture

pytestmark = pytest.mark.kafka

RATE, SECONDS = (4_000, 30) if LONG else (500, 6)


@pytest.fixture
def traffic(tmp_path, topic, store):  # noqa: F811 - pytest's way
    traffic = Traffic(tmp_path, topic, store, RATE * SECONDS, SECONDS)
    traffic.daemon.config["drain_seconds"] = 1
    yield traffic
    store.block(on=False)
    traffic.daemon.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["the deadline", "a second signal"])
def test_what_was_under_way_at_an_early_end_is_stored_after_the_next_start_once(traffic, store, end, told):
    daemon = traffic.daemon
    daemon.start()
    traffic.start()
    wait_until(lambda: store.findings(0).stored > 100, "it flows")
    store.block(on=True)
    wait_until(lambda: "takes nothing" in daemon.log, "something is under way")
    time.sleep(1)
    started = time.monotonic()
    os.kill(daemon.pid, signal.SIGTERM)
    if end == "a second signal":
        wait_until(lambda: "SIGTERM: stops reading" in daemon.log, "the first signal is seen")
        os.kill(daemon.pid, signal.SIGTERM)
    daemon.ended(1)
    took = time.monotonic() - started
    traffic.committed()
    store.block(on=False)
    daemon.start()
    wait_until(lambda: not traffic.flows, "everything is sent", SECONDS + 2 * PATIENCE)
    wait_until(lambda: store.findings(0).stored == traffic.records, "all is stored", 2 * PATIENCE)
    found = store.findings(traffic.records)
    told(
        f"ended by {end} after {took:.1f} s with the output blocked: {len(found.missing)} lost, "
        f"{len(found.twice)} twice in the store"
    )
    assert not found.missing
    assert not found.twice
    if end == "the deadline":
        assert "not drained within 1 s" in daemon.log
        assert "unacknowledged" in daemon.log
    daemon.stop()
    assert "Traceback" not in daemon.log

"""Reloads and restarts under traffic on all inputs: nothing lost, and nothing sent twice, not even before ids tell."""

import time

import pytest

from tests.crash.daemon import LONG, PATIENCE, wait_until
from tests.crash.traffic import Traffic
from tests.integration.test_kafka import topic  # noqa: F401 - a fixture

pytestmark = pytest.mark.kafka

RATE, SECONDS, EVERY = (10_000, 300, 5.0) if LONG else (1_000, 8, 1.0)
"""Records a second, for how long, and the seconds from one reload or restart to the next."""


@pytest.fixture
def traffic(tmp_path, topic, store):  # noqa: F811 - pytest's way
    traffic = Traffic(tmp_path, topic, store, RATE * SECONDS, SECONDS)
    yield traffic
    traffic.daemon.close()


def change(traffic: Traffic, n: int) -> None:
    """What the n-th reload changes: the chain always, at times the file input, that of Kafka, or the output as well."""
    config = traffic.daemon.config
    config["stages"][0]["tag"]["add"] = [str(n)]
    if n % 3 == 0:
        config["inputs"]["app"]["poll"] = n
    if n % 4 == 0:
        config["inputs"]["topic"]["batch_records"] = 1000 + n
    if n % 5 == 0:
        config["outputs"]["es"]["timeout"] = 60 + n


def see_that_all_came_once(traffic: Traffic) -> None:
    wait_until(lambda: not traffic.flows, "everything is sent", SECONDS + 2 * PATIENCE)
    records = traffic.records
    wait_until(lambda: traffic.store.findings(0).stored == records, "all is stored", 2 * PATIENCE)
    wait_until(lambda: traffic.committed() == len(traffic.kafka), "all is committed")
    found = traffic.store.findings(records)
    assert not found.missing
    assert not found.twice
    assert not found.repeats


@pytest.mark.slow
def test_reloads_under_traffic_lose_nothing_send_nothing_twice_and_refuse_no_connection(traffic, told):
    daemon, took = traffic.daemon, []
    daemon.start()
    inputs = set(daemon.ports)
    traffic.start()
    while traffic.flows or len(took) < 5:  # where they are slow, too, everything is changed once
        time.sleep(EVERY)
        change(traffic, len(took) + 1)
        took.append(daemon.reload())
        traffic.committed()
    see_that_all_came_once(traffic)
    told(
        f"{traffic.records:,} records in {SECONDS} s, {len(took)} reloads (slowest {max(took):.1f} s): none "
        f"lost, none sent twice, {len(traffic.errors())} errors of connections"
    )
    assert not traffic.errors()
    assert daemon.log.count("aiologs.yaml in ") == len(took)
    for name in inputs:
        assert daemon.log.count(f"input {name}: listening") == 1
    wait_until(lambda: daemon.log.count("input topic: reads") > 1, "what was changed has begun anew")
    wait_until(lambda: daemon.log.count("output es: cluster") > 1, "the output as well")
    daemon.stop()
    assert "Traceback" not in daemon.log


@pytest.mark.slow
def test_restarts_under_traffic_lose_nothing_and_send_nothing_twice(traffic, told):
    daemon, took, again = traffic.daemon, [], []
    daemon.start()
    traffic.start()
    while traffic.flows:
        time.sleep(EVERY)
        took.append(daemon.stop())
        traffic.committed()
        again.append(daemon.start())
    see_that_all_came_once(traffic)
    told(
        f"{traffic.records:,} records in {SECONDS} s, {len(took)} restarts: none lost, none sent twice; slowest "
        f"stop {max(took):.1f} s, slowest start {max(again):.1f} s"
    )
    daemon.stop()
    assert "not drained" not in daemon.log
    assert "Traceback" not in daemon.log

"""The look at the daemon's start."""

import logging
import threading
from types import SimpleNamespace

import pytest

from pipeline.setup import cluster as clusters
from pipeline.setup.cluster import Away, Refused
from pipeline.setup.plan import apply, look
from pipeline.setup.start import Start
from tests.setup.fake_cluster import POLICY, FakeCluster


@pytest.fixture
def cluster(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    cluster = FakeCluster()
    monkeypatch.setattr(clusters, "Cluster", lambda _: cluster)
    return cluster


def begin(setup="check", mode="daily") -> Start:
    """Look, and wait for the end."""
    start = Start("es", SimpleNamespace(setup=setup, mode=mode, definitions=None))
    start.begin()
    for thread in threading.enumerate():
        if thread.name == "setup of es":
            thread.join(30)
    return start


def test_one_line_says_what_is_missing(cluster, caplog):
    begin()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "output es: not set up: lifecycle policy missing: 6, component template missing: 3" in record.message
    assert "`aiologs setup apply` makes it so" in record.message
    assert cluster.changes == []


def test_what_is_as_wanted_is_told_too(cluster, caplog):
    apply(cluster, look(cluster, "daily"))
    begin()
    assert [each.message for each in caplog.records] == ["output es: lifecycle policies and templates are as wanted"]


def test_where_it_may_it_makes_what_is_missing(cluster, caplog):
    begin("apply")
    assert look(cluster, "daily").clean
    assert "setup made 21 changes" in caplog.records[0].message


def test_what_was_changed_by_hand_stays_and_is_told(cluster, caplog):
    apply(cluster, look(cluster, "daily"))
    cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] = "180d"
    begin("apply")
    assert cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] == "180d"
    assert "lifecycle policy changed by hand: 1" in caplog.records[-1].message


def test_off_asks_nothing(cluster, caplog):
    cluster.answers["GET "] = AssertionError("it was asked")
    begin("off")
    assert caplog.records == []


def test_a_key_that_may_only_write_is_no_trouble(cluster, caplog):
    cluster.answers["GET "] = Refused("GET /", 403, "security_exception", "no")
    begin()
    assert [each.levelname for each in caplog.records] == ["INFO"]
    begin("apply")
    assert caplog.records[-1].levelname == "WARNING"


def test_a_cluster_without_lifecycles_is_told_once(cluster, caplog):
    cluster.version["build_flavor"] = "serverless"
    begin()
    assert ["Serverless" in each.message for each in caplog.records] == [True]


def test_a_failure_of_our_own_ends_nothing(cluster, caplog):
    cluster.answers["GET _ilm/policy"] = RuntimeError("a mistake")
    begin()
    assert "documents are written all the same" in caplog.records[0].message


def test_a_cluster_that_is_away_is_asked_again_until_the_end(cluster, caplog, monkeypatch):
    monkeypatch.setattr("pipeline.setup.start.AGAIN_SECONDS", 0.01)
    cluster.answers["GET "] = Away("nobody")
    start = Start("es", SimpleNamespace(setup="check", mode="daily", definitions=None))
    start.begin()
    (thread,) = [each for each in threading.enumerate() if each.name == "setup of es"]
    thread.join(0.05)
    assert thread.is_alive()
    del cluster.answers["GET "]
    thread.join(30)
    assert len(caplog.records) == 1
    start.end()

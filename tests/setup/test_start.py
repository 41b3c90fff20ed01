"""The look at the daemon's start."""

import asyncio
import logging
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


def start(setup="check", ask=None, away=lambda _: None) -> Start:
    return Start("es", SimpleNamespace(setup=setup, mode="daily", definitions=None), ask, away)


async def begin(setup="check") -> None:
    """Look, and wait for the end."""
    look = start(setup)
    look.begin()
    if look._task:
        await look._task
    await look.wait()
    await look.end()


async def test_one_line_says_what_is_missing(cluster, caplog):
    await begin()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "output es: not set up: lifecycle policy missing: 6, component template missing: 3" in record.message
    assert "`aiologs setup apply` makes it as wanted" in record.message
    assert cluster.changes == []


async def test_what_is_as_wanted_is_told_too(cluster, caplog):
    apply(cluster, look(cluster, "daily"))
    await begin()
    assert [each.message for each in caplog.records] == ["output es: lifecycle policies and templates are as wanted"]


async def test_where_it_may_it_makes_what_is_missing(cluster, caplog):
    await begin("apply")
    assert look(cluster, "daily").clean
    assert "setup made 21 changes" in caplog.records[0].message


async def test_what_was_changed_by_hand_stays_and_is_told(cluster, caplog):
    apply(cluster, look(cluster, "daily"))
    cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] = "180d"
    await begin("apply")
    assert cluster.stored[POLICY]["aio-logs"]["policy"]["phases"]["delete"]["min_age"] == "180d"
    (record,) = caplog.records
    assert "output es: is left alone: lifecycle policy changed by hand: 1" in record.message


async def test_off_asks_nothing(cluster, caplog):
    cluster.answers["GET "] = AssertionError("it was asked")
    await begin("off")
    assert caplog.records == []


async def test_a_key_that_may_only_write_is_no_trouble(cluster, caplog):
    cluster.answers["GET "] = Refused("GET /", 403, "security_exception", "no")
    await begin()
    assert [each.levelname for each in caplog.records] == ["INFO"]
    await begin("apply")
    assert caplog.records[-1].levelname == "WARNING"


async def test_a_cluster_without_lifecycles_is_told_once(cluster, caplog):
    cluster.version["build_flavor"] = "serverless"
    await begin()
    assert ["Serverless" in each.message for each in caplog.records] == [True]


async def test_a_failure_of_our_own_ends_nothing(cluster, caplog):
    cluster.answers["GET _ilm/policy"] = RuntimeError("a mistake")
    await begin()
    assert "documents are written all the same" in caplog.records[0].message


async def test_a_cluster_that_is_away_is_asked_again_until_the_end(cluster, caplog, monkeypatch):
    monkeypatch.setattr("pipeline.setup.start.AGAIN_SECONDS", 0.001)
    cluster.answers["GET "] = Away("nobody")
    look = start()
    look.begin()
    await asyncio.sleep(0.05)
    assert not look._task.done()
    del cluster.answers["GET "]
    assert look._task
    await look._task
    assert len(caplog.records) == 1


async def test_documents_wait_until_what_is_missing_was_made_and_are_told_why(cluster, monkeypatch):
    monkeypatch.setattr("pipeline.setup.start.AGAIN_SECONDS", 0.001)
    cluster.answers["GET "] = Away("nobody")
    told = []
    look = start("apply", away=told.append)
    look.begin()
    waiting = asyncio.create_task(look.wait())
    while not told:
        await asyncio.sleep(0)
    assert told[0] == "setup: nobody"
    assert not waiting.done()
    del cluster.answers["GET "]
    await waiting
    assert [each for each in cluster.changes if "aio-logs-undated-000001" in each]
    await look.end()


@pytest.mark.parametrize("setup", ["check", "off"])
async def test_documents_wait_for_nothing_else(cluster, setup):
    cluster.answers["GET "] = Away("nobody")
    look = start(setup)
    look.begin()
    await look.wait()
    await look.end()


async def test_what_goes_wrong_is_not_waited_for(cluster):
    cluster.answers["GET _ilm/policy"] = RuntimeError("a mistake")
    await begin("apply")


async def test_the_end_waits_for_no_answer():
    asked = asyncio.Event()

    async def hang(*_: object) -> tuple[int, bytes]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    look = start("apply", ask=hang)
    look.begin()
    await asked.wait()
    await look.end()
    await look.wait()


async def test_no_answer_is_a_cluster_that_is_away():
    told = []

    async def refuse(*_: object) -> tuple[int, bytes]:
        raise ConnectionError("refused")

    look = start("apply", ask=refuse, away=told.append)
    look.begin()
    while not told:
        await asyncio.sleep(0.001)
    await look.end()
    assert told[0] == "setup: refused"

import asyncio
import logging

import pytest

from pipeline.outputs._health import EVERY_SECONDS, Health

pytestmark = pytest.mark.looptime


@pytest.fixture
def gauges():
    return []


@pytest.fixture
def health(gauges):
    return Health("es", lambda *each: gauges.append(each))


async def test_an_outage_lasts_from_the_first_failure_to_the_first_success(health, gauges, caplog):
    caplog.set_level(logging.INFO)
    health.failed("refused")
    assert health.blocked == "refused"
    await asyncio.sleep(30)
    health.failed("still refused")
    assert health.blocked == "still refused"
    health.took()
    assert health.blocked is None
    assert gauges == [("output_blocked", 1, {"output": "es"}), ("output_blocked", 0, {"output": "es"})]
    assert [record.getMessage() for record in caplog.records] == [
        "output es takes nothing: refused. It is tried again; inputs wait",
        "output es takes documents again, after 30 s",
    ]


async def test_a_long_outage_is_told_again_with_the_number_that_waits(health, caplog):
    health.waiting = 7
    health.failed("refused")
    await asyncio.sleep(EVERY_SECONDS)
    health.failed("refused")
    assert "has taken nothing for 60 s, 7 documents wait: refused" in caplog.messages[-1]


async def test_a_failure_right_after_a_success_is_none(health):
    health.took()
    health.failed("refused")
    assert health.blocked is None
    await asyncio.sleep(1)
    health.failed("refused")
    assert health.blocked == "refused"


async def test_when_something_was_taken_is_known(health):
    assert not health.took_since(0)
    await asyncio.sleep(3)
    health.took()
    assert health.took_since(3)
    assert not health.took_since(3.1)


async def test_a_pause_is_as_long_as_asked_for(health):
    loop = asyncio.get_running_loop()
    await health.pause(5)
    assert loop.time() == 5
    health.failed("refused")
    await health.pause(5)
    assert loop.time() == 10


async def test_a_pause_ends_with_the_outage(health):
    for _ in range(2):
        health.failed("refused")
        started = asyncio.get_running_loop().time()
        pause = asyncio.create_task(health.pause(100))
        await asyncio.sleep(7)
        health.took()
        await pause
        assert asyncio.get_running_loop().time() - started == 7
        await asyncio.sleep(2)


async def test_a_trouble_is_told_at_once_and_then_once_a_minute_with_the_sum(health, caplog):
    for _ in range(3):
        health.trouble("x", 2)
    assert caplog.messages == ["output es: x (2 documents)"]
    await asyncio.sleep(EVERY_SECONDS)
    health.trouble("x", 1)
    assert caplog.messages[1:] == ["output es: x (5 documents)"]


async def test_troubles_are_not_remembered_without_end(health):
    for n in range(2500):
        health.trouble(f"trouble {n}", 1)
    assert len(health._troubles) <= 1000

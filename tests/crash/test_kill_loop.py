"""kill -9 of the daemon, again and again, while an application writes and rotates its log."""

import pytest

from pipeline.delivery import Limits
from pipeline.state import COMMIT_SECONDS
from tests.crash.daemon import LONG
from tests.crash.writer import Writer, line

LINES, ROTATE_EVERY, SECONDS = (1_000_000, 100_000, 60) if LONG else (100_000, 10_000, 10)
LIFETIME = 2.0


@pytest.mark.slow
def test_a_daemon_killed_every_two_seconds_loses_nothing_and_stores_nothing_twice(daemon, store, told):
    writer = Writer(daemon.logs / "app.log", LINES, SECONDS, ROTATE_EVERY)
    writer.start()
    kills, slowest = 0, 0.0
    while writer.is_alive():
        slowest = max(slowest, daemon.start())
        daemon.live(LIFETIME)
        daemon.kill()
        kills += 1
    daemon.once()

    found = store.findings(LINES, COMMIT_SECONDS)
    in_flight = Limits().bytes // len(line(LINES))
    bound = kills * (in_flight + found.busiest)
    told(
        f"{LINES:,} lines, {kills} kills: {len(found.missing)} lost, {len(found.twice)} twice in the store, "
        f"{found.repeats:,} sent twice; the bound is {bound:,} ({in_flight:,} in flight at a kill and "
        f"{found.busiest:,} in the busiest {COMMIT_SECONDS:g} s). Slowest start: {slowest:.2f} s"
    )
    assert not found.missing
    assert not found.twice
    assert found.stored == LINES
    assert found.repeats <= bound

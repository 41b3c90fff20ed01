import asyncio
import io
import sys
from types import SimpleNamespace

import pytest

from pipeline.replay.engine import Counts
from pipeline.replay.progress import Progress, described, expected
from pipeline.replay.reading import Reading
from pipeline.replay.sources import Files, Stdin
from tests.replay.conftest import lines

COUNTS = Counts(
    records=1200,
    bytes=50_000,
    made=3,
    dropped={"drop": 4, "decode": 0},
    left_out=5,
    failed=1,
    outputs={"es": {"stored": 1000, "already": 193, "set_aside": 2, "parked": 7}},
)


def test_every_fate_is_told():
    assert described(COUNTS) == (
        "1,200 records, 1,000 new, 193 already there, 7 parked, 5 left out, 4 dropped by drop, 3 made by stages, "
        "3 set aside"
    )


def test_several_outputs_are_told_apart():
    fates = COUNTS.outputs["es"]
    said = described(Counts(outputs={"a": fates, "b": fates}))
    assert "a: 1,000 new" in said
    assert "b: 1,000 new" in said


def test_how_much_there_is_to_read_is_estimated_from_the_beginning_of_archives(rig):
    plain, packed = lines(1, range(500)), lines(1, range(100_000))
    paths = [str(rig.write("app.log", plain)), str(rig.write("app.log.1.gz", packed))]
    total = expected([Reading(Files(tuple(paths)), None)])
    assert total == pytest.approx(len(plain) + len(packed), rel=0.2)


def test_nobody_knows_how_much_will_come_through_a_pipe(rig):
    assert expected([Reading(Stdin(), None)]) is None


@pytest.mark.looptime
@pytest.mark.parametrize("terminal", [True, False])
async def test_it_is_shown_while_it_goes_on(monkeypatch, terminal):
    shown = io.StringIO()
    shown.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("pipeline.replay.progress.expected", lambda _: 100_000)
    replay = SimpleNamespace(counts=lambda: COUNTS, blocked=lambda: {"es": "no server answers"})
    async with Progress(replay, [], quiet=False):
        await asyncio.sleep(11)
    said = shown.getvalue()
    assert "1,200 records, 1,000 new" in said
    assert "es waits: no server answers" in said
    assert ("50 %" in said) is not terminal


async def test_nothing_is_shown_where_that_is_not_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    async with Progress(SimpleNamespace(), [], quiet=True):
        pass
    assert not shown.getvalue()

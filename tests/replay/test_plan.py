import time

import pytest

from pipeline.replay.plan import Row
from tests.replay.conftest import lines


def test_a_plan_counts_by_index_and_writes_nothing(live):
    live.write("app.log.1", (live.logs / "app.log.1").read_bytes() + lines(2, range(900, 903)) + lines(4, [1, 2]))
    summary = live.replay(live.logs, plan=True)
    rows = {row["index"]: (row["documents"], row["already"], row["exists"]) for row in summary["plan"]}
    assert rows == {
        "logs-2026.11.01": (100, 100, True),
        "logs-2026.11.02": (103, 100, True),
        "logs-2026.11.03": (50, 50, True),
        "logs-2026.11.04": (2, 0, False),
    }
    assert sum(live.stored().values()) == 250
    assert not (live.folder / "data/replay").exists()
    assert live.fates(live.logs) == (5, 250)


def test_a_plan_without_a_store_says_that_everything_is_new(rig, tmp_path):
    rig.write("app.log", lines(1, range(3)) + b"{\n")
    summary = rig.replay(rig.logs, plan=True)
    assert [(row["documents"], row["already"]) for row in summary["plan"]] == [(3, 0)]
    assert summary["counts"]["failed"] == 1
    assert not (rig.folder / "store.db").exists()
    [row] = rig.replay(rig.logs, plan=True, into=f"{tmp_path}/out/")["plan"]
    assert (row["output"], row["documents"]) == ("folder", 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "notes"),
    [
        (Row("es", "i"), "not there yet"),
        (
            Row("es", "i", exists=True, read_only=True, phase="warm", deleted=4102444800.0),
            "read-only, warm, deleted on 2100-01-01",
        ),
        (Row("es", "i", exists=True), ""),
        (Row("es", "i", deleted=time.time() - 1), "not there yet, DELETED AT ONCE by its lifecycle"),
    ],
)
def test_a_row_says_what_to_know_before_it_is_written_to(row, notes):
    assert ", ".join(row.notes) == notes

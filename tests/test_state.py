import asyncio
import contextlib
import shutil
import sqlite3

import pytest

from pipeline import state as module
from pipeline.contract import Positions, Unusable
from pipeline.database import StorageError
from pipeline.state import COMMIT_SECONDS, State


@pytest.fixture
async def data(tmp_path):
    """A data_dir with committed positions of two inputs and a counter."""
    state = State(tmp_path / "data")
    await state.start()
    for name in ("app", "web"):
        for n in range(100):
            state.positions(name).put(f"{n}", {"offset": n, "name": name})
    state.add("records", 7)
    await state.stop()
    return tmp_path / "data"


async def test_positions_and_counters_are_there_after_a_restart(data):
    state = State(data)
    assert state.positions("app").load() == {f"{n}": {"offset": n, "name": "app"} for n in range(100)}
    assert state.positions("other").load() == {}
    state.add("records", 1)
    assert state.counters() == {"records": 8}
    assert not state.damaged
    await state.stop()


async def test_an_entry_is_replaced_or_removed(data):
    state = State(data)
    positions: Positions = state.positions("app")
    positions.put("1", {"offset": 1000})
    positions.remove("2")
    positions.remove("missing")
    entries = positions.load()
    assert entries["1"] == {"offset": 1000}
    assert len(entries) == 99
    await state.stop()
    state = State(data)
    assert state.positions("app").load() == entries
    assert len(state.positions("web").load()) == 100
    await state.stop()


async def test_an_entry_is_as_it_was_when_it_was_put(data):
    state = State(data)
    value = {"offset": 1}
    state.positions("app").put("x", value)
    value["offset"] = 2
    await state.stop()
    state = State(data)
    assert state.positions("app").load()["x"] == {"offset": 1}
    await state.stop()


@pytest.mark.looptime
async def test_what_is_put_is_committed_within_a_tick_and_nothing_when_nothing_changed(tmp_path, monkeypatch):
    state = State(tmp_path)
    works = []

    async def write(work) -> None:
        works.append(work)

    monkeypatch.setattr(state._database, "write", write)
    await state.start()
    for _ in range(3):
        state.positions("app").put("x", {"offset": 1})
    await asyncio.sleep(COMMIT_SECONDS * 1.5)
    assert len(works) == 1
    await asyncio.sleep(COMMIT_SECONDS * 10)
    assert len(works) == 1
    state.add("records", 1)
    await asyncio.sleep(COMMIT_SECONDS * 1.5)
    assert len(works) == 2
    await state.stop()


async def test_a_kill_costs_at_most_what_was_put_since_the_last_commit(tmp_path):
    state = State(tmp_path / "data")
    state.positions("app").put("a", {"offset": 1})
    await state.commit()
    state.positions("app").put("a", {"offset": 2})
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    after = State(tmp_path / "killed")
    assert after.positions("app").load() == {"a": {"offset": 1}}
    assert not after.damaged
    await after.stop()
    await state.stop()


async def test_a_hundred_thousand_entries_are_no_trouble(tmp_path):
    state = State(tmp_path)
    positions = state.positions("app")
    for n in range(100_000):
        positions.put(f"{n:032}", {"offset": n})
    await state.commit()
    assert len(positions.load()) == 100_000
    await state.stop()


@pytest.mark.looptime
@pytest.mark.parametrize("error", [StorageError("full"), RuntimeError("a mistake")])
async def test_what_could_not_be_committed_is_committed_later_and_newer_entries_win(data, monkeypatch, caplog, error):
    state = State(data)
    write, errors = state._database.write, [error] * 3

    async def failing(work):
        if errors:
            state.positions("app").put("b", {"offset": 2})
            raise errors.pop()
        return await write(work)

    monkeypatch.setattr(state._database, "write", failing)
    await state.start()
    for key in "abc":
        state.positions("app").put(key, {"offset": 1})
    state.add("records", 1)
    while errors:
        await asyncio.sleep(COMMIT_SECONDS)
    await state.stop()
    assert caplog.text.count("a mistake") == (3 if isinstance(error, RuntimeError) else 0)
    state = State(data)
    assert [state.positions("app").load()[key]["offset"] for key in "abc"] == [1, 2, 1]
    assert state.counters() == {"records": 8}
    await state.stop()


async def test_stop_on_a_full_disk_says_what_that_means(data, monkeypatch, caplog):
    state = State(data)

    async def full(work) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(state._database, "write", full)
    state.positions("app").put("x", {"offset": 1})
    await state.stop()
    assert "will be read again: disk full" in caplog.text


# --- damage ---


async def test_inputs_learn_that_positions_were_lost(data):
    (data / "state.db").write_bytes(b"\0" * 10_000)
    state = State(data)
    assert state.damaged
    assert state.positions("app").damaged
    assert state.positions("app").load() == {}
    await state.stop()


async def test_inputs_learn_that_one_of_their_positions_is_damaged(data, caplog):
    connection = sqlite3.connect(data / "state.db")
    connection.execute("UPDATE positions SET value = x'7b7d' WHERE input = 'app' AND key = '7'")
    connection.commit()
    connection.close()
    state = State(data)
    positions = state.positions("app")
    assert not positions.damaged
    assert len(positions.load()) == 99
    assert positions.damaged
    assert "{'input': 'app', 'key': '7'}" in caplog.text
    await state.stop()


@pytest.mark.parametrize("neighbour", ["dead.db", "parked.db"])
async def test_a_deleted_file_is_noticed_by_its_neighbours(data, caplog, neighbour):
    (data / "state.db").unlink()
    (data / neighbour).touch()
    state = State(data)
    assert state.damaged
    assert "state.db is gone" in caplog.text
    await state.stop()


async def test_the_first_start_is_no_damage(tmp_path):
    state = State(tmp_path)
    assert not state.damaged
    assert not state.positions("app").damaged
    await state.stop()


def test_a_data_dir_that_cannot_be_used_is_said_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match=r"state\.db"):
        State(tmp_path / "file" / "data")


async def test_what_was_put_is_settled_when_it_is_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.001)
    state = State(tmp_path)
    write, refusals = state._database.write, iter([True, True])

    async def refusing(work):
        if next(refusals, False):
            raise StorageError("full")
        return await write(work)

    monkeypatch.setattr(state._database, "write", refusing)
    state.positions("app").put("a", {"n": 1})
    await asyncio.gather(state.settled(), state.settled())
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as other:
        assert other.execute("SELECT key FROM positions").fetchall() == [("a",)]
    await state.stop()

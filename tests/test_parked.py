import shutil
import sqlite3
import time

import pytest

from pipeline.contract import Documents, bulk
from pipeline.database import StorageError
from pipeline.parked import Entry, Parked


def section(index: str, *names: str, size: int = 10) -> Documents:
    return bulk(index, [(name, b'"' + b"x" * size + b'"') for name in names])


@pytest.fixture
async def parked(tmp_path):
    parked = Parked(tmp_path)
    await parked.start()
    yield parked
    await parked.stop()


async def put(parked: Parked, *sections: Documents, output: str = "es") -> None:
    await parked.put(output, [(each, "blocked") for each in sections])


async def test_sections_come_back_as_they_were_until_they_are_done(parked):
    first, second = section("logs", "a", "b"), section("logs", "c")
    before = time.time()
    await parked.put("es", [(first, "blocked"), (second, "read-only")])
    entries = await parked.take("es", 1000)
    assert [(entry.documents, entry.reason) for entry in entries] == [(first, "blocked"), (second, "read-only")]
    assert all(before <= entry.since <= time.time() for entry in entries)
    assert await parked.take("es", 1000) == entries
    await parked.done([entries[0].key])
    assert await parked.take("es", 1000) == entries[1:]
    assert await parked.take("other", 1000) == []


async def test_what_is_parked_is_counted_by_output_and_index(parked):
    assert parked.oldest is None
    await put(parked, section("logs", "a", "b"), section("errors", "c"))
    await put(parked, section("logs", "d"), output="other")
    assert parked.counts() == {("es", "logs"): 2, ("es", "errors"): 1, ("other", "logs"): 1}
    assert parked.oldest
    assert time.time() - 60 < parked.oldest <= time.time()
    assert 0 < parked.bytes < 1_000_000
    assert not parked.full
    for output in ("es", "other"):
        await parked.done([entry.key for entry in await parked.take(output, 1000)])
    assert not any(parked.counts().values())
    assert parked.oldest is None


async def test_parking_the_same_again_changes_nothing(parked):
    await put(parked, section("logs", "a"), section("logs", "a"))
    await put(parked, section("logs", "a"))
    assert parked.counts() == {("es", "logs"): 1}
    [entry] = await parked.take("es", 1000)
    await parked.done([entry.key, entry.key])
    await parked.done([entry.key])
    assert parked.counts() == {("es", "logs"): 0}


async def test_they_are_there_after_a_kill(parked, tmp_path):
    await put(parked, section("logs", "a", "b"))
    (tmp_path / "killed").mkdir()
    for name in ("parked.db", "parked.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "killed")
    after = Parked(tmp_path / "killed")
    await after.start()
    assert not after.damaged
    assert after.counts() == {("es", "logs"): 2}
    assert after.oldest == parked.oldest
    assert [entry.documents for entry in await after.take("es", 1000)] == [section("logs", "a", "b")]
    await after.stop()


async def test_about_as_many_bytes_as_asked_for_are_taken_but_always_one_section(parked):
    await put(parked, *(section("logs", f"{n}", size=1000) for n in range(10)))
    size = len(section("logs", "0", size=1000).body)
    assert [len(await parked.take("es", limit)) for limit in (1, size, 3 * size, 100 * size)] == [1, 1, 3, 10]


async def test_an_index_that_stays_blocked_does_not_hold_up_the_others(parked):
    await put(parked, *(section("blocked", f"{n}", size=1000) for n in range(100)))
    await put(parked, section("open", "a"), section("open", "b"))
    taken = await parked.take("es", 5000)
    assert [entry.documents for entry in taken if entry.documents.index == "open"] == [
        section("open", "a"),
        section("open", "b"),
    ]
    assert {entry.documents.index for entry in taken} == {"blocked", "open"}
    assert {entry.documents.index for entry in await parked.take("es", 5000, {"blocked"})} == {"open"}
    assert await parked.take("es", 5000, {"blocked", "open"}) == []


async def test_when_the_room_is_used_up_nothing_is_taken_until_there_is_some(tmp_path):
    parked = Parked(tmp_path, max_bytes=200_000)
    await parked.start()
    await put(parked, *(section("logs", f"{n}", size=10_000) for n in range(20)))
    assert parked.full
    with pytest.raises(
        StorageError, match=r"parked\.db is full \(\d+ of 200000 bytes\): output es must .* \(blocked\)"
    ):
        await put(parked, section("logs", "more"))
    await parked.done([entry.key for entry in await parked.take("es", 1_000_000)])
    assert not parked.full
    await put(parked, section("logs", "more"))
    assert parked.counts() == {("es", "logs"): 1}
    await parked.stop()


async def test_a_damaged_section_is_put_apart_and_the_others_go_on(parked, tmp_path, caplog):
    await put(parked, section("logs", "a"), section("logs", "b"), section("logs", "c"))
    connection = sqlite3.connect(tmp_path / "parked.db")
    connection.execute("UPDATE sections SET body = replace(body, 'b', 'B') WHERE n = 2")
    connection.commit()
    connection.close()
    entries: list[Entry] = await parked.take("es", 10_000)
    assert [entry.documents for entry in entries] == [section("logs", "a"), section("logs", "c")]
    assert "a row of sections is damaged" in caplog.text
    assert parked.damaged

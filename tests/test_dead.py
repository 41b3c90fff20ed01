import asyncio
import shutil
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import dead as module
from pipeline.causes import Filters
from pipeline.contract import Unusable
from pipeline.database import StorageError
from pipeline.dead import DeadLetters, Limits, reading
from pipeline.letters import Letter

LETTER = Letter(
    id="i-0",
    input="app",
    record=b'{"bad\xff',
    origin={"host.name": "h", "partition": 3},
    time=1000.0,
    stage="json",
    reason="ValueError: unexpected end at 7",
    traceback="Traceback …",
    identity="i",
    place=0,
)
REFUSED = replace(
    LETTER, id="i-9", output="es", index="logs", document=b'{"a":1}', stage="", reason="mapper: a is no date"
)


def letters(count: int, **more) -> list[Letter]:
    return [replace(LETTER, id=f"n-{n}", place=n, time=1000.0 + n, **more) for n in range(count)]


async def test_a_letter_comes_back_as_it_was_put(dead):
    await dead.put([LETTER, REFUSED])
    assert await dead.list() == [replace(LETTER, number=1), replace(REFUSED, number=2)]
    assert dead.count() == 2
    assert dead.bytes() > 4096


@given(
    st.builds(
        Letter,
        id=st.text(min_size=1),
        input=st.text(),
        record=st.binary(),
        origin=st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**53), 2**53)),
        time=st.floats(0, 1e10),
        reason=st.text(st.characters()),
        traceback=st.text(st.characters()),
        place=st.integers(0, 2**63 - 1),
        document=st.none() | st.binary(),
    )
)
def test_whatever_a_record_or_an_error_holds_can_be_kept(letter):
    connection = sqlite3.connect(":memory:")
    connection.execute(module._LETTERS.create)
    connection.execute(module._REPEATS.create)
    module._insert([letter], connection)
    select = module.Reader(connection)._select
    [kept] = module._page(select, Filters(), 10, 0, connection)
    assert (kept.record, kept.document, kept.time, kept.origin) == (
        letter.record,
        letter.document,
        letter.time,
        letter.origin,
    )
    assert kept.place == letter.place
    connection.close()


async def test_a_reason_that_is_no_valid_text_is_kept_in_a_readable_form(dead):
    await dead.put([replace(LETTER, reason="bad \udcff byte")])
    assert [letter.reason for letter in await dead.list()] == ["bad \\udcff byte"]


async def test_the_first_cause_is_kept_and_repetitions_are_counted(dead):
    await dead.put([LETTER])
    for _ in range(3):
        await dead.put([replace(LETTER, reason="another", time=2000.0)])
    [letter] = await dead.list()
    assert (letter.reason, letter.time, letter.repeats) == (LETTER.reason, LETTER.time, 3)
    assert dead.count() == 1


async def test_each_output_has_its_own_letter_of_a_document(dead):
    await dead.put([LETTER, replace(LETTER, output="es"), replace(LETTER, output="file")])
    assert dead.count() == 3


async def test_letters_are_there_after_a_kill(dead, tmp_path):
    await dead.put([LETTER])
    (tmp_path / "killed").mkdir()
    for name in ("dead.db", "dead.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "killed")
    after = DeadLetters(tmp_path / "killed")
    await after.start()
    assert after.count() == 1
    assert not after.damaged
    assert [letter.id for letter in await after.list()] == ["i-0"]
    await after.stop()


async def test_letters_are_listed_in_portions(dead):
    await dead.put(letters(25))
    seen, after = [], 0
    while page := await dead.list(limit=10, after=after):
        seen += [letter.place for letter in page]
        after = page[-1].number
    assert seen == list(range(25))


async def test_removed_letters_are_gone_with_their_repetitions(dead):
    await dead.put([*letters(3), *letters(3)])
    await dead.remove([("", "n-1"), ("", "missing")])
    assert [letter.id for letter in await dead.list()] == ["n-0", "n-2"]
    assert dead.count() == 2
    await dead.put(letters(3))
    assert [(letter.id, letter.repeats) for letter in await dead.list()] == [("n-0", 2), ("n-2", 2), ("n-1", 0)]
    await dead.remove([])
    assert dead.count() == 3


async def test_when_the_room_is_used_up_nothing_is_taken_until_there_is_some(tmp_path):
    dead = DeadLetters(tmp_path, Limits(max_bytes=100_000))
    await dead.start()
    await dead.put(letters(20, record=bytes(5000)))
    assert dead.bytes() >= 100_000
    assert "see `aiologs dead list`" in str(dead.full)
    with pytest.raises(StorageError, match=r"dead\.db is full \(\d+ of 100000 bytes\): see `aiologs dead list`"):
        await dead.put([LETTER])
    assert dead.count() == 20
    await dead.purge(Filters())
    assert dead.full is None
    await dead.put([LETTER])
    assert dead.count() == 1
    await dead.stop()


async def test_the_oldest_make_room_only_where_that_is_wanted_and_are_counted(tmp_path, caplog):
    counted = []
    limits = Limits(max_bytes=200_000, when_full="drop_oldest")
    dead = DeadLetters(tmp_path, limits, lambda *count: counted.append(count))
    await dead.start()
    for n in range(10):
        await dead.put([replace(LETTER, id=f"{n}-{m}", record=bytes(1000)) for m in range(50)])
    left = {letter.id for letter in await dead.list()}
    assert {f"9-{n}" for n in range(50)} <= left
    assert "0-0" not in left
    assert dead.bytes() < 300_000
    assert dead.full is None
    assert {(name, *labels.items()) for name, _, labels in counted} == {("dead_letters_dropped", ("reason", "full"))}
    assert sum(n for _, n, _ in counted) == 500 - len(left) == 500 - dead.count()
    assert "newer ones took their room" in caplog.text
    await dead.stop()


@pytest.mark.looptime
async def test_what_becomes_too_old_is_removed_though_nothing_comes(tmp_path, monkeypatch):
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("pipeline.dead.time.time", loop.time)
    dead = DeadLetters(tmp_path, Limits(max_days=1))
    await dead.start()
    await dead.put([replace(LETTER, time=loop.time())])
    await asyncio.sleep(86_400 + 7300)
    assert dead.count() == 0
    await dead.stop()


async def test_what_is_too_old_is_removed_at_the_start_and_once_an_hour(tmp_path, monkeypatch, caplog):
    now = 10_000.0
    monkeypatch.setattr("pipeline.dead.time.time", lambda: now)
    dead = DeadLetters(tmp_path, Limits(max_days=5000 / 86400))
    await dead.start()
    await dead.put([replace(LETTER, id="old", time=1.0), replace(LETTER, id="new", time=9000.0)])
    now += 3599
    await dead.put([])
    assert dead.count() == 2
    now += 2
    await dead.put([LETTER])
    assert [letter.id for letter in await dead.list()] == ["new", "i-0"]
    await dead.stop()
    now += 5000
    dead = DeadLetters(tmp_path, Limits(max_days=5000 / 86400))
    await dead.start()
    assert dead.count() == 0
    await dead.stop()
    assert [message for message in caplog.messages if "older" in message] == [
        "1 dead letters are removed for good: they were older than dead_letters.max_days",
        "2 dead letters are removed for good: they were older than dead_letters.max_days",
    ]


async def test_damage_is_told(tmp_path):
    (tmp_path / "dead.db").write_bytes(b"\0" * 8192)
    dead = DeadLetters(tmp_path)
    await dead.start()
    assert dead.damaged
    await dead.put([LETTER])
    await dead.stop()


# --- another process ---


async def test_letters_can_be_read_while_the_daemon_writes(dead, tmp_path):
    await dead.put(letters(1200))
    with reading(tmp_path) as reader:
        each = reader.each()
        assert next(each).id == "n-0"
        await dead.put([LETTER])
        assert len(list(each)) == 1200
        assert [group.count for group in reader.summary(Filters(id="n-"))] == [1200]
    await asyncio.gather(dead.put([REFUSED]))


async def test_letters_can_be_read_after_a_kill_and_after_a_proper_end(dead, tmp_path):
    await dead.put([LETTER])
    for name in ("killed", "ended"):
        (tmp_path / name).mkdir()
    for name in ("dead.db", "dead.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "killed")
    other = DeadLetters(tmp_path / "ended")
    await other.start()
    await other.put([LETTER])
    await other.stop()
    for name in ("killed", "ended"):
        with reading(tmp_path / name) as reader:
            assert [letter.id for letter in reader.each()] == ["i-0"]


async def test_a_reader_leaves_damaged_letters_out_and_counts_them(dead, tmp_path):
    await dead.put(letters(3))
    connection = sqlite3.connect(tmp_path / "dead.db")
    connection.execute("UPDATE letters SET record = x'00' WHERE id = 'n-1'")
    connection.commit()
    connection.close()
    with reading(tmp_path) as reader:
        assert [letter.id for letter in reader.each()] == ["n-0", "n-2"]
        assert reader.damaged == 1


def test_what_cannot_be_read_is_said_so(tmp_path):
    with pytest.raises(Unusable, match=r"dead\.db does not exist"), reading(tmp_path):
        pass
    (tmp_path / "dead.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Unusable, match="file is not a database"), reading(tmp_path) as reader:
        reader.summary()


async def test_thousands_of_letters_are_kept_and_counted_whichever_come_again(tmp_path):
    dead = DeadLetters(tmp_path)
    await dead.start()
    await dead.put([replace(LETTER, id=f"i{n}") for n in range(1200)])
    await dead.put([replace(LETTER, id=f"i{n // 2}") for n in range(1000, 4000)])
    assert dead.count() == 2000
    found = await dead.list(limit=5000)
    await dead.stop()
    repeats = {letter.id: letter.repeats for letter in found}
    assert [repeats[f"i{n}"] for n in (499, 500, 1199, 1200, 1999)] == [0, 2, 2, 1, 1]

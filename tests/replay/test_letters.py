import asyncio

import pytest

from pipeline.contract import Unusable
from pipeline.dead import DeadLetters
from pipeline.letter_json import exported
from pipeline.letters import Letter
from tests.replay.conftest import lines

LETTERS = [
    Letter("a-0", "app", lines(1, [0]), {"host.name": "web1"}, 1.0, stage="geoip", reason="x", identity="a", place=0),
    Letter("b-7", "app", lines(2, [7]), {}, 2.0, output="store", reason="x", identity="b", place=7, document=b"{}"),
]


def put(folder, letters):
    async def work() -> None:
        dead = DeadLetters(folder)
        await dead.start()
        await dead.put(letters)
        await dead.stop()

    asyncio.run(work())


def ids(rig) -> set[str]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(rig.folder / "store.db")) as store:
        return {id_ for (id_,) in store.execute("SELECT id FROM documents")}


def test_dead_letters_are_stored_under_their_ids_and_stay_where_they_are(rig):
    put(rig.folder / "data", LETTERS)
    assert rig.fates("dead:") == (2, 0)
    assert ids(rig) == {"a-0", "b-7"}
    assert rig.fates("dead:") == (0, 2)


def test_exported_letters_are_read_from_their_file(rig, tmp_path):
    (tmp_path / "letters.ndjson").write_bytes(b"".join(map(exported, LETTERS)))
    assert rig.fates(f"dead:{tmp_path}/letters.ndjson") == (2, 0)
    assert ids(rig) == {"a-0", "b-7"}


def test_a_letter_that_has_no_record_or_no_input_is_an_error(rig, caplog):
    put(rig.folder / "data", [Letter("c", "app", b"", {}, 1.0, document=b"{}"), Letter("d", "gone", b"{}", {}, 1.0)])
    assert rig.replay("dead:")["errors"] == 2
    assert "no record, only a document" in caplog.text
    assert "no input 'gone' any more" in caplog.text


@pytest.mark.parametrize("content", [b"{}\n", b"[]\n", b"nonsense\n"])
def test_a_file_that_holds_something_else_is_told(rig, tmp_path, content):
    (tmp_path / "letters.ndjson").write_bytes(content)
    with pytest.raises(Unusable, match="can't be read as exported dead letters"):
        rig.replay(f"dead:{tmp_path}/letters.ndjson")


def test_without_a_data_dir_there_are_none(rig):
    with pytest.raises(Unusable, match=r"dead\.db does not exist"):
        rig.replay("dead:")

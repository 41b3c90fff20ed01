import asyncio
import sqlite3
from contextlib import closing

import pytest

from pipeline.contract import Context, Documents, Unusable, Written, bulk
from pipeline.outputs.local import Local, counts, get


def make(path) -> Local:
    return Local(Local.Options(path=path), Context("store", "host", None))  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "store.db"


@pytest.fixture
async def store(path):
    output = make(path)
    await output.start()
    yield output
    await output.stop()


def docs(*ids: str, index: str = "logs"):
    return bulk(index, [(id_, b'{"id":"%b"}' % id_.encode()) for id_ in ids])


async def test_documents_are_kept_once_by_index_and_id(store, path):
    assert await store.write([docs("1", "2"), docs("1", index="errors")]) == Written(stored=3)
    assert await store.write([docs("2", "3")]) == Written(stored=1, already=1)
    assert counts(path) == {"errors": 1, "logs": 3}
    assert get(path, "1") == {"errors": '{"id":"1"}', "logs": '{"id":"1"}'}
    assert get(path, "9") == {}


async def test_the_first_of_two_documents_with_one_id_stays(store, path):
    await store.write([bulk("logs", [("1", b'"first"'), ("1", b'"second"')])])
    assert get(path, "1") == {"logs": '"first"'}


async def test_documents_are_text_for_json_functions(store, path):
    await store.write([bulk("logs", [("1", '{"city":"Zürich"}'.encode())])])
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT typeof(document), json_extract(document, '$.city') FROM documents").fetchall()
    assert rows == [("text", "Zürich")]


async def test_they_are_there_after_a_restart(store, path):
    await store.write([docs("1")])
    again = make(path)
    await again.start()
    assert await again.write([docs("1", "2")]) == Written(stored=1, already=1)
    await again.stop()


async def test_writes_at_once_are_all_durable_when_they_return(store, path):
    async def write(n: int) -> None:
        await store.write([docs(f"{n}")])
        assert get(path, f"{n}")

    await asyncio.gather(*(write(n) for n in range(20)))
    assert counts(path) == {"logs": 20}


async def test_a_locked_file_makes_inputs_wait(store, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        await store._group.run(lambda: store._db.execute("PRAGMA busy_timeout=1"))
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.write([docs("1")]))
        while not store.blocked:
            await asyncio.sleep(0.01)
        assert "locked" in store.blocked
        other.execute("ROLLBACK")
    assert await write == Written(stored=1)
    assert store.blocked is None


async def test_a_failure_in_the_middle_leaves_nothing_behind(store, path):
    with pytest.raises(ValueError, match="invalid literal"):
        await store.write([docs("1"), Documents("logs", b"no action\n{}\n", 1)])
    assert counts(path) == {}
    assert await store.write([docs("1")]) == Written(stored=1)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4080])
async def test_a_damaged_file_is_told_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(Unusable, match=r"output store: can't use .*store.db: .*; it is damaged or no database"):
        await make(path).start()
    assert path.read_bytes() == content


async def test_a_folder_that_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match=r"can't use .*store\.db: its folder: (File exists|Not a directory)$"):
        await make(tmp_path / "file" / "store.db").start()


async def test_a_file_that_is_a_folder_is_told(tmp_path):
    with pytest.raises(Unusable, match="give the daemon the right"):
        await make(tmp_path).start()


async def test_a_file_that_another_holds_is_told(tmp_path, monkeypatch):
    path, connect = tmp_path / "store.db", sqlite3.connect
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("CREATE TABLE theirs (n)")
        monkeypatch.setattr(sqlite3, "connect", lambda name, **more: connect(name, timeout=0.01, **more))
        with pytest.raises(Unusable, match="another program holds it"):
            await make(path).start()

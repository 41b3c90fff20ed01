import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.contract import Context, Written, bulk
from pipeline.outputs import _read_only
from pipeline.outputs.elasticsearch import Elasticsearch
from tests.fake_elasticsearch import CLOSED, READ_ONLY, FakeElasticsearch, Status
from tests.memory import Memory

DAY = "logs-2026.08.01"
NO_RIGHT = Status(
    403,
    b'{"error":{"type":"security_exception","reason":"action [indices:data/read/mget] is unauthorized for API key,'
    b' this action is granted by the index privileges [read,all]"}}',
)


class Rig:
    def __init__(self, fake: FakeElasticsearch) -> None:
        self.fake, self.positions, self.counted = fake, Memory(), Counter[str]()

    @asynccontextmanager
    async def output(self, mode: str, **options: Any) -> AsyncIterator[Elasticsearch]:
        fast = {"retry_first": 0.001, "retry_most": 0.01, "park_after": 0.05, "setup": "off", "read_only": mode}
        settings = Elasticsearch.Options(hosts=[self.fake.url], **(fast | options))
        output = Elasticsearch(settings, Context("es", "host", self.positions, count=self._count))
        await output.start()
        try:
            async with asyncio.timeout(30):
                yield output
        finally:
            await output.stop()

    def _count(self, name: str, n: int, labels: Any) -> None:
        if name == "read_only_documents":
            self.counted[labels["fate"]] += n

    def ids(self, index: str) -> set[str]:
        return {id_ for name, id_ in self.fake.documents if name == index}


@pytest.fixture
async def rig():
    async with FakeElasticsearch() as fake:
        rig = Rig(fake)
        async with rig.output("park") as output:
            assert await output.write(docs(DAY, 0, 3)) == Written(stored=3)
        fake.indices[DAY] = READ_ONLY
        yield rig


def docs(index: str, start: int, end: int) -> list[Any]:
    return [bulk(index, [(f"id-{n}", b'{"n":%d}' % n) for n in range(start, end)])]


async def test_what_a_read_only_index_lacks_goes_into_a_replay_index_of_its_day(rig):
    async with rig.output("replay_index") as output:
        assert await output.write(docs(DAY, 0, 5)) == Written(stored=2, already=3)
        assert await output.write(docs(DAY, 0, 6)) == Written(stored=1, already=5)
    assert (rig.ids(DAY), rig.ids(f"{DAY}-1")) == ({"id-0", "id-1", "id-2"}, {"id-3", "id-4", "id-5"})
    assert rig.fake.changes == []
    assert rig.counted == {"already": 8, "replay_index": 3}


async def test_a_replay_index_that_has_become_read_only_has_a_next_one(rig):
    async with rig.output("replay_index") as output:
        await output.write(docs(DAY, 3, 4))
        rig.fake.indices[f"{DAY}-1"] = READ_ONLY
        assert await output.write(docs(DAY, 0, 5)) == Written(stored=1, already=4)
        # as what was parked comes: under the replay index's own name
        assert await output.write(docs(f"{DAY}-1", 3, 6)) == Written(stored=1, already=2)
    assert rig.ids(f"{DAY}-2") == {"id-4", "id-5"}


async def test_what_a_read_only_index_lacks_is_added_and_its_block_restored(rig):
    async with rig.output("add") as output:
        assert await output.write(docs(DAY, 0, 5)) == Written(stored=2, already=3)
        assert rig.positions.entries == {f"lifted/{DAY}": {"blocks": ["write"]}}
    assert rig.ids(DAY) == {f"id-{n}" for n in range(5)}
    assert rig.fake.changes == [(DAY, {"index.blocks.write": None}), (DAY, {"index.blocks.write": True})]
    assert rig.positions.entries == {}


async def test_a_block_is_not_lifted_where_nothing_is_missing(rig):
    async with rig.output("add") as output:
        assert await output.write(docs(DAY, 0, 3)) == Written(already=3)
    assert rig.fake.changes == []


async def test_a_block_is_restored_while_the_daemon_goes_on(rig, monkeypatch):
    monkeypatch.setattr(_read_only, "LEASE_SECONDS", 0.01)
    async with rig.output("add") as output:
        await output.write(docs(DAY, 0, 5))
        while DAY not in rig.fake.indices:
            await asyncio.sleep(0.01)
        assert await output.write(docs(DAY, 0, 7)) == Written(stored=2, already=5)


async def test_a_block_that_a_killed_daemon_left_lifted_is_restored_at_the_next_start(rig):
    del rig.fake.indices[DAY]
    rig.positions.entries = {f"lifted/{DAY}": {"blocks": ["write"]}}
    async with rig.output("park"):
        while rig.positions.entries:
            await asyncio.sleep(0.01)
    assert rig.fake.indices[DAY] == READ_ONLY


async def test_a_block_that_can_not_be_restored_when_the_daemon_stops_is_remembered(rig, caplog):
    async with rig.output("add") as output:
        await output.write(docs(DAY, 0, 5))
        rig.fake.refusal = Status(503)
    assert rig.positions.entries == {f"lifted/{DAY}": {"blocks": ["write"]}}
    assert "restored at the next start" in caplog.text


async def test_two_daemons_that_lift_and_restore_one_block_lose_nothing(rig, monkeypatch):
    monkeypatch.setattr(_read_only, "LEASE_SECONDS", 0.02)
    other = Rig(rig.fake)
    async with rig.output("add", park_after=60) as one, other.output("add", park_after=60) as two:
        for start in range(0, 400, 10):
            written = await asyncio.gather(
                one.write(docs(DAY, start, start + 10)), two.write(docs(DAY, start + 5, start + 15))
            )
            assert [each.stored + each.already for each in written] == [10, 10]
            await asyncio.sleep(0.005)
    assert rig.ids(DAY) == {f"id-{n}" for n in range(405)}
    assert rig.fake.indices[DAY] == READ_ONLY
    assert (rig.positions.entries, other.positions.entries) == ({}, {})
    assert sum(change["index.blocks.write"] is None for _, change in rig.fake.changes) > 2


async def test_what_a_read_only_index_lacks_can_be_set_aside(rig):
    async with rig.output("set_aside") as output:
        written = await output.write(docs(DAY, 0, 5))
    assert (written.already, [each.id for each in written.refused]) == (3, ["id-3", "id-4"])
    assert f"index {DAY}" in written.refused[0].reason
    assert rig.counted == {"already": 3, "set_aside": 2}


@pytest.mark.parametrize("mode", ["replay_index", "add", "set_aside"])
async def test_without_the_privilege_to_look_up_it_is_parked_and_the_reason_names_the_privilege(rig, mode):
    rig.fake.refusal = NO_RIGHT
    async with rig.output(mode) as output:
        written = await output.write(docs(DAY, 0, 5) + docs("live", 0, 2))
    ((documents, reason),) = written.late
    assert (written.stored, documents.count) == (2, 5)
    assert "index privileges [read,all]" in reason


async def test_a_read_only_index_of_no_day_is_parked_by_replay_index(rig):
    rig.fake.indices["undated"] = READ_ONLY
    async with rig.output("replay_index") as output:
        written = await output.write(docs("undated", 0, 5) + docs("live", 0, 2))
    assert (written.stored, [documents.index for documents, _ in written.late]) == (2, ["undated"])


async def test_other_blocks_are_left_alone(rig):
    rig.fake.indices[DAY] = CLOSED
    async with rig.output("add") as output:
        written = await output.write(docs(DAY, 0, 5) + docs("live", 0, 2))
    assert (written.stored, len(written.late), rig.fake.changes) == (2, 1, [])


async def test_without_ids_all_of_it_is_written_and_nothing_looked_up(rig):
    async with rig.output("replay_index", document_id=False) as output:
        assert await output.write(docs(DAY, 0, 3)) == Written(stored=3)


async def test_many_requests_at_once_lift_a_block_once(rig, caplog):
    caplog.set_level(logging.INFO)
    async with rig.output("add", max_request_bytes=1024) as output:
        assert await output.write(docs(DAY, 0, 200)) == Written(stored=197, already=3)
    lifted = [change for _, change in rig.fake.changes if change["index.blocks.write"] is None]
    assert 1 <= len(lifted) <= 8
    assert rig.fake.indices[DAY] == READ_ONLY


async def test_what_is_known_to_be_read_only_is_not_sent_to_be_refused(rig):
    async with rig.output("replay_index") as output:
        await output.write(docs(DAY, 0, 4))
        rig.fake.requests.clear()
        assert await output.write(docs(DAY, 0, 6) + docs("live", 0, 2)) == Written(stored=4, already=4)
    assert [sorted(each.ids) for each in rig.fake.requests] == [["id-0", "id-1", "id-4", "id-5"]]


@pytest.mark.parametrize("mode", ["replay_index", "add", "set_aside"])
async def test_an_index_whose_block_was_lifted_gets_its_documents_again(rig, mode):
    async with rig.output(mode) as output:
        await output.write(docs(DAY, 0, 3))
        del rig.fake.indices[DAY]
        assert await output.write(docs(DAY, 0, 5)) == Written(stored=2, already=3)
        rig.fake.requests.clear()
        assert await output.write(docs(DAY, 5, 6)) == Written(stored=1)
        assert len(rig.fake.requests) == 1
    assert rig.ids(DAY) == {f"id-{n}" for n in range(6)}


async def test_an_index_that_was_deleted_is_made_anew(rig):
    async with rig.output("replay_index") as output:
        await output.write(docs(DAY, 0, 3))
        del rig.fake.indices[DAY]
        rig.fake.documents.clear()
        assert await output.write(docs(DAY, 0, 3)) == Written(stored=3)


async def test_what_can_not_be_looked_up_any_more_is_sent(rig):
    async with rig.output("replay_index") as output:
        await output.write(docs(DAY, 0, 3))
        rig.fake.refusal = NO_RIGHT
        await output.write(docs(DAY, 0, 3) + docs("live", 0, 2))
        del rig.fake.indices[DAY]
        assert await output.write(docs(DAY, 0, 5)) == Written(stored=2, already=3)

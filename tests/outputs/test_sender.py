import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.contract import Context, Written, bulk
from pipeline.outputs._answers import Failed, Fates, Kind, fates
from pipeline.outputs._health import Health
from pipeline.outputs._read_only import ReadOnly
from pipeline.outputs._sender import FAULTS, OVERLOADED_SECONDS, Pauses, Sender
from pipeline.outputs.bulk import Request, requests
from tests.memory import Memory

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


class Cluster:
    """Takes everything, but for what a rule says of a document's index or id."""

    def __init__(self) -> None:
        self.rules: dict[str, tuple[int, str]] = {}
        self.failure: Failed | None = None
        self.sizes: list[int] = []
        self.times: list[float] = []
        self.stored: set[str] = set()
        self.counted: Counter[str] = Counter()
        self.gauges: list[float] = []
        context = Context("es", "host", Memory(), lambda _, value, __: self.gauges.append(value), self._count)
        self.health = Health("es", context.gauge)
        read_only = ReadOnly("park", self.ask, context, ids=True)
        self.sender = Sender(context, self.send, read_only, None, self.health, Pauses(first=1, most=8, park_after=5))

    async def ask(self, method: str, target: str, _: bytes | None) -> tuple[int, bytes]:
        raise AssertionError(f"{method} {target}")

    def _count(self, name: str, n: int, labels: Mapping[str, str]) -> None:
        self.counted[f"{name} {labels.get('reason', '')}".strip()] += n

    async def send(self, request: Request) -> Fates:
        self.sizes.append(request.count)
        self.times.append(now())
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        items: list[str] = []
        for section in request.sections:
            for id_, _ in section.pairs():
                items.append(self._item(section.index, id_))
        return fates(request, 200, ('{{"items":[{}]}}'.format(",".join(items))).encode())

    def _item(self, index: str, id_: str) -> str:
        status, type_ = self.rules.get(id_) or self.rules.get(index) or (201, "")
        if status == 201 and id_ in self.stored:
            status, type_ = 409, "version_conflict_engine_exception"
        if status == 201:
            self.stored.add(id_)
            return '{"create":{"status":201}}'
        return f'{{"create":{{"status":{status},"error":{{"type":"{type_}","reason":"index [{index}]"}}}}}}'

    async def write(self, *ids: str) -> Written:
        """Write documents; an id's letters are its index."""
        written = Written()
        payload: dict[str, list[tuple[str, bytes]]] = {}
        for id_ in ids:
            payload.setdefault(id_.rstrip("0123456789"), []).append((id_, b"{}"))
        await self.sender.store(requests([bulk(*each) for each in payload.items()], 1 << 20), written)
        return written

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Others write all the time. No fixture: the time of a fixture is not that of its test."""

        async def flow() -> None:
            for n in itertools.count():
                await self.write(f"live{n}")
                await asyncio.sleep(0.1)

        task = asyncio.create_task(flow())
        await asyncio.sleep(0.05)
        yield
        task.cancel()


@pytest.fixture
def cluster():
    return Cluster()


READ_ONLY = (403, "cluster_block_exception")
BUSY = (429, "es_rejected_execution_exception")
FAULT = (500, "null_pointer_exception")


def late(written: Written) -> list[str]:
    return [id_ for documents, _ in written.late for id_, _ in documents.pairs()]


async def test_what_is_taken_is_sent_once(cluster):
    assert await cluster.write("a1", "b1") == Written(stored=2)
    assert await cluster.write("a1", "b2") == Written(stored=1, already=1)
    assert cluster.sizes == [2, 2]


async def test_only_what_was_rejected_is_sent_again_until_it_is_taken(cluster):
    cluster.rules["a2"] = BUSY
    write = asyncio.create_task(cluster.write("a1", "a2", "a3"))
    await asyncio.sleep(30)
    cluster.rules.clear()
    assert await write == Written(stored=3)
    assert cluster.sizes[0] == 3
    assert set(cluster.sizes[1:]) == {1}
    assert cluster.counted["bulk_retries busy"] == len(cluster.sizes) - 1


async def test_pauses_grow_up_to_the_limit_and_are_random(cluster, monkeypatch):
    limits: list[float] = []

    def uniform(_: float, most: float) -> float:
        limits.append(most)
        return most

    monkeypatch.setattr("random.uniform", uniform)
    cluster.failure = Failed(Kind.AWAY, "connection refused")
    write = asyncio.create_task(cluster.write("a1"))
    await asyncio.sleep(60)
    assert limits[:6] == [1, 2, 4, 8, 8, 8]
    write.cancel()


# --- outages ---


@pytest.mark.parametrize("kind", [Kind.AWAY, Kind.BUSY, Kind.DENIED, Kind.ODD])
async def test_while_nothing_is_taken_everything_waits(cluster, caplog, kind):
    caplog.set_level(logging.INFO)
    cluster.failure = Failed(kind, "reason why")
    cluster.health.waiting = 3
    writes = [asyncio.create_task(cluster.write(f"a{n}")) for n in range(3)]
    await asyncio.sleep(150)
    assert cluster.health.blocked == "reason why"
    assert not any(write.done() for write in writes)
    cluster.failure = None
    assert [each.stored for each in await asyncio.gather(*writes)] == [1, 1, 1]
    assert cluster.health.blocked is None
    assert cluster.gauges == [1, 0]
    first, *again, last = [record.getMessage() for record in caplog.records]
    assert first == "output es takes nothing: reason why. It is tried again; inputs wait"
    assert len(again) == 2
    assert "3 documents wait" in again[0]
    assert last.startswith("output es takes documents again, after 15")


async def test_the_end_of_an_outage_wakes_all_who_wait(cluster):
    cluster.failure = Failed(Kind.AWAY, "gone")
    writes = [asyncio.create_task(cluster.write(f"a{n}")) for n in range(20)]
    await asyncio.sleep(100)
    cluster.failure = None
    await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
    recovered = now()
    await asyncio.gather(*writes)
    assert now() - recovered < 0.1


async def test_one_failure_among_successes_is_no_outage(cluster):
    async with cluster.traffic():
        await asyncio.sleep(1)
        cluster.failure = Failed(Kind.BUSY, "503")
        await asyncio.sleep(0.2)
        cluster.failure = None
        await asyncio.sleep(10)
        assert cluster.gauges == []


async def test_an_overloaded_cluster_is_an_outage_too(cluster):
    cluster.rules["a"] = BUSY
    write = asyncio.create_task(cluster.write("a1"))
    await asyncio.sleep(300)
    assert cluster.health.blocked == "index a: es_rejected_execution_exception: index [a]"
    assert not write.done()
    cluster.rules.clear()
    assert await write == Written(stored=1)


# --- indices that take nothing ---


async def test_a_blocked_index_is_parked_while_its_neighbours_are_stored(cluster):
    cluster.rules["old"] = READ_ONLY
    started = now()
    written = await cluster.write("a1", "old1", "old2")
    assert (written.stored, late(written)) == (1, ["old1", "old2"])
    assert 5 <= now() - started < 6
    assert "index old: cluster_block_exception" in written.late[0][1]
    assert cluster.health.blocked is None


async def test_neighbours_in_another_request_of_the_same_write_count(cluster):
    cluster.rules["old"] = READ_ONLY
    written, slow = Written(), cluster.send

    async def send(request: Request) -> Any:
        await asyncio.sleep(1 if request.sections[0].index == "old" else 0)
        return await slow(request)

    cluster.sender._send = send
    await cluster.sender.store(requests([bulk("a", [("a1", b"{}")]), bulk("old", [("old1", b"{}")])], 1), written)
    assert (written.stored, late(written)) == (1, ["old1"])


async def test_later_documents_of_a_blocked_index_are_parked_at_once(cluster):
    async with cluster.traffic():
        cluster.rules["old"] = READ_ONLY
        await cluster.write("old1")
        started = now()
        assert late(await cluster.write("old2")) == ["old2"]
        assert now() - started < 0.1


async def test_an_index_that_works_again_has_its_time_again(cluster):
    async with cluster.traffic():
        cluster.rules["old"] = READ_ONLY
        await cluster.write("old1")
        cluster.rules.clear()
        assert await cluster.write("old2") == Written(stored=1)
        cluster.rules["old"] = READ_ONLY
        started = now()
        await cluster.write("old3")
        assert now() - started >= 5


async def test_a_block_that_is_lifted_in_time_parks_nothing(cluster):
    async with cluster.traffic():
        cluster.rules["old"] = READ_ONLY
        write = asyncio.create_task(cluster.write("old1", "a1"))
        await asyncio.sleep(3)
        cluster.rules.clear()
        assert await write == Written(stored=2)


async def test_when_the_only_index_is_blocked_everything_waits(cluster):
    cluster.rules["old"] = READ_ONLY
    write = asyncio.create_task(cluster.write("old1"))
    await asyncio.sleep(4)
    assert cluster.health.blocked is None
    await asyncio.sleep(1000)
    assert "index old" in str(cluster.health.blocked)
    assert not write.done()
    await cluster.write("a1")
    assert cluster.health.blocked is None
    assert late(await write) == ["old1"]


async def test_overload_of_one_index_makes_inputs_wait_far_longer_before_it_is_parked(cluster):
    async with cluster.traffic():
        cluster.rules["hot"] = BUSY
        started = now()
        assert late(await cluster.write("hot1")) == ["hot1"]
        assert OVERLOADED_SECONDS <= now() - started < OVERLOADED_SECONDS + 9


# --- documents and requests that are to blame ---


async def test_refused_documents_are_told_once_a_minute_by_reason(cluster, caplog):
    cluster.rules |= {"a1": (400, "parsing"), "a2": (400, "parsing"), "a3": (400, "other")}
    for _ in range(3):
        assert len((await cluster.write("a1", "a2", "a3")).refused) == 3
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "index a refuses documents, they are set aside: parsing: index [a] (2 documents)",
        "index a refuses documents, they are set aside: other: index [a] (1 documents)",
    ]
    await asyncio.sleep(61)
    await cluster.write("a1")
    assert "(5 documents)" in caplog.records[-1].getMessage()


async def test_a_document_that_elasticsearch_fails_on_is_refused_in_the_end(cluster):
    cluster.rules["a2"] = FAULT
    written = await cluster.write("a1", "a2", "a3")
    assert (written.stored, [each.id for each in written.refused]) == (2, ["a2"])
    assert len(cluster.sizes) == FAULTS


async def test_an_index_that_fails_as_a_whole_is_parked_not_refused(cluster):
    async with cluster.traffic():
        cluster.rules["sick"] = FAULT
        written = await cluster.write("sick1", "sick2")
        assert (late(written), written.refused) == (["sick1", "sick2"], [])


async def test_documents_in_the_failure_store_are_counted(cluster):
    async def send(request: Request) -> Fates:
        return Fates(stored=request.count, failure_store=1)

    cluster.sender._send = send
    assert await cluster.write("a1", "a2") == Written(stored=2)
    assert cluster.counted["failure_store"] == 1


class Poisoned(Cluster):
    """Fails requests that hold the document `p1`."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    async def send(self, request: Request) -> Fates:
        if any(id_ == "p1" for section in request.sections for id_, _ in section.pairs()):
            self.sizes.append(request.count)
            await asyncio.sleep(0.5)
            raise Failed(self.kind, "it does not work")
        return await super().send(request)


IDS = [f"p{n}" for n in range(10)]


@pytest.mark.parametrize("kind", [Kind.TOO_LARGE, Kind.MALFORMED])
async def test_a_request_that_is_refused_for_one_document_is_halved_until_it_is_found(kind):
    cluster = Poisoned(kind)
    written = await cluster.write(*IDS)
    assert (written.stored, [each.id for each in written.refused]) == (9, ["p1"])
    assert written.refused[0].reason == "it does not work"


@pytest.mark.parametrize("kind", [Kind.AWAY, Kind.ODD])
async def test_a_request_that_fails_while_others_get_through_is_halved_too(kind):
    cluster = Poisoned(kind)
    async with cluster.traffic():
        written = await cluster.write(*IDS)
    assert written.stored == 9
    assert (late(written), [each.id for each in written.refused]) == (
        (["p1"], []) if kind is Kind.AWAY else ([], ["p1"])
    )


async def test_nothing_is_blamed_while_nobody_gets_through():
    cluster = Poisoned(Kind.ODD)
    write = asyncio.create_task(cluster.write("p1"))
    await asyncio.sleep(1000)
    assert not write.done()
    assert cluster.health.blocked == "it does not work"
    write.cancel()


async def test_a_payload_of_several_requests_is_sent_at_once(cluster):
    written = Written()
    parts = requests([bulk("a", [(f"a{n}", b"{}") for n in range(10)])], 1)
    await cluster.sender.store(parts, written)
    assert written == Written(stored=10)
    assert cluster.times == [0.0] * 10


async def test_cancelling_a_write_leaves_others_alone(cluster):
    cluster.failure = Failed(Kind.AWAY, "gone")
    one, other = asyncio.create_task(cluster.write("a1")), asyncio.create_task(cluster.write("a2"))
    await asyncio.sleep(10)
    one.cancel()
    cluster.failure = None
    assert await other == Written(stored=1)
    assert one.cancelled()

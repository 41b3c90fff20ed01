import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pipeline.chain import Processed
from pipeline.contract import Batch, Documents, Full, Refused, Written, bulk
from pipeline.database import StorageError
from pipeline.delivery import Delivery, Limits
from pipeline.failure import Failure
from pipeline.metrics import Metrics
from pipeline.parked import Entry
from pipeline.storing import merge


class Echo:
    """A chain: each record is a document; `bad` fails, `two` makes two documents, `drop` none, and nothing is no
    record. What is behind a bad record is left for later.
    """

    alive = 1

    def __init__(self) -> None:
        self.asked: list[list[Batch]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def process(self, batches: list[Batch]) -> list[Processed]:
        self.asked.append(batches)
        await self.gate.wait()
        return [self.one(batch) for batch in batches]

    def one(self, batch: Batch) -> Processed:
        result, pairs = Processed(), []
        for n, (record, id_) in enumerate(zip(batch.records(), batch.document_ids(), strict=True)):
            if result.failures:
                result.rest = n
                break
            result.records += record != b""
            result.counts["redactions", "r"] += record != b""
            match record:
                case b"":
                    continue
                case b"bad":
                    result.failures.append(Failure(n, "stage", "Bad: it is", "Traceback"))
                case b"two":
                    pairs += [(f"{id_}.1", record), (f"{id_}.2", record)]
                    result.counts["made", "m"] += 1
                case b"drop":
                    result.counts["dropped", "d"] += 1
                case _:
                    pairs.append((id_, record))
        result.documents = [bulk("index", pairs)] if pairs else []
        return result


@dataclass
class Store:
    """An output, and what it is told to do."""

    stored: dict[str, bytes] = field(default_factory=dict)
    refuse: set[bytes] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    writes: int = 0
    blocked: str | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def write(self, payload: list[Documents]) -> Written:
        await self.gate.wait()
        self.writes += 1
        written = Written()
        for part in payload:
            if part.index in self.late:
                written.late.append((part, "blocked"))
                continue
            for id_, document in part.pairs():
                if document in self.refuse:
                    written.refused.append(Refused(part.index, id_, document, "no"))
                elif id_ in self.stored:
                    written.already += 1
                else:
                    self.stored[id_] = document
                    written.stored += 1
        return written


class Dead:
    def __init__(self) -> None:
        self.letters = []
        self.fail = 0

    async def put(self, letters) -> None:
        if self.fail:
            self.fail -= 1
            raise StorageError("disk full")
        self.letters += letters


class Park:
    def __init__(self) -> None:
        self.parked = []
        self.taken = []

    async def put(self, output, entries) -> None:
        self.parked += [(output, documents.count, reason) for documents, reason in entries]

    async def done(self, keys) -> None:
        self.taken += keys


class Count(Metrics):
    """Metrics of which a test can see what was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def count(self, name, n=1, labels=None) -> None:
        super().count(name, n, labels or {})
        self.counts[name, *(labels or {}).values()] += n


@dataclass
class Rig:
    echo: Echo
    outputs: dict[str, Store]
    dead: Dead
    park: Park
    metrics: Count
    delivery: Delivery


def rig(outputs: int = 1, **limits) -> Rig:
    echo, dead, park, metrics = Echo(), Dead(), Park(), Count()
    stores = {f"out{n}": Store() for n in range(outputs)}
    delivery = Delivery(echo, stores, dead, park, metrics, Limits(**limits))
    return Rig(echo, stores, dead, park, metrics, delivery)


def batch(*records: bytes, identity: str = "x", **more) -> Batch:
    return Batch("in", b"\n".join([*records, b""]), identity, **more)


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


async def test_deliver_returns_when_every_output_has_stored():
    r = rig(outputs=2)
    r.outputs["out1"].gate.clear()
    task = asyncio.create_task(r.delivery.deliver(batch(b"a", b"b")))
    await until(lambda: r.outputs["out0"].writes)
    assert not task.done()
    r.outputs["out1"].gate.set()
    assert (await task).refused == []
    assert r.outputs["out0"].stored == r.outputs["out1"].stored == {"x-0": b"a", "x-2": b"b"}
    assert r.delivery.in_flight_bytes == r.delivery.in_flight_batches == 0


async def test_what_happened_is_counted_by_input_stage_rule_and_fate():
    r = rig()
    await r.delivery.deliver(batch(b"a", b"bad", b"drop", b"", b"two"))
    await r.delivery.deliver(batch(b"a", b"bad", refuse=True))
    assert r.metrics.counts == {
        ("records", "in"): 7, ("record_bytes", "in"): 22, ("redactions", "r"): 6,
        ("events_dropped", "d"): 1, ("events_dropped", "decode"): 1, ("events_made", "m"): 1,
        ("set_aside", "stage"): 1, ("records_refused", "in"): 1,
        ("documents", "out0", "stored"): 3, ("documents", "out0", "already"): 1, ("documents", "out0", "dropped"): 2,
        ("documents", "out0", "set_aside"): 1, ("documents", "out0", "refused"): 1,
    }  # fmt: skip


async def test_a_failed_record_is_set_aside_with_its_bytes_before_deliver_returns():
    r = rig()
    outcome = await r.delivery.deliver(batch(b"a", b"bad", origin={"host.name": "h"}))
    assert outcome.refused == []
    [letter] = r.dead.letters
    assert (letter.id, letter.input, letter.record, letter.stage) == ("x-2", "in", b"bad", "stage")
    assert (letter.reason, letter.traceback, letter.origin) == ("Bad: it is", "Traceback", {"host.name": "h"})


async def test_an_input_that_asked_for_it_is_told_which_records_failed_instead():
    r = rig()
    outcome = await r.delivery.deliver(batch(b"a", b"bad", refuse=True))
    assert outcome.refused == [(1, "Bad: it is")]
    assert r.dead.letters == []


async def test_a_refused_document_is_set_aside_with_its_record_document_and_output():
    r = rig()
    r.outputs["out0"].refuse = {b"b", b"two"}
    await asyncio.gather(r.delivery.deliver(batch(b"a", b"b")), r.delivery.deliver(batch(b"c", b"two", identity="y")))
    found = {(each.id, each.record, each.document, each.output, each.index, each.reason) for each in r.dead.letters}
    assert found == {
        ("x-2", b"b", b"b", "out0", "index", "no"),
        ("y-2.1", b"two", b"two", "out0", "index", "no"),
        ("y-2.2", b"two", b"two", "out0", "index", "no"),
    }


async def test_a_full_disk_makes_deliver_wait_and_nothing_is_lost(caplog):
    r = rig()
    r.dead.fail = 1
    await r.delivery.deliver(batch(b"bad"))
    assert len(r.dead.letters) == 1
    assert "disk full" in caplog.text


async def test_what_is_late_is_parked_before_deliver_returns():
    r = rig()
    r.outputs["out0"].late = {"index"}
    await r.delivery.deliver(batch(b"a", b"b"))
    assert r.park.parked == [("out0", 2, "blocked")]
    assert r.metrics.counts["documents", "out0", "parked"] == 2


async def test_an_output_that_does_not_store_while_another_does_has_its_documents_parked(caplog):
    r = rig(outputs=2, park_after=0.01)
    r.outputs["out1"].gate.clear()
    await r.delivery.deliver(batch(b"a"))
    assert r.outputs["out0"].stored == {"x-0": b"a"}
    assert r.park.parked == [("out1", 1, "output out1 has not stored it within 0.01 s")]


async def test_when_no_output_stores_nothing_is_parked_and_the_input_waits():
    r = rig(outputs=2, park_after=0.01)
    for store in r.outputs.values():
        store.gate.clear()
        store.blocked = "connection refused"
    task = asyncio.create_task(r.delivery.deliver(batch(b"a")))
    await asyncio.sleep(0.05)
    assert not task.done()
    assert not r.park.parked
    for store in r.outputs.values():
        store.gate.set()
    await task


async def test_small_batches_that_come_while_runs_are_under_way_go_together():
    r = rig(runs=1)
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(b"%d" % n, identity=str(n)))) for n in range(50)]
    await until(lambda: r.echo.asked and r.delivery.in_flight_batches == 50)
    r.echo.gate.set()
    await asyncio.gather(*tasks)
    assert [len(batches) for batches in r.echo.asked] == [1, 49]
    assert r.outputs["out0"].writes == 2
    assert len(r.outputs["out0"].stored) == 50


async def test_batches_are_put_together_only_up_to_a_size():
    r = rig(runs=1, run_bytes=600)  # a tiny record counts for 256
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(b"1234", identity=str(n)))) for n in range(5)]
    await until(lambda: r.delivery.in_flight_batches == 5)
    r.echo.gate.set()
    await asyncio.gather(*tasks)
    assert [len(batches) for batches in r.echo.asked] == [1, 2, 2]


async def test_cancelling_one_deliver_leaves_it_and_its_neighbours_under_way():
    r = rig(runs=1)
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(b"1", identity=str(n)))) for n in range(3)]
    await until(lambda: r.delivery.in_flight_batches == 3)
    tasks[1].cancel()
    await asyncio.sleep(0)
    r.echo.gate.set()
    await asyncio.gather(tasks[0], tasks[2])
    await r.delivery.drain()
    assert len(r.outputs["out0"].stored) == 3
    assert r.delivery.in_flight_bytes == 0


async def test_what_is_in_flight_is_bounded_in_bytes():
    r = rig(bytes=600)  # a tiny record counts for 256
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(b"1234", identity=str(n)))) for n in range(2)]
    await until(lambda: r.delivery.in_flight_bytes == 10)
    with pytest.raises(Full) as full:
        await r.delivery.deliver(batch(b"1234"), wait=False)
    assert full.value.retry_after > 0
    tasks.append(asyncio.create_task(r.delivery.deliver(batch(b"1234", identity="z"))))
    await asyncio.sleep(0.01)
    assert r.delivery.in_flight_bytes == 10
    r.echo.gate.set()
    await asyncio.gather(*tasks)
    assert r.delivery.in_flight_bytes == 0
    assert len(r.outputs["out0"].stored) == 3


async def test_an_input_that_has_nothing_in_flight_is_let_in_beside_one_that_takes_all_room():
    r = rig(bytes=600)  # a tiny record counts for 256
    r.echo.gate.clear()
    greedy = [asyncio.create_task(r.delivery.deliver(batch(b"1234", identity=str(n)))) for n in range(5)]
    await until(lambda: r.delivery.in_flight_bytes == 10)
    modest = asyncio.create_task(r.delivery.deliver(Batch("other", b"1\n", "y"), wait=False))
    await until(lambda: r.delivery.in_flight_bytes == 12)
    r.echo.gate.set()
    await asyncio.gather(modest, *greedy)


async def test_inputs_are_served_in_turn_however_much_waits_of_one():
    r = rig(run_bytes=1000, bytes=1 << 20)
    r.echo.gate.clear()
    flood = [asyncio.create_task(r.delivery.deliver(batch(b"x" * 900, identity=str(n)))) for n in range(20)]
    await until(lambda: len(r.echo.asked) == 1)
    few = asyncio.create_task(r.delivery.deliver(Batch("other", b"y\n", "y")))
    await until(lambda: r.delivery.in_flight_batches == 21)
    r.echo.gate.set()
    await few
    assert not all(task.done() for task in flood)
    asked = [[each.input for each in batches] for batches in r.echo.asked]
    assert asked.index(["other"]) <= 2
    await asyncio.gather(*flood)


async def test_a_large_batch_is_processed_in_pieces_and_told_of_as_a_whole():
    r = rig(run_bytes=512)
    outcome = await r.delivery.deliver(batch(*[b"a", b"bad", b"b"] * 4, refuse=True))
    asked = [each.block.split() for [each] in r.echo.asked]
    in_pieces = [[b"a", b"bad"], [b"b", b"a"], [b"bad", b"b"]] * 2
    assert sorted(asked) == sorted([*in_pieces, [b"b"], [b"b"]])  # each of the last two behind a bad record
    assert [refusal.record for refusal in outcome.refused] == [1, 4, 7, 10]
    assert len(r.outputs["out0"].stored) == 8
    assert r.delivery.in_flight_bytes == 0


async def test_a_batch_with_bad_records_lets_others_pass_before_its_rest_is_looked_at():
    r = rig()
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(*[b"bad", b"a"] * 3, refuse=True)))]
    await until(lambda: r.echo.asked)
    tasks += [asyncio.create_task(r.delivery.deliver(batch(b"good", identity=str(n)))) for n in range(2)]
    await until(lambda: r.delivery.in_flight_batches == 3)
    r.echo.gate.set()
    outcome, *_ = await asyncio.gather(*tasks)
    asked = [[each.block.split()[0] for each in batches] for batches in r.echo.asked]
    assert asked == [[b"bad"], [b"good", b"good"], [b"a"], [b"a"], [b"a"]]
    assert [refusal.record for refusal in outcome.refused] == [0, 2, 4]
    assert len(r.outputs["out0"].stored) == 5
    assert r.delivery.in_flight_bytes == 0


async def test_what_may_be_nothing_but_bad_records_lets_others_pass_but_not_all():
    r = rig(run_bytes=1000, bytes=1 << 20)
    r.echo.gate.clear()
    bad = asyncio.create_task(r.delivery.deliver(batch(b"bad", b"bad", b"bad", refuse=True)))
    await until(lambda: r.echo.asked)
    others = [asyncio.create_task(r.delivery.deliver(batch(b"x" * 900, identity=str(n)))) for n in range(10)]
    await until(lambda: r.delivery.in_flight_batches == 11)
    r.echo.gate.set()
    await asyncio.gather(bad, *others)
    assert "".join("b" if b"bad" in each.block else "x" for [each] in r.echo.asked) == "bxxxbxxxxbxxx"


async def test_of_batches_that_went_together_those_behind_a_bad_one_have_another_turn():
    r = rig()
    given = [batch(*records, ids=[*map(bytes.decode, records)]) for records in ([b"1"], [b"bad", b"2"], [b"3"], [b"4"])]
    r.echo.gate.clear()
    tasks = [asyncio.create_task(r.delivery.deliver(batch(b"0")))]
    await until(lambda: r.echo.asked)
    tasks += [asyncio.create_task(r.delivery.deliver(each)) for each in given]
    await until(lambda: r.delivery.in_flight_batches == 5)
    r.echo.gate.set()
    await asyncio.gather(*tasks)
    asked = [[each.block for each in batches] for batches in r.echo.asked]
    assert asked == [[b"0\n"], [b"1\nbad\n2\n3\n4\n"], [b"2\n"], [b"3\n"], [b"4\n"]]
    assert {*r.outputs["out0"].stored} == {"x-0", "1", "2", "3", "4"}
    assert [letter.id for letter in r.dead.letters] == ["bad"]


async def test_a_good_batch_does_not_wait_until_its_neighbours_bad_records_are_set_aside():
    r = rig(runs=1)
    r.echo.gate.clear()
    room, put = asyncio.Event(), r.dead.put

    async def slow(letters) -> None:
        await room.wait()
        await put(letters)

    r.dead.put = slow
    first = asyncio.create_task(r.delivery.deliver(batch(b"first")))
    await until(lambda: r.echo.asked)
    bad = asyncio.create_task(r.delivery.deliver(batch(b"bad", identity="y")))
    good = asyncio.create_task(r.delivery.deliver(batch(b"good", identity="z")))
    await until(lambda: r.delivery.in_flight_batches == 3)
    r.echo.gate.set()
    await asyncio.gather(first, good)
    assert not bad.done()
    room.set()
    await bad
    assert [letter.record for letter in r.dead.letters] == [b"bad"]


async def test_a_batch_larger_than_all_room_goes_alone():
    r = rig(bytes=3)
    await r.delivery.deliver(batch(b"123456"))
    assert r.outputs["out0"].stored


async def test_an_empty_batch_is_acknowledged_at_once():
    r = rig()
    assert (await r.delivery.deliver(Batch("in", b"", "x"))).refused == []
    assert not r.echo.asked


async def test_an_error_of_an_output_reaches_everybody_who_waits_and_room_is_freed():
    r = rig()

    async def broken(payload):
        raise RuntimeError("a bug")

    r.outputs["out0"].write = broken
    with pytest.raises(RuntimeError, match="a bug"):
        await r.delivery.deliver(batch(b"a"))
    await r.delivery.drain()
    assert r.delivery.in_flight_bytes == 0


async def test_what_is_abandoned_is_not_acknowledged():
    r = rig()
    r.echo.gate.clear()
    task = asyncio.create_task(r.delivery.deliver(batch(b"a")))
    await until(lambda: r.echo.asked)
    r.delivery.abandon()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_parked_documents_are_written_set_aside_or_stay_late():
    r = rig()
    store = r.outputs["out0"]
    store.refuse = {b"b"}
    entries = [Entry(n, bulk("index", [(f"i{n}", document)]), "why", 0.0) for n, document in enumerate([b"a", b"b"])]
    assert await r.delivery.storing.write_parked("out0", store, entries) == set()
    assert store.stored == {"i0": b"a"}
    assert [(each.id, each.document, each.record) for each in r.dead.letters] == [("i1", b"b", b"")]
    assert r.park.taken == [0, 1]
    store.late = {"index"}
    assert await r.delivery.storing.write_parked("out0", store, entries) == {"index"}
    assert r.park.taken == [0, 1]


def test_documents_of_one_index_are_merged():
    merged = merge([bulk("a", [("1", b"x")]), bulk("b", [("2", b"y")]), bulk("a", [("3", b"z")])])
    assert [(part.index, part.count, list(part.pairs())) for part in merged] == [
        ("a", 2, [("1", b"x"), ("3", b"z")]),
        ("b", 1, [("2", b"y")]),
    ]

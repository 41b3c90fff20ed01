import asyncio
import random
from contextlib import contextmanager, suppress
from unittest import mock

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch, Documents, Full, Refused, Written, bulk
from pipeline.delivery import Delivery, Limits
from pipeline.ledger import Account, Ledger
from pipeline.metrics import Metrics
from pipeline.parked import Entry
from tests.balance import assert_balanced, assert_samples_balanced
from tests.test_delivery import Dead, Echo, Park


def check(metrics: Metrics) -> dict:
    return assert_samples_balanced(
        (sample.name, sample.labels, sample.value) for family in metrics.collect() for sample in family.samples
    )


def take(ledger: Ledger, *records: bytes) -> Account:
    batch = Batch("in", b"\n".join([*records, b""]), "x")
    ledger.take(batch, len(batch))
    return Account(ledger, len(batch))


def test_what_comes_in_is_in_flight_to_every_output_until_it_has_its_fate_there():
    metrics = Metrics()
    ledger = Ledger(metrics, {"a": 1, "b": 1})
    account = take(ledger, b"1", b"2", b"3")
    assert ledger.in_flight == {"a": 3, "b": 3}
    account.made("split", 2)
    account.decide("refused", 1)
    assert ledger.in_flight == {"a": 4, "b": 4}
    assert account.begin() == {"a", "b"}
    account.decide_at("a", "stored", 4)
    account.decide_at("b", "parked", 3)
    assert ledger.in_flight == {"a": 0, "b": 1}
    account.close()
    metrics.count("records_refused", 1, {"input": "in"})
    assert assert_balanced(metrics.render().decode()) == {
        "a": {"refused": 1, "stored": 4},
        "b": {"refused": 1, "parked": 3, "given_up": 1},
    }


def test_a_parked_document_that_is_stored_at_last_comes_in_once_more():
    metrics = Metrics()
    ledger = Ledger(metrics, {"a": 1})
    account = take(ledger, b"1")
    account.begin()
    account.decide_at("a", "parked", 1)
    ledger.unparked("a", {"stored": 1, "already": 2})
    assert check(metrics) == {"a": {"parked": 1, "stored": 1, "already": 2}}


def test_an_output_that_a_reload_adds_begins_with_what_is_not_on_its_way_yet():
    metrics, outputs = Metrics(), {"a": 1}
    ledger = Ledger(metrics, outputs)
    first, second = take(ledger, b"1", b"2"), take(ledger, b"3")
    assert first.begin() == {"a"}
    outputs["b"] = 1
    assert second.begin() == {"a", "b"}
    assert ledger.in_flight == {"a": 3, "b": 1}
    assert check(metrics)["b"] == {"before": 2}
    del outputs["b"]
    take(ledger, b"4")
    assert 'in_flight_records{output="b"}' not in metrics.render().decode()
    second.decide_at("b", "stored", 1)
    outputs["b"] = 1
    take(ledger, b"5")
    assert check(metrics)["b"] == {"before": 2, "stored": 1}
    assert ledger.in_flight == {"a": 5, "b": 2}


@pytest.mark.parametrize(
    ("name", "labels"), [("records", {"input": "in"}), ("documents", {"output": "a", "fate": "stored"})]
)
def test_the_check_itself_notices_a_single_missing_record(name, labels):
    metrics = Metrics()
    account = take(Ledger(metrics, {"a": 1}), b"1", b"2")
    account.begin()
    account.decide_at("a", "already", 1)
    check(metrics)
    metrics.count(name, 1, labels)
    with pytest.raises(AssertionError, match="output a: "):
        check(metrics)


class Moody:
    """An output that does with each write, and each document, whatever it likes, and takes its time for it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.blocked = chance, None

    async def write(self, payload: list[Documents]) -> Written:
        chance, written = self.chance, Written()
        self.blocked = chance.choice([None, None, "it is away"])
        await asyncio.sleep(chance.choice([0, 0, 0.1, 5, 100]))
        if chance.random() < 0.05:
            raise RuntimeError("a bug")
        for part in payload:
            if chance.random() < 0.2:
                written.late.append((part, "blocked"))
                continue
            for id_, document in part.pairs():
                match chance.randrange(4):
                    case 0:
                        written.refused.append(Refused(part.index, id_, document, "no"))
                    case 1:
                        written.already += 1
                    case _:
                        written.stored += 1
        return written


class Life:
    """A delivery with everything that may happen to it, in virtual time."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.metrics = chance, Metrics()
        self.outputs = {f"out{n}": Moody(chance) for n in range(chance.randint(1, 3))}
        self.dead = Dead()
        limits = Limits(bytes=100, run_bytes=30, runs=3, park_after=1.0)
        self.delivery = Delivery(Echo(), self.outputs, self.dead, Park(), self.metrics, limits)

    async def run(self, lots: list[list[bytes]]) -> None:
        tasks = [asyncio.create_task(self.deliver(n, lot)) for n, lot in enumerate(lots)]
        while self.chance.random() < 0.8:
            await asyncio.sleep(self.chance.choice([0, 0.1, 3]))
            await self.happen(tasks)
        given_up = self.chance.random() < 0.2
        if given_up:  # as at the deadline of a stop: what has not begun is forgotten with the process
            for task in tasks:
                task.cancel()
            self.delivery.abandon()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.delivery.drain()
        assert given_up or {*self.delivery._ledger.in_flight.values()} == {0}

    async def deliver(self, n: int, lot: list[bytes]) -> None:
        batch = Batch("in", b"\n".join([*lot, b""]), str(n), refuse=self.chance.random() < 0.3)
        with suppress(RuntimeError, Full):
            await self.delivery.deliver(batch, wait=self.chance.random() < 0.9)

    async def happen(self, tasks: list[asyncio.Task]) -> None:
        match self.chance.randrange(4):
            case 0 if tasks:
                self.chance.choice(tasks).cancel()
            case 1:
                self.dead.fail = 2
            case 2:  # a reload
                if len(self.outputs) > 1 and self.chance.random() < 0.5:
                    del self.outputs[self.chance.choice([*self.outputs])]
                else:
                    self.outputs[f"out{self.chance.randrange(4)}"] = Moody(self.chance)
            case _:
                name, output = self.chance.choice([*self.outputs.items()])
                documents = bulk("index", [("a", b"x"), ("b", b"y")])
                with suppress(RuntimeError):
                    await self.delivery.storing.write_parked(name, output, [Entry(1, documents, "blocked", 0.0)])


@contextmanager
def checked_each_turn(metrics: Metrics):
    """Have the ledger checked after each turn of the event loop."""
    run, found = asyncio.events.Handle._run, []

    def and_check(handle: asyncio.Handle) -> None:
        run(handle)
        try:
            check(metrics)
        except AssertionError as error:  # raised here, it would end the loop, and hide itself behind what that breaks
            found.append(error)

    with mock.patch.object(asyncio.events.Handle, "_run", and_check):
        yield
    if found:
        raise found[0]


RECORD = st.sampled_from([b"a", b"b", b"two", b"bad", b"drop", b""])


@given(st.lists(st.lists(RECORD, min_size=1, max_size=6), max_size=12), st.integers())
def test_the_sum_comes_out_after_every_turn_of_the_event_loop(lots, seed):
    life = Life(random.Random(seed))
    with checked_each_turn(life.metrics), asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(life.run(lots))

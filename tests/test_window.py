"""Batches under way, positions in the order read."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch, Outcome
from pipeline.window import Window


def batch(n: int) -> Batch:
    return Batch("in", b"%d\n" % n, "identity", base=n)


class Delivery:
    """A deliver of which each batch ends when the test says so."""

    def __init__(self) -> None:
        self.under_way: dict[int, asyncio.Future[Outcome]] = {}
        self.taken: list[int] = []

    async def __call__(self, batch: Batch, *, wait: bool = True) -> Outcome:
        self.taken.append(batch.base)
        future = self.under_way[batch.base] = asyncio.get_running_loop().create_future()
        outcome: Outcome = await future
        return outcome

    async def end(self, n: int, error: BaseException | None = None) -> None:
        await turn()
        if error:
            self.under_way[n].set_exception(error)
        else:
            self.under_way[n].set_result(Outcome())
        await turn()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def delivery() -> Delivery:
    return Delivery()


@pytest.fixture
def committed() -> list[int]:
    return []


@pytest.fixture
async def window(delivery: Delivery, committed: list[int]) -> AsyncIterator[Window[int]]:
    window = Window(delivery, committed.append, 3)
    yield window
    window.cancel()


async def test_positions_are_committed_in_the_order_read_whatever_ends_first(window, delivery, committed):
    for n in range(3):
        window.submit(batch(n), n)
    await delivery.end(2)
    await delivery.end(1)
    assert committed == []
    await delivery.end(0)
    assert committed == [0, 1, 2]
    assert len(window) == 0


async def test_read_ahead_stays_bounded_behind_a_head_that_hangs(window, delivery, committed):
    submitted = 0

    async def read() -> None:
        nonlocal submitted
        for n in range(100):
            await window.room()
            window.submit(batch(n), n)
            submitted += 1

    reading = asyncio.create_task(read())
    await turn()
    for n in (1, 2):  # done, but behind the head: they free no room
        await delivery.end(n)
    assert submitted == 3
    assert committed == []
    await delivery.end(0)
    assert committed == [0, 1, 2]
    assert submitted == 6
    reading.cancel()


async def test_a_failed_delivery_is_raised_to_who_waits_for_room(window, delivery):
    for n in range(3):
        window.submit(batch(n), n)
    waiting = asyncio.create_task(window.room())
    await delivery.end(1, OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        await waiting


async def test_nothing_behind_a_failed_delivery_is_committed(window, delivery, committed):
    for n in range(3):
        window.submit(batch(n), n)
    await delivery.end(2)
    await delivery.end(1, OSError("disk full"))
    await delivery.end(0)
    assert committed == [0]
    with pytest.raises(OSError, match="disk full"):
        window.has_room()


async def test_draining_waits_for_all_that_is_under_way(window, delivery, committed):
    for n in range(2):
        window.submit(batch(n), n)
    draining = asyncio.create_task(window.drain())
    await delivery.end(1)
    assert not draining.done()
    await delivery.end(0)
    await draining
    assert committed == [0, 1]


async def test_draining_an_empty_window_is_done_at_once(window):
    await window.drain()


async def test_draining_raises_a_failure_without_waiting_for_the_rest(window, delivery):
    for n in range(2):
        window.submit(batch(n), n)
    draining = asyncio.create_task(window.drain())
    await delivery.end(1, OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        await draining


async def test_a_delivery_that_somebody_cancels_counts_as_failed(window, delivery, committed):
    window.submit(batch(0), 0)
    await turn()
    delivery.under_way[0].cancel()
    await turn()
    assert committed == []
    with pytest.raises(RuntimeError, match="cancelled"):
        window.has_room()


async def test_what_is_given_up_is_cancelled_and_never_committed(window, delivery, committed):
    window.submit(batch(0), 0)
    await turn()
    window.cancel()
    await turn()
    assert delivery.under_way[0].cancelled()
    assert committed == []
    assert window.has_room()


async def test_it_says_when_a_delivery_ended_and_how(delivery):
    ended: list[BaseException | None] = []
    window: Window[int] = Window(delivery, lambda _: None, 3, ended.append)
    failure = OSError("disk full")
    for n in range(2):
        window.submit(batch(n), n)
    await delivery.end(0)
    await delivery.end(1, failure)
    assert ended == [None, failure]


@given(st.integers(1, 8).flatmap(lambda n: st.permutations(range(n))))
def test_in_any_order_of_ends_exactly_the_beginning_that_is_done_is_committed(order):
    async def check() -> None:
        delivery, committed = Delivery(), list[int]()
        window = Window(delivery, committed.append, len(order))
        for n in range(len(order)):
            window.submit(batch(n), n)
        done: set[int] = set()
        for n in order:
            await delivery.end(n)
            done.add(n)
            prefix = next(i for i in range(len(order) + 1) if i not in done)
            assert committed == list(range(prefix))

    asyncio.run(check())

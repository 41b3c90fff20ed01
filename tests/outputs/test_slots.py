import asyncio

import pytest

from pipeline.outputs._slots import Slots

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_no_more_requests_than_allowed_are_under_way():
    slots, busy, most = Slots(3, 10, lambda _: None), 0, 0

    async def request() -> None:
        nonlocal busy, most
        async with slots:
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(1)
            busy -= 1

    await asyncio.gather(*(request() for _ in range(10)))
    assert (most, now()) == (3, 4)


async def test_too_much_halves_once_for_all_that_was_under_way_and_good_answers_add_one_a_round():
    seen: list[int] = []
    slots = Slots(8, 10, seen.append)
    sent = now()
    await asyncio.sleep(1)
    for _ in range(8):
        slots.judge(sent, good=False)
    assert slots.limit == 4
    for _ in range(5):
        slots.judge(now(), good=True)
    assert slots.limit == 5
    for _ in range(100):
        slots.judge(now(), good=True)
    assert slots.limit == 8
    assert seen == [8, 4, 5, 6, 7, 8]


async def test_one_request_is_always_allowed():
    slots = Slots(4, 10, lambda _: None)
    for _ in range(10):
        slots.judge(now(), good=False)
        await asyncio.sleep(1)
    assert slots.limit == 1
    async with slots:
        pass


async def test_a_slow_answer_counts_as_too_much():
    slots = Slots(4, 10, lambda _: None)
    sent = now()
    await asyncio.sleep(11)
    slots.judge(sent, good=True)
    assert slots.limit == 2


async def test_who_is_cancelled_when_it_is_its_turn_lets_the_next_one_go():
    slots = Slots(1, 10, lambda _: None)

    async def request() -> None:
        async with slots:
            await asyncio.sleep(1)

    first, second, third = (asyncio.create_task(request()) for _ in range(3))
    await asyncio.sleep(0)
    first.add_done_callback(lambda _: second.cancel())
    await third
    assert second.cancelled()
    assert now() == 2

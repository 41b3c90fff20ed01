import asyncio
from array import array

import pytest

from pipeline.contract import Batch, Outcome
from pipeline.replay.pace import Pace


class Sink:
    def __init__(self) -> None:
        self.batches: list[Batch] = []

    async def __call__(self, batch: Batch, *, wait: bool = True) -> Outcome:
        self.batches.append(batch)
        return Outcome()

    @property
    def ids(self) -> list[str]:
        return [id_ for batch in self.batches for id_ in batch.document_ids()]


BATCH = Batch("app", b"".join(b"%d\r\n\n" % n for n in range(50)), "x", base=7)


async def test_without_rate_and_limit_batches_pass_as_they_are():
    sink = Sink()
    await Pace(sink, None, None, lambda: None).deliver(BATCH)
    assert sink.batches == [BATCH]


@pytest.mark.looptime
async def test_a_rate_is_kept_and_ids_stay(looptime):
    sink = Sink()
    pace = Pace(sink, 10.0, None, lambda: None)
    await asyncio.gather(pace.deliver(BATCH), pace.deliver(BATCH))
    assert 19.8 < looptime <= 20
    assert sorted(sink.ids) == sorted(BATCH.document_ids() * 2)


@pytest.mark.looptime
async def test_with_a_rate_the_batch_that_came_first_is_done_first():
    pace, done = Pace(Sink(), 10.0, None, lambda: None), []

    async def deliver(n: int) -> None:
        await pace.deliver(BATCH)
        done.append((n, round(asyncio.get_running_loop().time())))

    await asyncio.gather(*(deliver(n) for n in range(3)))
    assert done == [(0, 10), (1, 20), (2, 30)]


@pytest.mark.looptime
async def test_one_that_is_cancelled_leaves_its_turn_to_the_next():
    pace = Pace(Sink(), 10.0, None, lambda: None)
    for moment in (0, 0.05, 0.1, 0.15):
        tasks = [asyncio.create_task(pace.deliver(BATCH.slice(0, 5))) for _ in range(3)]
        await asyncio.sleep(moment)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait_for(tasks[2], 5)


async def test_a_limit_ends_within_a_batch_and_says_so():
    sink, said = Sink(), []
    pace = Pace(sink, None, 70, lambda: said.append(1))
    await pace.deliver(BATCH)
    assert said == [1]
    await pace.deliver(BATCH)
    assert sink.ids == BATCH.document_ids()[:70]
    assert said == [1]


def test_a_slice_is_the_same_records_under_the_same_ids():
    ends, numbers = array("Q", [2, 2, 5, 9]), [3, 4, 8, 9]
    for batch in (
        BATCH,
        Batch("app", b"a\n\nb", "x"),
        Batch("app", b"aabbbcccc", "x", base=5, ends=ends),
        Batch("app", b"aabbbcccc", "x", ends=ends, positions=numbers),
        Batch("app", b"aabbbcccc", "x", ends=ends, ids=["p", "q", "r", "s"]),
    ):
        for start in range(len(batch.records())):
            for end in range(start + 1, len(batch.records()) + 1):
                part = batch.slice(start, end)
                assert part.records() == batch.records()[start:end]
                assert part.document_ids() == batch.document_ids()[start:end]

import asyncio
from typing import Any

import pytest

from pipeline.contract import Documents, Written
from pipeline.swap import SwapOutput, SwapProcessor, Use

PAYLOAD = [Documents("logs", b"", 3)]


class Part:
    """An output and a processor that does things when it is let."""

    def __init__(self) -> None:
        self.let, self.began = asyncio.Event(), 0
        self.told: list[str] = []
        self.blocked = None

    async def start(self) -> None:
        self.told.append("start")

    async def stop(self) -> None:
        self.told.append("stop")

    async def write(self, payload) -> Written:
        self.began += 1
        await self.let.wait()
        return Written(stored=payload[0].count)

    async def process(self, batches):
        self.began += 1
        await self.let.wait()
        return [self]


async def begun(work):
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_what_began_with_the_old_processor_ends_there_before_it_is_stopped():
    old, new = Part(), Part()
    processor = SwapProcessor(Use(old))
    await processor.start()
    before = await begun(processor.process([]))
    use, processor.use = processor.use, Use(new)
    new.let.set()
    results: Any = await processor.process([])
    assert results == [new]
    retiring = await begun(use.retire(None))
    assert old.told == ["start"]
    old.let.set()
    results = await before
    assert results == [old]
    assert await retiring == 0
    assert old.told == ["start", "stop"]


async def test_what_a_replaced_output_has_not_stored_in_time_is_late():
    old = Part()
    output = SwapOutput(Use(old))
    await output.start()
    writing = await begun(output.write(PAYLOAD))
    assert await output.use.retire(0) == 1
    [(documents, reason)] = (await writing).late
    assert documents is PAYLOAD[0]
    assert "replaced by a reload" in reason
    assert old.told == ["start", "stop"]


async def test_a_write_that_is_cancelled_is_cancelled():
    old = Part()
    output = SwapOutput(Use(old))
    writing = await begun(output.write(PAYLOAD))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await output.use.retire(0) == 0


async def test_a_successor_writes_when_its_turn_has_come():
    old, new = Part(), Part()
    output, successor = SwapOutput(Use(old)), Use(new)
    successor.turn.clear()
    output.use = successor
    new.let.set()
    writing = await begun(output.write(PAYLOAD))
    assert not new.began
    successor.turn.set()
    assert (await writing).stored == 3


async def test_what_waited_for_a_successor_that_did_not_come_goes_to_the_one_before():
    old, new = Part(), Part()
    output, successor = SwapOutput(Use(old)), Use(new)
    before, output.use = output.use, successor
    successor.turn.clear()
    old.let.set()
    writing = await begun(output.write(PAYLOAD))
    output.use = before
    successor.turn.set()
    assert (await writing).stored == 3
    assert (old.began, new.began) == (1, 0)


async def test_what_was_not_started_is_not_stopped():
    old = Part()
    await SwapOutput(Use(old)).stop()
    await SwapProcessor(Use(old)).stop()
    assert old.told == []

"""What stands behind an input in its tests."""

import asyncio

from pipeline.contract import Outcome


class Deliveries:
    """Takes batches; while `gate` is closed, they stay under way, and where there is an `error`, they fail."""

    def __init__(self):
        self.batches, self.gate, self.came = [], asyncio.Event(), asyncio.Event()
        self.gates: dict[bytes, asyncio.Event] = {}  # for blocks that have one of their own
        self.error = None
        self.gate.set()

    async def __call__(self, batch, *, wait=True):
        self.batches.append(batch)
        self.came.set()
        await self.gates.get(batch.block, self.gate).wait()
        if self.error:
            raise self.error
        return Outcome()

    @property
    def records(self):
        return [record for batch in self.batches for record in batch.records()]

    @property
    def ids(self):
        return [id_ for batch in self.batches for id_ in batch.document_ids()]


async def until(condition):
    """Wait for what is under way; a hang is a failure, a slow machine is not."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)

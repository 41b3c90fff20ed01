"""A file input that is moved by hand, and the files that it reads."""

import asyncio
import gzip
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.contract import Batch, Context, Outcome
from pipeline.inputs._follow import Follow
from pipeline.inputs.file import File


class Store:
    """Positions in memory; what was put is lost with the process until the tick."""

    def __init__(self) -> None:
        self.durable: dict[str, dict[str, Any]] = {}
        self.pending: dict[str, dict[str, Any]] = {}
        self.damaged = False

    def load(self) -> dict[str, dict[str, Any]]:
        return dict(self.durable)

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.pending[key] = value

    def remove(self, key: str) -> None:
        self.pending.pop(key, None)
        self.durable.pop(key, None)

    def tick(self) -> None:
        self.durable |= self.pending
        self.pending.clear()


class Rig:
    """A folder, a state, what was delivered, and a file input that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store()
        self.delivered: list[tuple[str, bytes]] = []
        self.batches: list[Batch] = []
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.options: dict[str, Any] = {"paths": [str(folder / "*.log*")]}
        self.follow: Follow | None = None
        self.clock = time.time_ns() - 3600 * 10**9

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        self.kill()

    async def deliver(self, batch: Batch, *, wait: bool = True) -> Outcome:
        if self.error:
            raise self.error
        await self.gate.wait()
        self.batches.append(batch)
        self.delivered += zip(batch.document_ids(), batch.records(), strict=True)
        return Outcome()

    def context(self, *, once: bool = False) -> Context:
        def gauge(name: str, value: float, labels: Mapping[str, str]) -> None:
            assert labels["input"] == "app"
            self.gauges[name] = value

        def forget(name: str, labels: Mapping[str, str]) -> None:
            self.gauges.pop(name, None)

        def count(name: str, n: int, labels: Mapping[str, str]) -> None:
            assert labels == {"input": "app"}
            self.counts[name] += n

        return Context("app", "host", self.store, gauge, count, once, forget=forget)

    def start(self, *, once: bool = False, **options: Any) -> Follow:
        self.options |= options
        self.follow = Follow(File.Options(**self.options), self.context(once=once), self.deliver)
        return self.follow

    async def step(self) -> list[str]:
        """Look, read all that there is, and wait until it is delivered; what is new."""
        before = len(self.delivered)
        follow = self.follow or self.start()
        follow.stale = True
        while follow.stale:
            await follow.look()
            while await follow.read() or follow.waiting:
                await asyncio.sleep(0)
        await follow.drain()
        return [record.decode() for _, record in self.delivered[before:]]

    async def once(self, **options: Any) -> list[str]:
        """Run the whole input with `once`; what is new."""
        before = len(self.delivered)
        self.options |= options
        await File(File.Options(**self.options), self.context(once=True)).run(self.deliver, asyncio.Event())
        self.store.tick()
        return [record.decode() for _, record in self.delivered[before:]]

    def kill(self, *, tick: bool = True) -> None:
        """End the process; without the tick what was put last is lost."""
        if tick:
            self.store.tick()
        self.store.pending.clear()
        if self.follow:
            self.follow.close()
        self.follow = None

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, data: str | bytes) -> None:
        with self.path(name).open("ab") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        self.touch(name)

    def touch(self, name: str) -> None:
        """Give each write a time of its own, and one in the past: the clock of the file system is coarse."""
        self.clock += 10**7
        os.utime(self.path(name), ns=(self.clock, self.clock))

    def gzip(self, name: str) -> None:
        self.path(name + ".gz").write_bytes(gzip.compress(self.path(name).read_bytes()))
        self.touch(name + ".gz")
        self.path(name).unlink()

    def copytruncate(self, name: str, to: str) -> None:
        shutil.copy(self.path(name), self.path(to))
        self.touch(to)
        os.truncate(self.path(name), 0)
        self.touch(name)


def lines(begin: int, end: int) -> str:
    return "".join(f"line {n}\n" for n in range(begin, end))


def names(begin: int, end: int) -> list[str]:
    return lines(begin, end).splitlines()

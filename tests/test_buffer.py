"""The disk buffer, between an input and a delivery that the test holds in its hands."""

import asyncio
import contextlib
import sqlite3
from array import array
from collections import Counter
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import buffer as module
from pipeline.buffer import NAME, Buffer, Buffers
from pipeline.contract import Batch, Full, Outcome
from pipeline.database import StorageError


class Delivery:
    """Takes batches; while `gate` is closed, they stay under way."""

    def __init__(self):
        self.begun, self.done, self.error = [], [], None
        self.gate = asyncio.Event()

    async def __call__(self, batch, *, wait=True):
        assert wait
        self.begun.append(batch)
        await self.gate.wait()
        if self.error:
            raise self.error
        self.done.append(batch)
        return Outcome()


class Source:
    """An input of which the test is the inside."""

    async def run(self, deliver, stop):
        self.deliver = deliver
        await stop.wait()


class Rig:
    def __init__(self, folder, **limits):
        self.folder, self.limits = folder, {"max_bytes": 1 << 20} | limits
        self.gauges: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self, *, once=False, names=("web",)):
        """The input runs in the block; then it is stopped, or killed where the block ends with the gate closed."""
        buffers = Buffers(self.folder, self.gauge, self.count)
        for name in names:
            buffers.add(name, **self.limits)
        await buffers.start()
        self.source, self.delivery, self.stop = Source(), Delivery(), asyncio.Event()
        self.buffer = cast("Buffer", buffers.get("web"))
        self.task = asyncio.create_task(self.buffer.run(self.source, self.delivery, self.stop, once=once))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            yield
            if self.delivery.gate.is_set():
                self.stop.set()
                async with asyncio.timeout(60):
                    await self.task
        finally:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self.task
            await buffers.stop()

    def gauge(self, name, value, labels):
        self.gauges[name] = value
        assert labels == {"input": "web"}

    def count(self, name, n, labels):
        self.counts[name] += n
        assert labels == {"input": "web"}

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def batch(n=0, size=1):
    return Batch("web", b"%d" % n * size + b"\n", f"id{n}")


def blocks(batches):
    return [each.block for each in batches]


async def test_a_batch_is_taken_when_it_is_on_the_disk_and_then_delivered(rig):
    async with rig.running():
        assert await rig.source.deliver(batch()) == Outcome()
        with contextlib.closing(sqlite3.connect(rig.folder / NAME)) as other:
            assert other.execute("SELECT block FROM batches").fetchall() == [(b"0\n",)]
        assert rig.gauges["buffered_batches"] == 1
        await rig.until(lambda: rig.delivery.begun)
        rig.delivery.gate.set()
        await rig.until(lambda: rig.gauges["buffered_batches"] == 0)
        assert rig.gauges["buffered_bytes"] == 0
        with contextlib.closing(sqlite3.connect(rig.folder / NAME)) as other:
            assert other.execute("SELECT count(*) FROM batches").fetchall() == [(0,)]


async def test_an_empty_batch_is_none(rig):
    async with rig.running():
        await rig.source.deliver(Batch("web", b"", "i"))
        assert rig.buffer.usage.batches == 0


async def test_after_a_crash_what_is_in_it_is_delivered_as_it_was_and_in_order(rig):
    random = Batch(
        "web", b"abcd", "ident", base=7, ends=array("Q", [1, 4]), positions=[3, 9], ids=["x", "y"], origin={"a.b": 1}
    )
    async with rig.running():
        await rig.source.deliver(random)
        for n in range(20):
            await rig.source.deliver(batch(n))
    async with rig.running():
        assert rig.gauges["buffered_batches"] == 21
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 21)
    assert rig.delivery.begun == [random, *map(batch, range(20))]
    async with rig.running():
        rig.delivery.gate.set()
        await rig.source.deliver(batch(99))
        await rig.until(lambda: rig.delivery.done)
    assert blocks(rig.delivery.begun) == [b"99\n"]


async def test_what_was_refused_is_set_aside_since_nobody_hears_of_it(rig):
    async with rig.running():
        rig.delivery.gate.set()
        refusing = batch()
        refusing.refuse = True
        await rig.source.deliver(refusing)
        await rig.until(lambda: rig.delivery.done)
        assert not rig.delivery.done[0].refuse


async def test_a_full_buffer_says_so_or_lets_the_input_wait(rig):
    rig.limits["max_bytes"] = 2000
    async with rig.running():
        await rig.source.deliver(batch(1, 1500))
        with pytest.raises(Full):
            await rig.source.deliver(batch(2, 1500), wait=False)
        waiting = asyncio.create_task(rig.source.deliver(batch(2, 1500)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        rig.delivery.gate.set()
        await waiting
        await rig.until(lambda: len(rig.delivery.done) == 2)


async def test_a_batch_larger_than_the_buffer_goes_in_alone(rig):
    rig.limits["max_bytes"] = 10
    async with rig.running():
        await rig.source.deliver(batch(1, 1500), wait=False)
        with pytest.raises(Full):
            await rig.source.deliver(batch(2), wait=False)


async def test_what_is_being_delivered_is_bounded(rig, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)
    async with rig.running():
        for n in range(6):
            await rig.source.deliver(batch(n))
        await rig.until(lambda: len(rig.delivery.begun) == 3)
        await asyncio.sleep(0.01)
        assert len(rig.delivery.begun) == 3
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 6)


async def test_only_so_many_bytes_are_read_back_at_once(rig, monkeypatch):
    monkeypatch.setattr(module, "_TAKEN", 10)
    async with rig.running():
        for n in range(5):
            await rig.source.deliver(batch(n, 6))
    async with rig.running():
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 5)
    assert blocks(rig.delivery.begun) == [b"%d" % n * 6 + b"\n" for n in range(5)]


async def test_when_stopped_what_is_being_delivered_is_waited_for_and_the_rest_stays(rig, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 1)
    async with rig.running():
        for n in range(3):
            await rig.source.deliver(batch(n))
        await rig.until(lambda: rig.delivery.begun)
        rig.stop.set()
        await asyncio.sleep(0.01)
        assert not rig.task.done()
        rig.delivery.gate.set()
    assert blocks(rig.delivery.done) == [b"0\n"]
    async with rig.running():
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 2)


async def test_with_once_all_that_is_in_it_is_delivered(rig):
    async with rig.running():
        for n in range(3):
            await rig.source.deliver(batch(n))
    async with rig.running(once=True):
        rig.stop.set()
        rig.delivery.gate.set()
    assert len(rig.delivery.done) == 3


async def test_an_error_of_the_delivery_ends_the_input(rig):
    async with rig.running():
        rig.delivery.error = RuntimeError("worker")
        await rig.source.deliver(batch())
        rig.delivery.gate.set()
        with pytest.raises(RuntimeError, match="worker"):
            await rig.task
        rig.delivery.gate.clear()


async def test_an_error_of_the_input_ends_it(rig):
    class Broken(Source):
        async def run(self, deliver, stop):
            raise OSError("no port")

    async with rig.running():
        with pytest.raises(OSError, match="no port"):
            await rig.buffer.run(Broken(), rig.delivery, rig.stop)


async def test_one_that_does_not_wait_any_more_leaves_its_batch_in(rig):
    async with rig.running():
        waiting = asyncio.create_task(rig.source.deliver(batch()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        rig.delivery.gate.set()
        await rig.until(lambda: rig.delivery.done)


async def test_a_disk_that_refuses_is_tried_again_or_told(rig, monkeypatch):
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    async with rig.running():
        write, failures = rig.buffer._database.write, iter([True, True, False])

        async def failing(work):
            if next(failures, False):
                raise StorageError("disk full")
            return await write(work)

        monkeypatch.setattr(rig.buffer._database, "write", failing)
        with pytest.raises(Full):
            await rig.source.deliver(batch(1), wait=False)
        assert rig.buffer.usage.batches == 0
        await rig.source.deliver(batch(2))
        rig.delivery.gate.set()
        await rig.until(lambda: rig.delivery.done)
    assert blocks(rig.delivery.done) == [b"2\n"]


async def test_a_damaged_batch_is_kept_aside_and_counted(rig):
    async with rig.running():
        for n in range(3):
            await rig.source.deliver(batch(n))
    with contextlib.closing(sqlite3.connect(rig.folder / NAME)) as other:
        other.execute("UPDATE batches SET block = X'4242' WHERE block = X'310A'")
        other.commit()
    async with rig.running():
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 2)
        await rig.until(lambda: rig.counts["buffer_damaged"] == 1)
        await rig.until(lambda: rig.gauges["buffered_batches"] == 0)
    with contextlib.closing(sqlite3.connect(rig.folder / NAME)) as other:
        ((content,),) = other.execute("SELECT content FROM damaged_rows").fetchall()
        assert "b'BB'" in content


async def test_a_damaged_file_is_no_reason_not_to_start(rig):
    async with rig.running():
        await rig.source.deliver(batch())
    (rig.folder / NAME).write_bytes(bytes(4096))
    async with rig.running():
        rig.delivery.gate.set()
        await rig.source.deliver(batch(7))
        await rig.until(lambda: b"7\n" in blocks(rig.delivery.done))
    assert list(rig.folder.glob(f"{NAME}.damaged-*"))


async def test_without_a_buffer_there_is_no_file(rig):
    buffers = Buffers(rig.folder, rig.gauge, rig.count)
    await buffers.start()
    await buffers.stop()
    assert buffers.get("web") is None
    assert not list(rig.folder.iterdir())


async def test_batches_of_an_input_without_a_buffer_now_are_told_of(rig, caplog):
    async with rig.running():
        await rig.source.deliver(batch())
    buffers = Buffers(rig.folder, rig.gauge, rig.count)
    await buffers.start()
    await buffers.stop()
    assert "1 batches of input web" in caplog.text


async def test_room_on_the_disk_is_given_back(rig, monkeypatch):
    monkeypatch.setattr("pipeline.batches._FREE_PAGES", 4)
    async with rig.running():
        for n in range(20):
            await rig.source.deliver(batch(n, 20_000))
        rig.delivery.gate.set()
        await rig.until(lambda: len(rig.delivery.done) == 20)
    assert (rig.folder / NAME).stat().st_size < 200_000


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["put", "pass", "kill", "stop"]), max_size=20))
def test_whatever_happens_every_batch_that_was_taken_is_delivered(tmp_path_factory, steps):
    async def play():
        rig, steps_left = Rig(tmp_path_factory.mktemp("buffer")), iter(steps)
        taken: list[bytes] = []
        delivered: list[bytes] = []
        for _ in range(len(steps) + 1):
            async with rig.running():
                for step in steps_left:
                    if step == "put":
                        taken.append(b"%d\n" % len(taken))
                        await rig.source.deliver(Batch("web", taken[-1], "i"))
                    elif step == "pass":
                        rig.delivery.gate.set()
                        await rig.until(lambda: rig.buffer.usage.batches == 0)
                        rig.delivery.gate.clear()
                    else:
                        if step == "stop":
                            rig.delivery.gate.set()
                        break
                else:
                    rig.delivery.gate.set()
                    await rig.until(lambda: rig.buffer.usage.batches == 0)
            delivered += blocks(rig.delivery.done)
        assert set(delivered) == set(taken)

    asyncio.run(play())

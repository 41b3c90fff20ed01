import asyncio
import threading

import pytest

from pipeline.contract import Payload, Written, bulk
from pipeline.outputs._group import Group
from pipeline.outputs._health import Health


def docs(name: str) -> Payload:
    return [bulk(name, [(name, b"{}")])]


class Work:
    """What the thread does: it can be held up, and made to fail."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.errors: list[Exception] = []

    def __call__(self, payloads: list[Payload]) -> list[Written]:
        self.runs.append([payload[0].index for payload in payloads])
        assert self.gate.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        return [Written(stored=len(payload)) for payload in payloads]


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def health():
    return Health("x", lambda *_: None)


@pytest.fixture
async def group(work, health):
    group = Group(work, health, (OSError,))
    yield group
    await group.stop()


async def started(work: Work, runs: int = 1) -> None:
    async with asyncio.timeout(60):
        while len(work.runs) < runs:
            await asyncio.sleep(0.001)


async def test_what_comes_during_a_run_is_put_together(group, work):
    work.gate.clear()
    first = asyncio.create_task(group.write(docs("a")))
    await started(work)
    others = [asyncio.create_task(group.write(docs(name))) for name in "bcd"]
    await asyncio.sleep(0)
    work.gate.set()
    assert [each.stored for each in await asyncio.gather(first, *others)] == [1, 1, 1, 1]
    assert work.runs == [["a"], ["b", "c", "d"]]


async def test_an_error_that_may_pass_is_tried_again(group, work, health, monkeypatch):
    monkeypatch.setattr("pipeline.outputs._group.PAUSE_SECONDS", 0.01)
    work.errors = [OSError("disk full"), OSError("disk full")]
    write = asyncio.create_task(group.write(docs("a")))
    await started(work, 2)
    assert health.blocked == "disk full"
    assert await write == Written(stored=1)
    assert health.blocked is None
    assert work.runs == [["a"]] * 3


async def test_another_error_is_the_writers(group, work):
    work.errors = [ValueError("a mistake")]
    with pytest.raises(ValueError, match="a mistake"):
        await group.write(docs("a"))
    assert await group.write(docs("a")) == Written(stored=1)


async def test_a_cancelled_writer_leaves_the_others_alone(group, work):
    work.gate.clear()
    for error in (None, ValueError("a mistake")):
        work.gate.clear()
        before = len(work.runs)
        work.errors = [error] if error else []
        one = asyncio.create_task(group.write(docs("a")))
        await started(work, before + 1)
        other = asyncio.create_task(group.write(docs("b")))
        await asyncio.sleep(0)
        one.cancel()
        work.gate.set()
        assert await other == Written(stored=1)
        assert one.cancelled()


async def test_stopping_finishes_what_is_under_way(work, health):
    group, order = Group(work, health, (OSError,)), []
    work.gate.clear()
    write = asyncio.create_task(group.write(docs("a")))
    await started(work)
    stop = asyncio.create_task(group.stop(lambda: order.append("last")))
    work.gate.set()
    await stop
    assert await write == Written(stored=1)
    assert order == ["last"]


async def test_stopping_gives_up_what_can_not_be_written(work, health):
    group = Group(work, health, (OSError,))
    work.errors = [OSError("disk full")] * 100
    write = asyncio.create_task(group.write(docs("a")))
    await started(work)
    while not health.blocked:
        await asyncio.sleep(0.001)
    other = asyncio.create_task(group.write(docs("b")))
    await asyncio.sleep(0)
    await group.stop()
    assert [type(each) for each in await asyncio.gather(write, other, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2


async def test_an_idle_group_can_be_stopped(work, health):
    group = Group(work, health, (OSError,))
    assert await group.run(lambda: 7) == 7
    await group.stop()

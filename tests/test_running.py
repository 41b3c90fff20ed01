import asyncio
from types import SimpleNamespace

import pytest

from pipeline.running import Running


def running(work, **source) -> Running:
    return Running(SimpleNamespace(name="app"), SimpleNamespace(**source), work)


async def until_told(stop: asyncio.Event) -> None:
    await stop.wait()


async def fails(_: asyncio.Event) -> None:
    raise OSError("no more")


async def test_an_input_ends_when_it_is_told_to():
    each = running(until_told)
    assert await each.end(60)
    assert each.task.done()
    assert each.failure is None


async def test_one_that_takes_longer_is_cut_off():
    each = running(lambda _: asyncio.Event().wait())
    assert not await each.end(0)
    assert each.task.cancelled()
    assert each.failure is None


async def test_one_that_even_then_does_not_let_go_is_left(monkeypatch):
    monkeypatch.setattr("pipeline.running._CANCEL_SECONDS", 0)
    release = asyncio.Event()

    async def holds(_: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    each = running(holds)
    await asyncio.sleep(0)
    assert not await each.end(0)
    assert not each.task.done()
    release.set()
    await asyncio.wait({each.task})


async def test_how_it_failed_is_known():
    each = running(fails)
    assert await each.end(60)
    assert str(each.failure) == "no more"


async def test_it_is_open_when_clients_can_connect():
    listening = asyncio.Event()
    each = running(until_told, listening=listening)
    opened = asyncio.create_task(each.opened())
    await asyncio.sleep(0)
    assert not opened.done()
    listening.set()
    await opened
    await each.end(60)


async def test_one_that_takes_no_clients_is_open_at_once():
    each = running(until_told)
    await each.opened()
    await each.end(60)


async def test_one_that_fails_before_it_is_open_says_so():
    with pytest.raises(OSError, match="no more"):
        await running(fails, listening=asyncio.Event()).opened()

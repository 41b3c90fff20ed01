import base64

import pytest

from pipeline import tap as module
from pipeline.contract import Batch, Unusable
from pipeline.tap import Taps


def batch(*records: bytes, input_: str = "in") -> Batch:
    return Batch(input_, b"\n".join([*records, b""]), "x", origin={"host.name": "h"})


async def test_a_tap_gets_what_comes_after_it_began_with_ids_and_origin():
    taps = Taps()
    taps.offer(batch(b"before"))
    taps._taps["t"] = module._Tap(None)
    taps.offer(batch(b"one", b"", b"two"))
    answer = await taps.answer({"tap": "t"})
    assert answer["lost"] == 0
    assert [(each["id"], base64.b64decode(each["record"]), each["origin"]) for each in answer["records"]] == [
        ("x-0", b"one", {"host.name": "h"}),
        ("x-5", b"two", {"host.name": "h"}),
    ]


@pytest.mark.looptime
async def test_a_tap_waits_a_while_and_then_says_that_nothing_came():
    assert await Taps().answer({"tap": "t", "input": None}) == {"records": [], "lost": 0}


async def test_only_the_input_that_was_asked_for_is_tapped():
    taps = Taps()
    taps._taps["t"] = module._Tap("b")
    for name in "ab":
        taps.offer(batch(name.encode(), input_=name))
    assert [each["input"] for each in (await taps.answer({"tap": "t"}))["records"]] == ["b"]


async def test_who_is_slow_loses_records_which_are_counted_and_keeps_little_in_memory(monkeypatch):
    monkeypatch.setattr(module, "BYTES", 100)
    monkeypatch.setattr(module, "RECORDS", 3)
    taps = Taps()
    tap = taps._taps["t"] = module._Tap(None)
    for _ in range(50):
        taps.offer(batch(b"12345678", b"12345678"))
    assert tap.bytes <= 100
    found, lost = 0, 0
    while tap.waiting:
        answer = await taps.answer({"tap": "t"})
        found, lost = found + len(answer["records"]), lost + answer["lost"]
    assert (found + lost, tap.bytes) == (100, 0)
    assert found >= 3


@pytest.mark.looptime
async def test_taps_are_few_and_those_that_do_not_ask_are_forgotten(monkeypatch):
    taps = Taps()
    for n in range(module.TAPS):
        await taps.answer({"tap": n})
    with pytest.raises(Unusable, match="4 taps are open"):
        await taps.answer({"tap": "more"})
    await taps.end({"tap": 0})
    await taps.answer({"tap": "more"})
    monkeypatch.setattr(module, "FORGET_SECONDS", -1)
    taps._forget()
    assert not taps._taps

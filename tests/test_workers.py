import asyncio
import os
import signal
import time

import psutil
import pytest
from pydantic import BaseModel

from pipeline import registry
from pipeline.chain import MANY, Chain, ChainSpec, StageSpec
from pipeline.contract import Batch, Event, Unusable
from pipeline.nursery import Nursery
from pipeline.part import SLICE
from pipeline.workers import Inline, Workers


class Options(BaseModel):
    pass


class Line:
    def __init__(self, options: Options) -> None:
        pass

    def decode(self, records: list[bytes]) -> list[Event]:
        return [{"message": record.decode(), "@index": "i"} for record in records]


class Fragile:
    """Dies of `die`, hangs on `hang`."""

    def __init__(self, options: Options) -> None:
        pass

    def __call__(self, events: list[Event]) -> list[Event]:
        for event in events:
            if event["message"] == "die":
                os._exit(7)
            if event["message"] == "hang":
                time.sleep(60)
        return events

    def gauges(self) -> dict[str, float]:
        return {"age": 1.0}


SPEC = ChainSpec([StageSpec("fragile", "fragile", Options())], {"in": StageSpec("line", "line", Options())})


@pytest.fixture
def chain(monkeypatch):
    monkeypatch.setattr(registry, "find", lambda _, name: {"line": Line, "fragile": Fragile}[name])
    return Chain(SPEC)


@pytest.fixture
def restarts():
    return []


@pytest.fixture
async def workers(chain, restarts):
    workers = Workers(Nursery.forked(chain), SPEC, 2, deadline=1.0, restarted=restarts.append)
    await workers.start()
    yield workers
    await workers.stop()


def batch(*records: bytes) -> Batch:
    return Batch("in", b"\n".join([*records, b""]), "x")


def messages(result) -> list[bytes]:
    return [document for part in result.documents for _, document in part.pairs()]


async def test_batches_go_to_workers_and_documents_come_back(workers):
    results = await asyncio.gather(*(workers.process([batch(b"%d" % n)]) for n in range(20)))
    assert [messages(result) for [result] in results] == [[b'{"message":"%d"}' % n] for n in range(20)]
    assert workers.alive == 2


async def test_several_batches_go_in_one_trip(workers):
    first, second = await workers.process([batch(b"a"), batch(b"b", b"c")])
    assert (len(messages(first)), len(messages(second))) == (1, 2)


async def test_a_batch_larger_than_the_socket_buffers_goes_through(workers):
    [result] = await workers.process([batch(*[b"x" * 1000] * 4000)])
    assert len(messages(result)) == 4000


async def test_a_record_that_kills_its_worker_is_found_and_only_it_fails(workers, restarts):
    records = [b"%d" % n for n in range(10)]
    [result, other] = await workers.process([batch(*records[:7], b"die", *records[7:]), batch(b"fine")])
    assert [(f.record, f.stage) for f in result.failures] == [(7, "worker")]
    assert "died or did not answer" in result.failures[0].reason
    assert len(messages(result)) == 10
    assert len(messages(other)) == 1
    assert {id_ for part in result.documents for id_, _ in part.pairs()} >= {"x-0", "x-18"}
    assert set(restarts) == {"died"}
    assert workers.alive == 2


async def test_no_record_is_left_out_where_others_fail_beside_one_that_kills_its_worker(workers):
    [result] = await workers.process([batch(b"die", *[b"a"] * SLICE, *[b"\xff"] * MANY, *[b"a"] * SLICE)])
    bad = [(SLICE + 1 + n, "decode") for n in range(MANY)]
    assert [(f.record, f.stage) for f in result.failures] == [(0, "worker"), *bad]
    assert len(messages(result)) == 2 * SLICE
    assert result.rest is None


async def test_a_worker_that_hangs_is_killed_and_its_record_found(workers, restarts):
    [result] = await workers.process([batch(b"hang")])
    assert result.failures[0].stage == "worker"
    assert restarts == ["hung", "hung"]


async def test_a_worker_killed_from_outside_is_replaced_and_nothing_is_noticed(workers, restarts):
    before = set(workers._all)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    [result] = await workers.process([batch(b"a")])
    assert messages(result) == [b'{"message":"a"}']
    assert not result.failures
    assert "died" in restarts
    assert set(workers._all) != before


async def test_a_cancelled_batch_leaves_no_answer_behind_for_the_next(workers):
    for _ in range(4):
        task = asyncio.create_task(workers.process([batch(b"hang")]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    [result] = await workers.process([batch(b"mine")])
    assert messages(result) == [b'{"message":"mine"}']


async def test_workers_end_with_the_socket_and_the_nursery_with_the_daemon(chain):
    workers = Workers(Nursery.forked(chain), SPEC, 1)
    await workers.start()
    pids = [*workers._all, workers._nursery.pid]
    await workers.stop()
    for pid in pids:
        for _ in range(200):
            if not psutil.pid_exists(pid):
                break
            await asyncio.sleep(0.01)
        assert not psutil.pid_exists(pid)


async def test_a_nursery_that_is_gone_is_started_anew_as_a_program(tmp_path, monkeypatch, restarts):
    options = registry.find("stage", "text").Options()
    spec = ChainSpec(
        [StageSpec("route", "route", registry.find("stage", "route").Options())],
        {"in": StageSpec("text", "text", options)},
    )
    workers = Workers(Nursery.forked(Chain(spec)), spec, 1, restarted=restarts.append)
    await workers.start()
    for pid in (workers._nursery.pid, *workers._all):
        os.kill(pid, signal.SIGKILL)
    [result] = await workers.process([batch(b"a")])
    assert len(messages(result)) == 1
    assert "nursery" in restarts
    await workers.stop()


async def test_a_chain_that_cannot_be_built_is_told_when_a_nursery_is_started():
    options = registry.find("stage", "geoip").Options(field="ip", database="/nowhere/City.mmdb")
    with pytest.raises(Unusable, match=r"/nowhere/City\.mmdb"):
        await Nursery.started(ChainSpec([StageSpec("geoip", "geoip", options)], {}))


async def test_without_workers_the_chain_runs_in_the_daemon_and_is_refreshed(chain):
    gauges = {}
    inline = Inline(chain, gauges.__setitem__)
    await inline.start()
    [result] = await inline.process([batch(b"a")])
    assert messages(result) == [b'{"message":"a"}']
    assert gauges == {"age": 1.0}
    await inline.stop()

"""What every output owes: nothing is lost, whatever goes wrong, and every document is accounted for."""

import asyncio
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import registry
from pipeline.contract import Context, Output, Payload, Written, bulk
from pipeline.outputs import local
from tests.fake_elasticsearch import (
    BROKEN,
    NO_SHARD,
    READ_ONLY,
    REJECTED,
    Cut,
    Each,
    FakeElasticsearch,
    Items,
    Reset,
    Status,
)
from tests.memory import Memory

Key = tuple[str, int]


class Harness(ABC):
    """One kind of output, with what stands behind it."""

    type: str
    options: dict[str, Any]
    knows_ids = True
    """Whether what comes again is stored once."""

    @abstractmethod
    def stored(self) -> list[Key]:
        """The documents that are there, read past the output."""

    @asynccontextmanager
    async def output(self) -> AsyncIterator[Output]:
        found = registry.find("output", self.type)
        output = found(found.Options(**self.options), Context("out", "host", Memory()))
        await output.start()
        try:
            yield output
        finally:
            await output.stop()

    def trouble(self) -> None:  # noqa: B027 - the console has none
        """Make the next writes go wrong, in a way that passes."""


class ToElasticsearch(Harness):
    type = "elasticsearch"

    def __init__(self, fake: FakeElasticsearch) -> None:
        self.fake = fake
        # Looking at the set-up from its own thread, it might connect while the fake closes.
        self.options = {"hosts": [fake.url], "retry_first": 0.001, "retry_most": 0.01, "setup": "off"}

    def stored(self) -> list[Key]:
        return [(index, orjson.loads(self.fake.documents[index, id_])["n"]) for index, id_ in self.fake.log]

    def trouble(self) -> None:
        some = Each({0: REJECTED, 1: NO_SHARD})
        self.fake.next(Status(429), Status(503), Reset(), Cut(), Items(1), Status(200, b"<html>"), some, Status(413))


class ToLocal(Harness):
    type = "local"

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.patch = folder / "store.db", monkeypatch
        self.options = {"path": self.path}

    def stored(self) -> list[Key]:
        return [
            (row[0], orjson.loads(row[1])["n"])
            for row in local._query(self.path, 'SELECT "index", document FROM documents')
        ]

    def trouble(self) -> None:
        insert, failures = local.Local._insert, iter([True, True])

        def failing(self: local.Local, payload: Payload) -> Written:
            if next(failures, False):
                raise sqlite3.OperationalError("database or disk is full")
            return insert(self, payload)

        self.patch.setattr(local.Local, "_insert", failing)


class ToFile(Harness):
    type = "file"
    knows_ids = False

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder / "archive", monkeypatch
        self.options = {"path": self.folder}

    def stored(self) -> list[Key]:
        files = self.folder.glob("*.ndjson")
        return [(path.stem, orjson.loads(line)["n"]) for path in files for line in path.read_bytes().splitlines()]

    def trouble(self) -> None:
        fsync, failures = os.fsync, iter([True, True])

        def failing(descriptor: int) -> None:
            if next(failures, False):
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        self.patch.setattr(os, "fsync", failing)


class ToConsole(Harness):
    type = "console"
    knows_ids = False

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self.options, self.capture = {"format": "ndjson"}, capture

    def stored(self) -> list[Key]:
        documents = [orjson.loads(line) for line in self.capture.readouterr().out.splitlines()]
        return [(document["index"], document["n"]) for document in documents]


KINDS = ["console", "elasticsearch", "file", "local"]


@pytest.fixture(params=KINDS)
async def harness(request, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.outputs._group.PAUSE_SECONDS", 0.01)
    match request.param:
        case "console":
            yield ToConsole(request.getfixturevalue("capsysbinary"))
        case "file":
            yield ToFile(tmp_path, monkeypatch)
        case "local":
            yield ToLocal(tmp_path, monkeypatch)
        case "elasticsearch":
            async with FakeElasticsearch() as fake:
                yield ToElasticsearch(fake)


def docs(index: str, *numbers: int) -> Payload:
    return [bulk(index, [(f"{n}", orjson.dumps({"index": index, "n": n})) for n in numbers])]


def keys(payload: Payload) -> set[Key]:
    return {(part.index, orjson.loads(document)["n"]) for part in payload for _, document in part.pairs()}


def accounted(written: Written) -> int:
    late = sum(documents.count for documents, _ in written.late)
    return written.stored + written.already + len(written.refused) + late


def test_every_output_stands_to_this_contract():
    assert registry.names("output") == KINDS


async def test_it_is_an_output(harness):
    async with harness.output() as output:
        assert isinstance(output, Output)
        assert getattr(output, "blocked", None) is None


async def test_an_empty_payload_is_nothing(harness):
    async with harness.output() as output:
        assert await output.write([]) == Written()
    assert harness.stored() == []


async def test_a_write_is_durable_when_it_returns(harness):
    payload = docs("a", 1, 2, 3) + docs("b", 1)
    async with harness.output() as output:
        assert await output.write(payload) == Written(stored=4)
        assert sorted(harness.stored()) == sorted(keys(payload))


async def test_writes_at_once_are_all_stored(harness):
    payloads = [docs("a", n) + docs("b", n) for n in range(20)]
    async with harness.output() as output:
        results = await asyncio.gather(*(output.write(payload) for payload in payloads))
    assert results == [Written(stored=2)] * 20
    assert sorted(harness.stored()) == sorted(key for payload in payloads for key in keys(payload))


async def test_what_comes_again_is_stored_once_where_ids_are_known(harness):
    for _ in range(2):
        async with harness.output() as output:
            first, second = await output.write(docs("a", 1, 2)), await output.write(docs("a", 2, 3))
    assert set(harness.stored()) == {("a", 1), ("a", 2), ("a", 3)}
    if harness.knows_ids:
        assert (first, second) == (Written(already=2), Written(already=2))
        assert len(harness.stored()) == 3


async def test_what_goes_wrong_for_a_while_loses_nothing(harness):
    harness.trouble()
    payloads = [docs("a", n, n + 100, n + 200) + docs("b", n) for n in range(10)]
    async with harness.output() as output:
        results = await asyncio.gather(*(output.write(payload) for payload in payloads))
    assert [accounted(written) for written in results] == [4] * 10
    assert not any(written.refused or written.late for written in results)
    assert sorted(harness.stored()) == sorted(key for payload in payloads for key in keys(payload))


async def test_it_stops_while_idle(harness):
    async with harness.output() as output:
        await output.write(docs("a", 1))
    async with harness.output():
        pass


TROUBLES = st.one_of(
    st.sampled_from([Status(429), Status(500), Status(502), Status(401), Status(413), Status(400), Reset(), Cut()]),
    st.builds(Items, st.integers(0, 9)),
    st.builds(Each, st.dictionaries(st.integers(0, 5), st.sampled_from([REJECTED, NO_SHARD, BROKEN, READ_ONLY]))),
)


@settings(max_examples=30)
@given(
    troubles=st.lists(TROUBLES, max_size=12),
    parts=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6)), min_size=1, max_size=5),
)
def test_no_order_of_answers_loses_or_doubles_a_document(troubles: list[Any], parts: list[tuple[str, int]]):
    payloads = [docs(index, *range(n * 10, n * 10 + size)) for n, (index, size) in enumerate(parts)]

    async def run() -> None:
        async with FakeElasticsearch() as fake:
            harness = ToElasticsearch(fake)
            harness.options["park_after"] = 0.02
            fake.next(*troubles)
            async with harness.output() as output:
                results = await asyncio.gather(*(output.write(payload) for payload in payloads))
            assert [accounted(written) for written in results] == [size for _, size in parts]
            refused = [(each.index, orjson.loads(each.document)["n"]) for result in results for each in result.refused]
            late = [key for result in results for documents, _ in result.late for key in keys([documents])]
            stored = harness.stored()
            assert len(set(stored)) == len(stored)
            assert {*stored, *refused, *late} == {key for payload in payloads for key in keys(payload)}

    asyncio.run(run())

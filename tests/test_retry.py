from collections import Counter

import pytest

from pipeline.chain import Processed
from pipeline.contract import Refused, Written, bulk
from pipeline.failure import Failure
from pipeline.letters import Letter
from pipeline.retry import Retry


class Chain:
    """Each record is a document in index `i`; `bad` fails, `drop` is dropped."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def process(self, batches):
        results = []
        for batch in batches:
            [id_], [record] = batch.document_ids(), batch.records()
            self.ids.append(id_)
            failures = [Failure(0, "stage", "still bad", "")] if record == b"bad" else []
            documents = [] if failures or record == b"drop" else [bulk("i", [(id_, record)])]
            results.append(Processed(documents, failures, 1, Counter()))
        return results


class Store:
    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], bytes] = {}

    async def write(self, payload):
        written = Written()
        for part in payload:
            for id_, document in part.pairs():
                if document == b"refused":
                    written.refused.append(Refused(part.index, id_, document, "no"))
                elif document == b"late":
                    written.late.append((part, "blocked"))
                elif (part.index, id_) in self.stored:
                    written.already += 1
                else:
                    self.stored[part.index, id_] = document
                    written.stored += 1
        return written


class Dead:
    def __init__(self) -> None:
        self.removed = []

    async def remove(self, keys) -> None:
        self.removed += keys


def letter(record: bytes, id_: str = "x-1", **more) -> Letter:
    return Letter(**{"id": id_, "input": "in", "record": record, "origin": {}, "time": 0.0, **more})


@pytest.fixture
def rig():
    chain, dead, outputs = Chain(), Dead(), {"a": Store(), "b": Store()}
    return chain, dead, outputs, Retry(chain, ["in"], outputs, dead)


async def test_a_letter_of_the_chain_goes_to_every_output_under_its_id_and_is_forgotten(rig):
    _, dead, outputs, retry = rig
    counts = await retry.run([letter(b"good")])
    assert counts == {"tried": 1, "stored": 2, "already": 0, "dropped": 0, "set_aside": 0}
    assert outputs["a"].stored == outputs["b"].stored == {("i", "x-1"): b"good"}
    assert dead.removed == [("", "x-1")]


async def test_a_letter_of_an_output_goes_only_there_under_its_record_s_id(rig):
    chain, _, outputs, retry = rig
    await retry.run([letter(b"good", "x-1.2", output="b", document=b"old")])
    assert chain.ids == ["x-1"]
    assert not outputs["a"].stored
    assert outputs["b"].stored == {("i", "x-1"): b"good"}


async def test_a_document_without_its_record_is_written_as_it_is(rig):
    _, _, outputs, retry = rig
    await retry.run([letter(b"", input="", output="b", document=b"doc", index="j")])
    assert outputs["b"].stored == {("j", "x-1"): b"doc"}


async def test_what_is_already_there_or_dropped_by_a_rule_is_done_with(rig):
    _, dead, outputs, retry = rig
    outputs["a"].stored["i", "x-1"] = b"good"
    counts = await retry.run([letter(b"good"), letter(b"drop", "x-2")])
    assert counts == {"tried": 2, "stored": 1, "already": 1, "dropped": 1, "set_aside": 0}
    assert len(dead.removed) == 2


@pytest.mark.parametrize(
    "still",
    [
        letter(b"bad"), letter(b"refused"), letter(b"late"), letter(b"good", input="gone"),
        letter(b"good", output="gone"),
    ],
)  # fmt: skip
async def test_what_fails_again_stays(rig, still):
    _, dead, _, retry = rig
    counts = await retry.run([still, letter(b"good", "x-2")])
    assert (counts["tried"], counts["set_aside"]) == (2, 1)
    assert dead.removed == [("", "x-2")]

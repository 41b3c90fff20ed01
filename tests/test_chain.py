from array import array
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline import registry
from pipeline.chain import MANY, Chain, ChainSpec, Processed, StageSpec
from pipeline.columns import MISSING, Columns
from pipeline.contract import Batch, Edit, Event
from pipeline.part import SLICE

IDENTITY = "source"


class NoOptions(BaseModel, extra="forbid"):
    """Options of the stages below."""


class Part:
    Options = NoOptions

    def __init__(self, options: NoOptions) -> None:
        self.counts: dict[str, int] = {}


class Json(Part):
    def decode(self, records: list[bytes]) -> list[Event]:
        events = [orjson.loads(record) for record in records]
        for event in events:
            if not isinstance(event, dict):
                raise TypeError("no object")
            for key in ("@index", "@id"):
                if key in event:
                    event[key[1:] + "_original"] = event.pop(key)
        return events

    def __call__(self, events: list[Event]) -> list[Event]:
        raise NotImplementedError


class Words(Part):
    """One event a word."""

    def decode(self, records: list[bytes]) -> list[Event]:
        return [{"message": word.decode()} for record in records for word in record.split()]


class Upper(Part):
    reads = frozenset({"level"})
    adds = frozenset({"LEVEL"})

    def __call__(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.counts["seen"] = self.counts.get("seen", 0) + 1
            if "level" in event:
                event["LEVEL"] = event["level"].upper()
        return events


class ByColumn(Upper):
    """The same by column."""

    def fill(self, columns: Columns) -> None:
        levels = [level if level is MISSING else level.upper() for level in columns["level"]]
        self.counts["seen"] = self.counts.get("seen", 0) + len(levels)
        columns.add("LEVEL", levels)


class Route(Part):
    reads = frozenset({"level"})
    adds = frozenset[str]()

    def __call__(self, events: list[Event]) -> list[Event]:
        for event in events:
            event["@index"] = f"i-{event.get('level')}"
        return events


class Drop(Part):
    reads = frozenset[str]()
    adds = frozenset[str]()

    def __call__(self, events: list[Event]) -> list[Event]:
        return []


class Twice(Part):
    def __call__(self, events: list[Event]) -> list[Event]:
        return [copy for event in events for copy in (event, dict(event))]


class Secret(Part):
    """Redacts `secret`, wherever it stands at the top."""

    seen: ClassVar[list[Event]] = []

    def touches(self, block: bytes) -> list[tuple[int, str]]:
        found, at = [], block.find(b"secret")
        while at >= 0:
            found.append((at, "mark"))
            at = block.find(b"secret", at + 1)
        return found

    def __call__(self, events: list[Event]) -> list[Event]:
        for event in events:
            if "secret" in event:
                event["secret"] = "-"
        return events


class Editing(Secret):
    """The same, counted, and as bytes where the value is a text."""

    def __call__(self, events: list[Event]) -> list[Event]:
        for event in events:
            if "secret" in event:
                event["secret"] = "-"
                self.counts["key"] = self.counts.get("key", 0) + 1
        return events

    def edits(
        self, block: bytes, hits: list[tuple[int, str]], spared: frozenset[bytes]
    ) -> tuple[list[Edit], list[int]]:
        edits: list[Edit] = []
        missed = []
        for at, mark in hits:
            assert mark == "mark"
            start = at + 9
            end = block.find(b'"', start)
            # Only at the beginning of a record: a key of that name at the top.
            top = block[max(0, at - 3) : start] in (b'{"secret":"', b'\n{"secret":"')
            if not top or b"secret" in spared or b"\\" in block[start:end] or b"secret" in block[start:end]:
                missed.append(at)
            else:
                edits.append((start, end, b"-", ["key"]))
        return edits, missed


class NoId(Part):
    def __call__(self, events: list[Event]) -> list[Event]:
        return [*events, {"made": True}]


STAGES: dict[str, type] = {
    "json": Json, "words": Words, "upper": Upper, "route": Route, "drop": Drop, "twice": Twice, "secret": Secret,
    "noid": NoId, "editing": Editing, "column": ByColumn,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _stages(monkeypatch):
    monkeypatch.setattr(registry, "find", lambda _, name: STAGES[name])


def chain(*stages: str, decode: str = "json", splice: bool = True) -> Chain:
    specs = [StageSpec(name.split("|")[0], name.split("|")[0], NoOptions(), *name.split("|")[1:]) for name in stages]
    return Chain(ChainSpec(specs, {"in": StageSpec(decode, decode, NoOptions())}), splice=splice)


def batch(*records: Any, **more: Any) -> Batch:
    lines = [record if isinstance(record, bytes) else orjson.dumps(record) for record in records]
    return Batch("in", b"".join(line + b"\n" for line in lines), IDENTITY, **more)


def documents(result: Processed) -> dict[str, tuple[str, Any]]:
    return {id_: (part.index, orjson.loads(document)) for part in result.documents for id_, document in part.pairs()}


def test_documents_are_grouped_by_index_with_ids_from_their_place():
    result = chain("route").run(batch({"level": "a"}, {"level": "b"}, {"level": "a"}, base=100))
    assert documents(result) == {
        "source-100": ("i-a", {"level": "a"}),
        "source-114": ("i-b", {"level": "b"}),
        "source-128": ("i-a", {"level": "a"}),
    }
    assert [(part.index, part.count) for part in result.documents] == [("i-a", 2), ("i-b", 1)]
    assert result.records == 3


def test_a_record_that_stages_leave_alone_keeps_its_own_bytes():
    record = b'{"level" : "a", "n": 1.50, "big": 123456789012345678901234567890}'
    [part] = chain("upper", "route").run(batch(record)).documents
    assert part.body.split(b"\n")[1] == record[:-1] + b',"LEVEL":"A"}'


@pytest.mark.parametrize(
    "record",
    [
        b"{}", b"{ }", b'{"level":"a" }', b'{"level":"a","LEVEL":"there"}', b'{"level":"a","@id":"x","@raw":1}',
        b'{"level":"a","secret":1}', b'{"level":"a"}\r', b' {"level":"a"}', b'{"level":"a","host.name":"own"}',
        b'{"level":"a","host":{"ip":"::1"}}', b'{"level":"\xc3\xa4"}', b'{"level":"\\u00e4","x":"\\ud83d\\ude00"}',
        b'{"\\u006cevel":"a"}',
    ],
)  # fmt: skip
def test_the_short_way_gives_what_the_full_way_gives(record):
    given = batch(record, {"level": "z"}, record, origin={"host.name": "h", "log.file.path": "/l"})
    stages = ("upper", "secret", "route")
    short, full = (chain(*stages, splice=splice).run(given) for splice in (True, False))
    assert documents(short) == documents(full)
    assert not short.failures


@pytest.mark.parametrize("upper", ["upper", "column", 'column|x != "b"', 'upper|x != "b"'])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["level", "LEVEL", "secret", "host", "@id", "x", "y"]),
            st.sampled_from(["a", "b", "drop"])
            | st.text()
            | st.integers(-(2**53), 2**53)
            | st.dictionaries(st.text(), st.text())
            | st.none(),
        ),
        max_size=8,
    )
)
def test_the_short_way_gives_what_the_full_way_gives_for_any_records(upper, records):
    given = batch(*records, origin={"host.name": "h"})
    stages = (upper, "editing", 'drop|x == "drop"', "route")
    short, full = (chain(*stages, splice=splice).run(given) for splice in (True, False))
    assert documents(short) == documents(full)
    assert [f[:3] for f in short.failures] == [f[:3] for f in full.failures]
    assert short.counts == full.counts


def test_a_record_edited_as_bytes_is_as_if_it_had_been_decoded_and_counts():
    given = batch({"secret": "x", "level": "a"}, {"secret": 1}, {"secret": "secret"}, {"level": "b"})
    result = chain("upper", "editing", "route").run(given)
    assert documents(result) == documents(chain("upper", "editing", "route", splice=False).run(given))
    assert result.counts == {("redactions", "key"): 3, ("redactions", "seen"): 4}
    [[*_, first]] = [part.pairs() for part in result.documents if part.index == "i-a"]
    assert first[1] == b'{"secret":"-","level":"a","LEVEL":"A"}'


def test_metadata_of_beats_is_there_for_stages_but_not_stored():
    given = batch({"level": "a", "@metadata": {"beat": "filebeat"}}, {"level": "a"})
    result = chain('drop|field("@metadata.beat") != "filebeat"', "route").run(given)
    assert [document for _, document in documents(result).values()] == [{"level": "a"}, {"level": "a"}]


def test_a_stage_before_sees_what_one_behind_it_hides():
    class Copy(Part):
        reads = frozenset({"secret"})
        adds = frozenset({"copy"})

        def __call__(self, events: list[Event]) -> list[Event]:
            for event in events:
                event["copy"] = event["secret"]
            return events

    STAGES["copy"] = Copy
    given = batch({"secret": "x"}, {"secret": "y"})
    result = chain("copy", "editing", "route").run(given)
    assert [document["copy"] for _, document in documents(result).values()] == ["x", "y"]


def test_only_the_bad_record_of_a_slice_fails_and_is_named():
    records = [{"level": "a"}] * SLICE + [{"level": 7}, b"{broken", {"level": "b"}]
    result = chain("upper", "route").run(batch(*records))
    assert [(f.record, f.stage) for f in result.failures] == [(SLICE + 1, "decode"), (SLICE, "upper")]
    assert "'int' object has no attribute 'upper'" in result.failures[1].reason
    assert "Traceback" in result.failures[1].traceback
    assert len(documents(result)) == SLICE + 1
    assert result.records == SLICE + 3


def test_a_bad_record_that_is_alone_is_tried_once(monkeypatch):
    tried: list[int] = []

    def decode(_: Words, records: list[bytes]) -> list[Event]:
        tried.append(len(records))
        raise ValueError("bad")

    monkeypatch.setattr(Words, "decode", decode)
    result = chain("route", decode="words").run(batch(b"x" * 1_000_000))
    assert [failure.stage for failure in result.failures] == ["decode"]
    assert tried == [1]


def test_what_is_behind_a_slice_with_many_bad_records_is_left_for_later():
    records = [{"level": "a"}] * SLICE + [b"", *[{"level": 7}] * MANY] + [{"level": "a"}] * SLICE
    result = chain("upper", "route").run(batch(*records))
    assert result.rest == 2 * SLICE
    assert result.records == len(documents(result)) + MANY == 2 * SLICE - 1
    assert chain("upper", "route").run(batch(*records[: 2 * SLICE])).rest is None


def test_for_a_few_bad_records_a_batch_does_not_end():
    records = [{"level": "a"}] * SLICE + [{"level": 7}] * (MANY - 1) + [{"level": "a"}] * SLICE
    result = chain("upper", "route").run(batch(*records))
    assert result.rest is None
    assert len(documents(result)) == 2 * SLICE


def test_slices_of_an_input_with_bad_records_are_small_until_all_are_good_again():
    given = chain("upper", "route")
    good = [{"level": "a"}] * SLICE
    bad = [*[{"level": 7}] * MANY, *good]
    rests = [given.run(batch(*records)).rest for records in (bad, bad, good, good, good, bad)]
    assert rests == [SLICE, SLICE // 4, None, None, None, SLICE]


def test_what_a_failed_run_counted_is_thrown_away():
    result = chain("upper", "route").run(batch({"level": "a"}, {"level": 1}, {"level": "b"}))
    assert result.counts == {("redactions", "seen"): 2}


def test_dropped_and_made_events_are_counted_by_stage():
    result = chain('drop|level == "a"', "twice", "route").run(batch({"level": "a"}, {"level": "b"}))
    assert result.counts == {("dropped", "drop"): 1, ("made", "twice"): 1}
    assert documents(result).keys() == {"source-14.1", "source-14.2"}


def test_a_record_that_decodes_into_several_events_gives_numbered_ids():
    result = chain("route", decode="words").run(batch(b"a b", b"c", b"d e f"))
    assert list(documents(result)) == ["source-0.1", "source-0.2", "source-4", "source-6.1", "source-6.2", "source-6.3"]
    assert result.counts == {("made", "decode"): 3}


def test_an_event_without_an_id_fails_its_record():
    result = chain("noid", "route").run(batch({"level": "a"}))
    assert result.failures[0].stage == "encode"
    assert not result.documents


def test_a_chain_without_a_route_says_what_is_missing():
    assert "add a route stage" in chain().run(batch({"a": 1})).failures[0].reason


def test_blank_lines_are_no_records():
    result = chain("route").run(batch(b"", {"level": "a"}, b"  ", b"\r"))
    assert (result.records, len(documents(result))) == (1, 1)


def test_text_that_is_not_utf_8_takes_the_full_way():
    result = chain("upper", "route").run(batch(b'{"level":"\xff"}', {"level": "a"}))
    assert [failure.stage for failure in result.failures] == ["decode"]
    assert len(documents(result)) == 1


def test_ids_that_a_client_gave_are_kept_and_escaped_even_when_equal():
    given = batch({"level": "a"}, {"level": "a"}, ids=['x"1', 'x"1'])
    [part] = chain("route").run(given).documents
    assert [id_ for id_, _ in part.pairs()] == ['x"1', 'x"1']


def test_records_may_be_cut_by_ends_with_positions_of_their_own():
    given = Batch("in", b'{"level":"a"}{"level":"b"}', IDENTITY, ends=array("Q", [13, 26]), positions=[7, 9])
    assert documents(chain("route").run(given)).keys() == {"source-7", "source-9"}


def test_stages_are_refreshed_and_give_their_gauges():
    class Gauged(Part):
        def refresh(self) -> None:
            self.counts["refreshed"] = 1

        def gauges(self) -> dict[str, float]:
            return {"age": float(self.counts["refreshed"])}

    STAGES["gauged"] = Gauged
    assert chain("gauged").refresh() == {"age": 1.0}

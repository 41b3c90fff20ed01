from typing import Any

import pytest

from pipeline.columns import MISSING, ByValues, Columns
from pipeline.contract import ID, INDEX, Event


class Named:
    """A stage without anything but a function."""

    def __init__(self, call: Any, *, reads: set[str], adds: set[str]) -> None:
        self._call, self.reads, self.adds = call, frozenset(reads), frozenset(adds)

    def __call__(self, events: list[Event]) -> list[Event]:
        made: list[Event] = self._call(events)
        return made


def columns(**fields: list[Any]) -> Columns:
    size = len(next(iter(fields.values())))
    return Columns(range(size), lambda n: f"id-{n}", {**fields})


def test_a_field_that_no_record_has_is_missing_everywhere():
    assert columns(a=[1, 2])["b"] == [MISSING, MISSING]


def test_a_path_leads_into_objects_and_a_key_with_dots_comes_first():
    given = columns(**{"a": [{"b": 1}, {"b": 2}, 3, MISSING], "a.b": [MISSING, 9, MISSING, MISSING]})
    assert given["a.b"] == [1, 9, MISSING, MISSING]


def test_what_is_added_twice_keeps_what_the_second_does_not_set():
    given = columns(a=[1, 2])
    given.add("b", ["x", "y"])
    given.add("b", [MISSING, "z"], [b"", b'"z"'])
    assert (given["b"], given.json["b"]) == (["x", "z"], [b'"x"', b'"z"'])


def test_what_is_added_as_json_alone_is_read_when_it_is_asked_for():
    given = columns(a=[1, 2, 3])
    given.add("b", None, [b'"x"', b"", b"[4]"])
    assert given.some([1, 2])["b"] == [MISSING, [4]]
    assert given["b"] == ["x", MISSING, [4]]
    given.add("b", None, [b"", b"null", b"5"])
    assert (given["b"], given.json["b"]) == (["x", None, 5], [b'"x"', b"null", b"5"])
    given.add("c", None, [b"1", b"2", b""])
    given.through(Named(lambda events: [{**event, "c": 9} for event in events], reads={"b"}, adds={"c"}), [])
    assert given["c"] == [1, 2, MISSING]


def test_a_stage_is_called_with_what_it_reads_and_the_document_id():
    seen: list[Event] = []

    def call(events: list[Event]) -> list[Event]:
        seen.extend(dict(event) for event in events)
        for event in events:
            event["b"], event[INDEX] = event.get("a"), "i"
        return events

    given = columns(a=[1, MISSING, None], x=[7, 7, 7])
    given.through(Named(call, reads={"a"}, adds={"b"}), [0, 1])
    assert seen == [{ID: "id-0", "a": 1}, {ID: "id-1"}]
    assert given["b"] == [1, None, MISSING]
    assert given.json["b"] == [b"1", b"null", b""]
    assert given[INDEX] == ["i", "i", MISSING]


def test_what_a_stage_drops_is_left_out_of_every_column():
    given = columns(a=[1, 2, 3])
    given.add("b", ["x", "y", "z"])
    given.through(Named(lambda events: [each for each in events if each["a"] != 2], reads={"a"}, adds=set()))
    assert (given.rows, given["a"], given["b"], given.json["b"]) == ([0, 2], [1, 3], ["x", "z"], [b'"x"', b'"z"'])


def test_a_stage_that_makes_events_is_refused():
    with pytest.raises(ValueError, match="makes events"):
        columns(a=[1]).through(Named(lambda events: [*events, {}], reads={"a"}, adds=set()))


def test_some_records_are_worked_on_apart_and_taken_back():
    given = columns(a=[1, 2, 3, 4])
    given.add("b", ["p", "q", "r", "s"])
    part = given.some([1, 2, 3])
    part.add("b", ["Q", MISSING, "S"])
    part.add("c", [MISSING, MISSING, 5])
    part.add(INDEX, ["i", "j", "k"])
    part.keep([0, 2])
    given.take_back(part, [1, 2, 3])
    assert (given.rows, given["a"], given["b"], given["c"]) == (
        [0, 1, 3],
        [1, 2, 4],
        ["p", "Q", "S"],
        [MISSING, MISSING, 5],
    )
    assert given.json["c"] == [b"", b"", b"5"]
    assert given[INDEX] == [MISSING, "i", "k"]


def test_results_are_remembered_by_what_is_read_but_not_for_values_that_only_seem_equal():
    calls: list[Event] = []

    def function(event: Event) -> str:
        calls.append(event)
        return repr(event.get("a"))

    by_values = ByValues(function, ["a"])
    assert by_values(columns(a=["x", "x", 1, True, 1.0, [1], MISSING])) == [
        *("'x'", "'x'", "1", "True", "1.0", "[1]", "None"),
    ]
    assert len(calls) == 6
    assert by_values.of({"a": "x", "b": 1}) == "'x'"
    assert len(calls) == 6

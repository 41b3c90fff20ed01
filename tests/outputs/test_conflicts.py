import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Refused, bulk
from pipeline.outputs._conflicts import MOST_FIELDS, MOST_INDICES, Conflict, Conflicts, conflict, explained


def failed(field: str, wanted: str, cause: str = "") -> str:
    return f"document_parsing_exception: [1:6] failed to parse field [{field}] of type [{wanted}] in document {cause}"


def repaired(document: Any, reason: str, conflicts: Conflicts | None = None) -> Any:
    made = (conflicts or Conflicts()).repair(Refused("a", "1", orjson.dumps(document), reason))
    return made and orjson.loads(made[0])


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        (failed("a.b", "long"), Conflict("a.b", "long")),
        (failed("k", "keyword", "immense term in field"), Conflict("k", "keyword of at most 32766 bytes")),
        (
            "x: [1:9] object mapping for [obj] tried to parse field [null] as object, but found a concrete value",
            Conflict("obj", "object"),
        ),
        (
            "x: [1:20] mapping set to strict, dynamic introduction of [new] within [s.t] is not allowed",
            Conflict("s.t.new", "no new field"),
        ),
        ("x: mapping set to strict, dynamic introduction of [new] within [_doc] is", Conflict("new", "no new field")),
        (
            "illegal_argument_exception: mapper [a.b] cannot be changed from type [long] to [text]",
            Conflict("a.b", "long"),
        ),
        ("x: Existing mapping for [a] must be of type object but found [keyword].", Conflict("a", "keyword")),
        ("x: failed to parse: Limit of total fields [22] has been exceeded while adding new fields [10]", None),
    ],
)
def test_a_reason_names_the_field_and_what_is_wanted(reason: str, found: Conflict | None):
    assert conflict(reason) == found


@pytest.mark.parametrize(
    ("before", "field", "after"),
    [
        ({"n": "abc", "m": 1}, "n", {"m": 1, "conflict": [{"field": "n", "value": "abc"}]}),
        ({"n": {"a": 1}}, "n", {"conflict": [{"field": "n", "value": '{"a":1}'}]}),
        ({"a": {"b": True, "c": 1}}, "a.b", {"a": {"c": 1}, "conflict": [{"field": "a.b", "value": "true"}]}),
        ({"a.b": "x"}, "a.b", {"conflict": [{"field": "a.b", "value": "x"}]}),
        ({"a": {"b.c": "x"}}, "a.b.c", {"a": {}, "conflict": [{"field": "a.b.c", "value": "x"}]}),
        ({"a.b": "x"}, "a", {"conflict": [{"field": "a", "value": '{"b":"x"}'}]}),
        (
            {"a": [{"b": 1}, {"b": "z"}]},
            "a.b",
            {"a": [{}, {}], "conflict": [{"field": "a.b", "value": "1"}, {"field": "a.b", "value": "z"}]},
        ),
    ],
)
def test_the_field_is_moved_wherever_it_stands(before: Any, field: str, after: Any):
    assert repaired(before, failed(field, "long")) == after


def test_numbers_of_any_size_and_half_surrogate_pairs_are_kept():
    document = b'{"n":99999999999999999999,"s":"\\ud800","f":1.5}'
    made = Conflicts().repair(Refused("a", "1", document, failed("n", "long")))
    assert made is not None
    assert made[0] == b'{"s":"\\ud800","f":1.5,"conflict":[{"field":"n","value":"99999999999999999999"}]}'


@pytest.mark.parametrize(
    "document",
    [{"m": 1}, {"n": 1, "conflict": "mine"}, {"n": 1, "conflict": [{"field": "x", "value": "y"}] * MOST_FIELDS}],
    ids=["not there", "a field of that name", "too many"],
)
def test_what_can_not_be_repaired_is_refused(document: Any):
    assert repaired(document, failed("n", "long")) is None


def test_the_list_itself_is_never_moved():
    assert repaired({"conflict": [{"field": "x", "value": "y"}]}, failed("conflict.value", "long")) is None


def test_the_reason_of_what_is_set_aside_has_the_field_and_both_types():
    refused = Refused("a", "1", b'{"n":{"a":1}}', failed("n", "long"))
    found = conflict(refused.reason)
    assert found is not None
    assert explained(refused, found).endswith("(field n is to be: long, and it is an object)")


@pytest.mark.parametrize(
    ("wanted", "value", "surely"),
    [
        ("long", "abc", True),
        ("long", "12", False),
        ("long", True, True),
        ("long", {"a": 1}, True),
        ("long", [1, "x"], True),
        ("long", None, False),
        ("keyword", {"a": 1}, True),
        ("keyword", "x", False),
        ("object", "x", True),
        ("object", {"a": 1}, False),
        ("boolean", "maybe", True),
        ("boolean", "true", False),
        ("date", "yesterday", False),
        ("geo_point", {"lat": 1, "lon": 2}, False),
    ],
)
def test_what_surely_conflicts_is_repaired_before_it_is_sent(wanted: str, value: Any, surely: bool):
    conflicts = Conflicts()
    bad: Any = {"n": {"x": 1}}
    assert repaired(bad, f"failed to parse field [n] of type [{wanted}]", conflicts)
    payload = [bulk("a", [("1", orjson.dumps({"n": value})), ("2", b'{"m":1}')]), bulk("b", [("1", b'{"n":"abc"}')])]
    assert conflicts.known(payload)
    prepared, count = conflicts.prepare(payload)
    assert (count, prepared[1]) == (surely, payload[1])
    assert (prepared[0] is payload[0]) is not surely
    assert ("conflict" in orjson.loads(next(prepared[0].pairs())[1])) is surely


def test_an_index_without_conflicts_costs_nothing():
    conflicts = Conflicts()
    payload = [bulk("b", [("1", b'{"n":"abc"}')])]
    assert not conflicts.known(payload)
    repaired({"n": "abc"}, failed("n", "long"), conflicts)
    assert not conflicts.known(payload)


def test_what_is_remembered_is_bounded():
    conflicts = Conflicts()
    for n in range(MOST_INDICES + 10):
        conflicts.repair(Refused(f"i-{n}", "1", b'{"n":"x"}', failed("n", "long")))
    assert not conflicts.known([bulk("i-9", [])])
    assert conflicts.known([bulk("i-10", [])])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a", "a.a.b"]), inner),
    ),
    st.sampled_from(["a", "b", "a.b", "a.b.a"]),
)
def test_after_a_repair_the_field_is_gone_and_nothing_else(value: Any, field: str):
    document = {"x": 1, "b": {"keep": 2}, "a": value}
    made = Conflicts().repair(Refused("i", "1", json.dumps(document).encode(), failed(field, "long")))
    if made is not None:
        after = json.loads(made[0])
        again = Conflicts().repair(Refused("i", "1", made[0], failed(field, "long")))
        assert again is None
        assert after["x"] == 1
        assert {each["field"] for each in after["conflict"]} == {field}

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import ID
from pipeline.fields import Template, derived, getter, pop, put, tag, tops


def test_a_path_may_touch_its_first_key_and_itself_as_a_key():
    assert tops("a.b.c") == {"a", "a.b.c"}
    assert tops("a") == {"a"}


@pytest.mark.parametrize(
    ("event", "path", "value"),
    [
        ({"a": 1}, "a", 1),
        ({}, "a", None),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": 1}, "a.b", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a.b": None, "a": {"b": 2}}, "a.b", None),
        ({"a": {"b": 2}}, "a.c", None),
        ({"a": 1}, "a.b", None),
        ({"a": [1]}, "a.b", None),
        ({"a": {"b": 1}}, "a.b.c", None),
        ({}, "a.b", None),
    ],
)
def test_a_field_is_found_by_its_path(event, path, value):
    assert getter(path)(event) == value


@pytest.mark.parametrize(
    ("event", "path", "after"),
    [
        ({}, "a", {"a": 9}),
        ({}, "a.b.c", {"a": {"b": {"c": 9}}}),
        ({"a": {"b": 1}}, "a.c", {"a": {"b": 1, "c": 9}}),
        ({"a": None}, "a.b", {"a": {"b": 9}}),
        ({"a.b": 1}, "a.b", {"a.b": 9}),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", {"a.b": 9, "a": {"b": 2}}),
    ],
)
def test_a_field_is_set_by_its_path(event, path, after):
    put(event, path, 9)
    assert event == after


def test_a_scalar_in_the_way_of_a_path_is_an_error():
    with pytest.raises(TypeError, match=r"a\.b\.c: b is not an object"):
        put({"a": {"b": 1}}, "a.b.c", 9)


@pytest.mark.parametrize(
    ("event", "path", "value", "after"),
    [
        ({"a": 1, "b": 2}, "a", 1, {"b": 2}),
        ({}, "a", None, {}),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1, {"a": {"b": 2}}),
        ({"a": {"b": {"c": 1}}, "x": 2}, "a.b.c", 1, {"x": 2}),
        ({"a": {"b": {"c": 1}, "d": 2}}, "a.b.c", 1, {"a": {"d": 2}}),
        ({"a": {}}, "a.b", None, {"a": {}}),
        ({"a": 1}, "a.b", None, {"a": 1}),
        ({"a": {"b": 1}}, "a.b.c", None, {"a": {"b": 1}}),
    ],
)
def test_a_field_is_removed_by_its_path_and_so_is_an_object_left_empty(event, path, value, after):
    assert pop(event, path) == value
    assert event == after


_KEYS = st.sampled_from(["a", "b", "a.b", "b.a"])
_TREES = st.dictionaries(_KEYS, st.recursive(st.integers(), lambda inner: st.dictionaries(_KEYS, inner), max_leaves=4))


@given(_TREES, st.sampled_from(["a", "a.b", "b.a.b"]))
def test_what_is_put_is_found_and_what_is_removed_is_gone(event, path):
    before = copy.deepcopy(event)
    found = getter(path)(event)
    assert pop(event, path) == found
    if found is None:
        assert event == before
    try:
        put(event, path, 9)
    except TypeError:
        return
    assert getter(path)(event) == 9


@pytest.mark.parametrize(
    ("event", "tags", "after"),
    [
        ({}, ["a", "b", "a"], ["a", "b"]),
        ({"tags": None}, ["a"], ["a"]),
        ({"tags": ["b", "a"]}, ["a", "c"], ["b", "a", "c"]),
        ({"tags": "b"}, ["a"], ["b", "a"]),
        ({"tags": "a"}, ["a"], ["a"]),
        ({"tags": 5}, ["a"], [5, "a"]),
        ({"tags": [{"b": 1}]}, ["a"], [{"b": 1}, "a"]),
    ],
)
def test_tags_are_added_once_to_a_list_of_the_events_own(event, tags, after):
    shared = event.get("tags")
    before = copy.deepcopy(shared)
    tag(event, *tags)
    assert event["tags"] == after
    assert shared == before


def test_tags_that_are_an_object_are_an_error():
    with pytest.raises(TypeError, match="tags is an object"):
        tag({"tags": {"a": 1}}, "b")


STAMP = "2026-11-20T23:59:59.999Z"


@pytest.mark.parametrize(
    ("text", "event", "result"),
    [
        ("plain", {}, "plain"),
        ("100 %s {a}", {"a": 1}, "100 %s 1"),
        ("{a}", {"a": "x"}, "x"),
        ("{a}", {"a": 1.5}, "1.5"),
        ("{a}", {"a": True}, "true"),
        ("{a}", {"a": ""}, None),
        ("{a}", {"a": None}, None),
        ("{a}", {"a": ["x"]}, None),
        ("{a}", {"a": {"b": 1}}, None),
        ("{a.b}-{c}", {"a": {"b": "x"}, "c": "y"}, "x-y"),
        ("{a.b}-{c}", {"a": {"b": "x"}}, None),
        ("logs-{day}", {"@timestamp": STAMP}, "logs-2026.11.20"),
        ("{day}", {"@timestamp": STAMP}, "2026.11.20"),
        ("{day}", {}, None),
        ("{day}", {"@timestamp": 1795132800123}, None),
        ("{day}", {"@timestamp": "2026-11-20"}, None),
        ("{day}", {"@timestamp": "2026-11-20T23:59:59.999+01:00"}, None),
        ("{day}", {"@timestamp": "2026-13-20T23:59:59.999Z"}, None),
        ("{day}", {"@timestamp": "../../etc/passwd/passwdZ"}, None),
    ],
)
def test_a_template_is_filled_from_the_event_or_is_none(text, event, result):
    assert Template(text)(event) == result


def test_a_template_knows_the_fields_that_it_reads():
    assert Template("{a.b}-{c}-{day}").fields == {"a", "a.b", "c", "@timestamp"}
    assert Template("{a.b}-{c}-{day}").names == ["a.b", "c", "day"]
    assert Template("plain").fields == set()


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{}", "{a}{", "{{a}}"])
def test_a_template_with_unbalanced_or_empty_braces_is_refused(text):
    with pytest.raises(ValueError, match=r"braces in .* must enclose the name of a field"):
        Template(text)


def test_what_is_derived_depends_on_the_id_and_the_purpose_alone():
    one = derived({ID: "x-1", "a": 1}, "correlation")
    assert one == derived({ID: "x-1", "a": 2}, "correlation")
    assert len({one, derived({ID: "x-2"}, "correlation"), derived({ID: "x-1"}, "other")}) == 3
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")

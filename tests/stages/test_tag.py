from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contract import Event
from stages.tag import Tag


def run(event: Event, **options: Any) -> Any:
    (after,) = Tag(Tag.Options(**options))([event])
    return after.get("tags")


@pytest.mark.parametrize(
    ("event", "tags"),
    [
        ({"env": "prod"}, ["prod"]),
        ({}, None),
        ({"env": ""}, None),
        ({"env": 5}, ["5"]),
        ({"env": "prod", "tags": ["a"]}, ["a", "prod"]),
        ({"env": "prod", "tags": ["prod"]}, ["prod"]),
        ({"env": "prod", "tags": "a"}, ["a", "prod"]),
        ({"env": "prod", "tags": None}, ["prod"]),
        ({"tags": "a"}, "a"),
    ],
)
def test_a_tag_with_a_field_is_added_where_there_is_the_field(event, tags):
    assert run(event, add=["{env}"]) == tags


def test_several_tags_are_added_in_order_and_once():
    assert run({"a": "x", "b": "y"}, add=["one", "{a}-{b}", "{missing}", "one", "x-y"]) == ["one", "x-y"]
    assert run({}, add=["{missing}", "{a}"]) is None


@pytest.mark.parametrize(
    ("tags", "after"),
    [
        (["a", "b", "a", "c"], ["b", "c"]),
        (["a"], []),
        ("a", []),
        ("b", ["b"]),
        (5, [5]),
        ([{"a": 1}], [{"a": 1}]),
        (None, None),
    ],
)
def test_tags_are_removed(tags, after):
    assert run({"tags": tags}, remove=["a"]) == after


def test_nothing_to_remove_makes_no_tags():
    assert run({}, remove=["a"]) is None


def test_a_tag_in_both_lists_is_there_at_the_end():
    assert run({"tags": ["b", "a"]}, add=["b"], remove=["b"]) == ["a", "b"]


@pytest.mark.parametrize("options", [{"add": ["x"]}, {"remove": ["x"]}])
def test_tags_that_are_an_object_are_an_error(options):
    with pytest.raises(TypeError, match="tags is an object"):
        run({"tags": {"x": 1}}, **options)


def test_lists_that_the_event_came_with_are_not_changed():
    shared = ["a", "b"]
    assert run({"tags": shared}, add=["c"], remove=["a"]) == ["b", "c"]
    assert shared == ["a", "b"]


def test_it_says_what_it_reads_and_adds():
    stage = Tag(Tag.Options(add=["{a.b}-{day}", "c"]))
    assert stage.reads == {"a", "a.b", "@timestamp", "tags"}
    assert stage.adds == {"tags"}


def test_a_broken_template_is_an_error():
    with pytest.raises(ValidationError, match="must enclose the name of a field"):
        Tag.Options(add=["{env"])

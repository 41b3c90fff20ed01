import pytest
from pydantic import ValidationError

from pipeline.contract import Event
from stages.rename import Rename


def run(event: Event, fields: dict[str, str]) -> Event:
    (after,) = Rename(Rename.Options(fields=fields))([event])
    return after


@pytest.mark.parametrize(
    ("event", "fields", "after"),
    [
        ({"a": 1, "x": 2}, {"a": "b"}, {"b": 1, "x": 2}),
        ({"a": False}, {"a": "b"}, {"b": False}),
        ({"x": 2}, {"a": "b"}, {"x": 2}),
        ({"a": None}, {"a": "b"}, {"a": None}),
        ({"a": 1, "b": 2}, {"a": "b"}, {"b": 1}),
        ({"a": None, "b": 2}, {"a": "b"}, {"a": None, "b": 2}),
        ({"a": {"b": 1}}, {"a.b": "c"}, {"c": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a.b": "d.e"}, {"a": {"c": 2}, "d": {"e": 1}}),
        ({"a.b": 1}, {"a.b": "c"}, {"c": 1}),
        ({"a": 1, "b": 2}, {"a": "b", "b": "a"}, {"b": 1, "a": 2}),
        ({"a": 1, "b": 2}, {"a": "b", "b": "c"}, {"b": 1, "c": 2}),
        ({"a": {"b": 1}}, {"a": "x", "a.b": "y"}, {"x": {"b": 1}}),
        ({"a": 1}, {"a": "a"}, {"a": 1}),
        ({"a": 1}, {"a": "a.name"}, {"a": {"name": 1}}),
    ],
)
def test_fields_get_other_names(event, fields, after):
    assert run(event, fields) == after


def test_a_scalar_in_the_way_is_an_error():
    with pytest.raises(TypeError, match=r"user\.id: user is not an object"):
        run({"userId": 5, "user": "ann"}, {"userId": "user.id"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least 1"),
        ({"a": ""}, "'' can't be renamed"),
        ({"": "a"}, "'' can't be renamed"),
        ({"a": "@id"}, "'@id' can't be renamed"),
        ({"@index": "a"}, "'@index' can't be renamed"),
        ({"a": "c", "b": "c"}, "same new name"),
    ],
)
def test_a_wrong_option_is_an_error(fields, message):
    with pytest.raises(ValidationError, match=message):
        Rename.Options(fields=fields)

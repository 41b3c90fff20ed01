from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from pipeline.validation import problems
from pipeline.yaml_positions import parse


class Inner(BaseModel, extra="forbid"):
    word: str = Field(alias="Word")
    more: "list[Inner]" = []


class Pair(BaseModel, extra="forbid"):
    left: int
    right: int


class Model(BaseModel, extra="forbid"):
    number: int = 1
    inner: Inner | None = None
    table: dict[str, Inner] = {}
    choice: int | list[int] = 1
    listen: str = Field(default=":80", pattern=r":\d+$", description="Address and port.")
    bare: str = Field(default="x", pattern="^x$")
    path: Path | None = None
    pair: Pair | None = None

    @field_validator("number")
    @classmethod
    def _small(cls, value: int) -> int:
        if value > 9:
            raise ValueError("too large")
        return value


def found(text: str, place: tuple[str | int, ...] = (), beside: set[str] | None = None) -> list[tuple[int, str]]:
    tree = parse(text, {})
    value: Any = tree.value
    for step in place:
        value = value[step]
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(value)
    return [(each.mark.column, each.message) for each in problems(caught.value, Model, tree, place, beside or set())]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("{number: x}", 10, "number: Input should be a valid integer, unable to parse string as an integer"),
        ("{number: 10}", 10, "number: too large"),
        ("{nummer: 1}", 2, "unknown key 'nummer'; did you mean 'number'?"),
        ("{inner: {zzz: 1, Word: a}}", 10, "unknown key 'zzz'; there is 'Word', 'more'"),
        ("{inner: {}}", 2, "'Word' is missing"),
        ("{inner: {word: a, Word: b}}", 10, "unknown key 'word'; did you mean 'Word'?"),
        ("{inner: {Word: b, more: [{Wrod: 1, Word: c}]}}", 27, "unknown key 'Wrod'; did you mean 'Word'?"),
        ("{table: {x: {Word: a, mroe: []}}}", 23, "unknown key 'mroe'; did you mean 'more'?"),
        ("{table: {x: 1}}", 13, "keys with values must stand here"),
        ("{inner: {Word: a, more: 1}}", 25, "inner.more: a list must stand here, in brackets"),
        ("{listen: x}", 10, "listen: this does not fit; wanted is: Address and port."),
        ("{bare: 5}", 8, "bare: a text must stand here, in quotes where it looks like a number"),
        ("{path: 5}", 8, "path: a path must stand here"),
        ("{pair: {}}", 2, "'left' is missing; also: 'right' is missing"),
        ("{bare: y}", 8, "bare: this does not fit; wanted is: another text"),
        ("[1]", 1, "keys with values must stand here"),
    ],
)
def test_an_error_is_told_at_the_place_that_it_concerns(text, column, message):
    assert found(text) == [(column, message)]


def test_the_places_of_a_part_of_the_file_are_found():
    assert found("a: [{number: x}]", ("a", 0))[0][0] == 14


def test_keys_that_may_stand_beside_are_suggested_at_the_top_only():
    assert found("{tpye: 1}", beside={"type"}) == [(2, "unknown key 'tpye'; did you mean 'type'?")]
    assert "'type'" not in found("{inner: {Word: a, tpye: 1}}", beside={"type"})[0][1]


def test_what_fits_no_branch_of_a_union_is_told_once():
    ((column, message),) = found("{choice: x}")
    assert column == 10
    assert message.count("; or: ") == 1


def test_the_same_words_for_two_branches_are_not_said_twice():
    ((_, message),) = found("{choice: {}}")
    assert message == "choice: Input should be a valid integer; or: choice: a list must stand here, in brackets"

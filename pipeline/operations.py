"""What `when:` expressions compare, calculate and call. Nothing raises: where Python would, it is false or None."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from pipeline.patterns import finder


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison that is false with None and where Python has none."""

    def compare(a: Any, b: Any) -> bool:
        if a is None or b is None:
            return False
        try:
            return test(a, b)
        except TypeError:
            return False

    return compare


def _calculate(result: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Arithmetic for numbers alone: `"x" * 10**9` and `"%999999999d" % 1` would fill the memory."""

    def calculate(a: Any, b: Any) -> Any:
        if not isinstance(a, int | float) or not isinstance(b, int | float):
            return None
        try:
            return result(a, b)
        except ArithmeticError:
            return None

    return calculate


COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _compare(operator.eq),
    ast.NotEq: _compare(operator.ne),
    ast.Lt: _compare(operator.lt),
    ast.LtE: _compare(operator.le),
    ast.Gt: _compare(operator.gt),
    ast.GtE: _compare(operator.ge),
    ast.In: _compare(lambda a, b: a in b),
    ast.NotIn: _compare(lambda a, b: a not in b),
}

# No power and no shift: a short expression of theirs has a result that no memory holds.
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _calculate(operator.add),
    ast.Sub: _calculate(operator.sub),
    ast.Mult: _calculate(operator.mul),
    ast.Div: _calculate(operator.truediv),
    ast.FloorDiv: _calculate(operator.floordiv),
    ast.Mod: _calculate(operator.mod),
}


def item(value: Any, key: Any) -> Any:
    """An object's or list's entry, None where there is none."""
    if isinstance(value, dict):
        return value.get(key) if isinstance(key, str) else None
    if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return None


def _size(value: Any) -> int | None:
    return len(value) if isinstance(value, str | list | dict) else None


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of texts; None for a value that is none, or with an argument that it can't take."""

    def call(value: Any, *arguments: Any) -> Any:
        try:
            return function(value, *arguments) if isinstance(value, str) else None
        except TypeError:
            return None

    return call


METHODS = {name: _method(getattr(str, name)) for name in ("startswith", "endswith", "lower", "upper")}


def match_finder(pattern: str) -> Callable[[Any], bool]:
    """Whether a text has a match of the pattern. Raises `ValueError` on a bad one."""
    find = finder([pattern])
    return lambda value: isinstance(value, str) and find(value.encode(errors="replace")) >= 0


FUNCTIONS = {"len": _size, "lower": METHODS["lower"]}

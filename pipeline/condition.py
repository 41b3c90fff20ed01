"""`when:` expressions: Python expressions over an event's fields, restricted to what is safe, compiled once.

    category == "audit" and request.statusCode >= 400
    level in ["error", "fatal"] and not exists(user.id)
    message.lower().startswith("timeout") or matches(message, "refused|reset by peer")

A name is a field; `request.statusCode` is a path (see `pipeline.fields`), `labels["a.b"]` an entry of an object or
list, and `field("@timestamp")` a field whose name Python could not read. Methods: `startswith`, `endswith`, `lower`,
`upper`. Functions: `len`, `lower`, `exists`, `matches` (a regular expression, found anywhere, in linear time: no
look-around or back-reference), `field`.

A field that is missing is None. Nothing raises: a comparison with None is false unless None is written out
(`user == None`, `user is not None`), and so is one of values that have no order or can't hold each other
(`"a" > 1`); so `level != "info"` is false where there is no level, and `not level == "info"` is true. Arithmetic is
for numbers; with anything else, and by zero, it gives None.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.contract import Event
from pipeline.fields import getter, tops
from pipeline.operations import ARITHMETIC, COMPARISONS, FUNCTIONS, METHODS, item, match_finder

LONGEST = 4096
"""Characters of an expression."""

DEEPEST = 50
"""Levels of nesting of an expression."""

ALLOWED = (
    "fields, text, numbers, True, False, None, lists of these, == != < <= > >= in, not in, is None, and, or, not, "
    "+ - * / // %, [...], .startswith() .endswith() .lower() .upper(), len() lower() exists() matches() field()"
)

_WRONG_CASE = {"true": "True", "false": "False", "null": "None"}


class Condition:
    """A compiled expression; calling it with an event says whether it holds.

    Raises `ValueError` for one that is no expression or not allowed; the message has the column, from 1.
    `fields` holds the top-level fields that it reads.
    """

    __slots__ = ("_test", "fields", "text")

    def __init__(self, text: str) -> None:
        compiler = _Compiler(text)
        self.text = text
        self._test: Callable[[Event], bool] = compiler.compile()
        self.fields = frozenset(compiler.fields)

    def __call__(self, event: Event) -> bool:
        """Whether the expression holds for the event."""
        try:
            return self._test(event)
        except RecursionError:  # a comparison of two values nested hundreds deep: they have no order either
            return False

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"


class _Compiler:
    """Turns the allowed part of Python's syntax tree into another one that can't raise, and that into a function.

    The new tree has names only for what stands in `names`, so nothing of the text reaches Python but its constants.
    The methods that build are called `_` and the kind of node.
    """

    def __init__(self, text: str) -> None:
        flat = text.replace("\n", " ").replace("\r", " ")
        # Without leading blanks, which Python would take for an indentation; the columns count them.
        self.text = flat.lstrip()
        self.indent = len(flat) - len(self.text)
        self.fields: set[str] = set()
        self.names: dict[str, Any] = {"__builtins__": {}}

    def compile(self) -> Callable[[Event], bool]:
        """The function of an event."""
        with warnings.catch_warnings(action="ignore"):  # of "\\d" without r, of `1 is None`: both mean what they say
            return self._compile()

    def _compile(self) -> Callable[[Event], bool]:
        test = self.build(self._parse(), 0)
        # `and` and `or` give one of their operands: this makes it a boolean.
        whole = ast.IfExp(test, ast.Constant(value=True), ast.Constant(value=False))
        argument = ast.arguments(posonlyargs=[], args=[ast.arg("e")], kwonlyargs=[], kw_defaults=[], defaults=[])
        tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(argument, whole)))
        code = compile(tree, "<when>", "eval")
        return eval(code, self.names)  # type: ignore[no-any-return]  # noqa: S307 - made of the allowed nodes only

    def _parse(self) -> ast.expr:
        if len(self.text) > LONGEST:
            raise ValueError(f"an expression has at most {LONGEST} characters, this one {len(self.text)}")
        try:
            return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            at = error.offset or len(self.text) + 1  # Python gives no place behind the end
            hints = {"=": "; to compare, write ==", "": "; something is missing at the end"}
            hint = hints.get(self.text[at - 1 : at], "")
            raise ValueError(f"column {at + self.indent}: {error.msg}{hint}") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError(f"column 1: more than {DEEPEST} levels are not allowed") from error

    def build(self, node: ast.expr, depth: int) -> ast.expr:
        """The node's counterpart in the new tree."""
        if depth > DEEPEST:
            self.fail(node, f"more than {DEEPEST} levels are not allowed")
        if (path := self._path(node)) is not None:
            return self.field(path)
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            self.refuse(node)
        built: ast.expr = method(node, depth + 1)
        return built

    def fail(self, node: ast.expr, why: str) -> NoReturn:
        """Raise a `ValueError` that points at the node."""
        before = self.text.encode()[: node.col_offset].decode()
        raise ValueError(f"column {self.indent + len(before) + 1}: {why}")

    def refuse(self, node: ast.expr) -> NoReturn:
        """Raise a `ValueError` that says what is allowed instead of the node."""
        self.fail(node, f"{_shown(node)} is not allowed; there is {ALLOWED}")

    def name(self, value: Any) -> ast.expr:
        """A name for one of our own values."""
        name = f"v{len(self.names)}"
        self.names[name] = value
        return ast.Name(name, ast.Load())

    def call(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.expr:
        """A call of one of our functions."""
        return ast.Call(self.name(function), [*arguments], [])

    def field(self, path: str) -> ast.expr:
        """The value of a field: without a function of ours where it stands at the top."""
        if "." in path:
            self.fields |= tops(path)
            return self.call(getter(path), ast.Name("e", ast.Load()))
        self.fields.add(path)
        get = ast.Attribute(ast.Name("e", ast.Load()), "get", ast.Load())
        return ast.Call(get, [ast.Constant(path)], [])

    def _path(self, node: ast.expr) -> str | None:
        """The path that a name, a chain of attributes or `field("…")` spells."""
        if isinstance(node, ast.Name):
            if node.id in _WRONG_CASE:
                self.fail(node, f"write {_WRONG_CASE[node.id]}")
            return self._plain(node, node.id)
        if isinstance(node, ast.Attribute):
            before = self._path(node.value)
            return None if before is None else f"{before}.{self._plain(node, node.attr)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
            return self._quoted(node, *node.args)
        return None

    def _plain(self, node: ast.expr, name: str) -> str:
        if name.startswith("__"):
            self.fail(node, f"{name!r} is not allowed; write field({name!r}) for a field of that name")
        return name

    def _quoted(self, call: ast.Call, *arguments: ast.expr) -> str:
        """The text that is the call's only argument."""
        value = arguments[0].value if len(arguments) == 1 and isinstance(arguments[0], ast.Constant) else None
        if not isinstance(value, str) or not value or call.keywords:
            self.fail(call, f"{_shown(call)} must have one text in quotes")
        return value

    def _constant(self, node: ast.Constant, _: int) -> ast.expr:
        if node.value is not None and not isinstance(node.value, str | int | float):
            self.refuse(node)
        return ast.Constant(node.value)

    def _attribute(self, node: ast.Attribute, depth: int) -> ast.expr:
        return self.call(item, self.build(node.value, depth), ast.Constant(self._plain(node, node.attr)))

    def _subscript(self, node: ast.Subscript, depth: int) -> ast.expr:
        return self.call(item, self.build(node.value, depth), self.build(node.slice, depth))

    def _boolop(self, node: ast.BoolOp, depth: int) -> ast.expr:
        return ast.BoolOp(node.op, [self.build(value, depth) for value in node.values])

    def _unaryop(self, node: ast.UnaryOp, depth: int) -> ast.expr:
        operand = self.build(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, operand)
        if not isinstance(node.op, ast.USub):
            self.refuse(node)
        if isinstance(operand, ast.Constant) and isinstance(operand.value, int | float):
            return ast.Constant(-operand.value)
        return self.call(ARITHMETIC[ast.Sub], ast.Constant(0), operand)

    def _binop(self, node: ast.BinOp, depth: int) -> ast.expr:
        if type(node.op) not in ARITHMETIC:
            self.refuse(node)
        return self.call(ARITHMETIC[type(node.op)], self.build(node.left, depth), self.build(node.right, depth))

    def _list(self, node: ast.List | ast.Tuple | ast.Set, depth: int) -> ast.expr:
        values = [self.build(each, depth) for each in node.elts]
        if not all(isinstance(value, ast.Constant) for value in values):
            self.fail(node, "a list holds only text, numbers, True, False and None")
        return ast.List(values, ast.Load())

    _tuple = _set = _list

    def _compare(self, node: ast.Compare, depth: int) -> ast.expr:
        """`a < b < c` as `a < b and b < c`."""
        operands = [node.left, *node.comparators]
        tests = [
            self._test(node, op, self.build(a, depth), self.build(b, depth))
            for op, a, b in zip(node.ops, operands, operands[1:], strict=False)
        ]
        return ast.BoolOp(ast.And(), tests) if len(tests) > 1 else tests[0]

    def _test(self, node: ast.Compare, op: ast.cmpop, a: ast.expr, b: ast.expr) -> ast.expr:
        none = any(isinstance(each, ast.Constant) and each.value is None for each in (a, b))
        if isinstance(op, ast.Is | ast.IsNot) and not none:
            self.fail(node, "'is' goes with None alone; write ==")
        # A missing field equals no constant, and == never raises: Python's own comparison is right, and fastest.
        constant = isinstance(op, ast.Eq) and (isinstance(a, ast.Constant) or isinstance(b, ast.Constant))
        if constant or (none and isinstance(op, ast.Is | ast.IsNot | ast.NotEq)):
            return ast.Compare(a, [op], [b])
        if isinstance(op, ast.In | ast.NotIn) and isinstance(b, ast.List):
            b = self.name(tuple(ast.literal_eval(b)))  # made once, not with every event
        return self.call(COMPARISONS[type(op)], a, b)

    def _call(self, node: ast.Call, depth: int) -> ast.expr:
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            return self._call_of_method(node, node.func, depth)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "exists":
            return self._exists(node, depth)
        if name == "matches":
            return self._matches(node, depth)
        if name not in FUNCTIONS:
            self.fail(node, f"a call of {_shown(node.func)} is not allowed; there is {ALLOWED}")
        (argument,) = self._arguments(node, 1)
        return self.call(FUNCTIONS[name], self.build(argument, depth))

    def _arguments(self, node: ast.Call, count: int) -> list[ast.expr]:
        if len(node.args) != count or node.keywords:
            self.fail(node, f"{_shown(node)} must have {count or 'no'} argument{'s' * (count != 1)}")
        return node.args

    def _call_of_method(self, node: ast.Call, function: ast.Attribute, depth: int) -> ast.expr:
        built = [self.build(each, depth) for each in self._arguments(node, 1 if "with" in function.attr else 0)]
        # Python takes several prefixes as a tuple only.
        built = [ast.Tuple(each.elts, ast.Load()) if isinstance(each, ast.List) else each for each in built]
        return self.call(METHODS[function.attr], self.build(function.value, depth), *built)

    def _exists(self, node: ast.Call, depth: int) -> ast.expr:
        (argument,) = self._arguments(node, 1)
        quoted = isinstance(argument, ast.Constant)
        value = self.field(self._quoted(node, argument)) if quoted else self.build(argument, depth)
        return ast.Compare(value, [ast.IsNot()], [ast.Constant(value=None)])

    def _matches(self, node: ast.Call, depth: int) -> ast.expr:
        value, pattern = self._arguments(node, 2)
        text = self._quoted(node, pattern)
        try:
            find = match_finder(text)
        except ValueError as error:
            self.fail(pattern, f"{_shown(pattern)}: {error}")
        return self.call(find, self.build(value, depth))


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

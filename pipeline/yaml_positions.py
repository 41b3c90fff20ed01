"""YAML as plain values, with the line and column of every one of them and every problem at once.

Scalars are read by the core schema of YAML 1.2: `no`, `on` and `12:30` are text (in YAML 1.1 they are false, true and
750). Keys are always text, and a key twice in one mapping is a problem. `${NAME}`, `${NAME:-default}` and
`${file:/run/secrets/x}` are replaced in values after parsing, so no value can change the structure; `$${` stands for
`${`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Place = tuple[str | int, ...]
"""The way to a value: the keys and list positions from the root."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


class Mark(NamedTuple):
    """A place in a text, counted from 1, columns in characters."""

    line: int
    column: int


class Problem(NamedTuple):
    """Something wrong at a place, in words for the author of the file."""

    mark: Mark
    message: str

    def show(self, path: str, text: str) -> str:
        """`path:line:column: message`, and the line, where there is one, with a caret below the column.

        Line 0 stands for the whole file.
        """
        if not self.mark.line:
            return f"{path}: {self.message}"
        head = f"{path}:{self.mark.line}:{self.mark.column}: {self.message}"
        line = "".join(text.splitlines()[self.mark.line - 1 : self.mark.line])
        if not line.strip():
            return head
        indent = re.sub(r"[^\t]", " ", line[: self.mark.column - 1])
        line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line)
        return f"{head}\n{self.mark.line:5} | {line}\n      | {indent}^"


@dataclass(slots=True)
class Tree:
    """A parsed text. Where `problems` is not empty, the values concerned are missing or None."""

    value: Any = None
    marks: dict[Place, Mark] = field(default_factory=dict)
    """Where each value stands."""
    keys: dict[Place, Mark] = field(default_factory=dict)
    """Where the key of each value in a mapping stands."""
    problems: list[Problem] = field(default_factory=list)

    def mark(self, place: Place) -> Mark:
        """Where a value stands, or the nearest one around it."""
        while place and place not in self.marks:
            place = place[:-1]
        return self.marks.get(place, Mark(1, 1))

    def key(self, place: Place) -> Mark:
        """Where the key of a value stands; the value itself where it has none."""
        return self.keys.get(place) or self.mark(place)


def parse(text: str, environment: Mapping[str, str]) -> Tree:
    """Parse a text; variables come from `environment`. Never raises: see `Tree.problems`."""
    tree = Tree()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        tree.problems.append(_syntax(error, text))
        return tree
    if node is not None:
        tree.value = _Builder(tree, environment).value(node, ())
    return tree


class _Loader(yaml.CSafeLoader):
    """Tells the types of plain scalars apart as YAML 1.2's core schema does."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(?:null|Null|NULL|~|)$", [*"nN~", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", [*"-+.0123456789"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)

_SCALARS: dict[str, Any] = {
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": lambda text: int(text, 0) if text[:2] in {"0o", "0x"} else int(text),
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}


class _Builder:
    def __init__(self, tree: Tree, environment: Mapping[str, str]) -> None:
        self._tree, self._environment = tree, environment
        self._open: set[int] = set()

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._tree.marks[place] = mark = _mark(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, mark)
        if id(node) in self._open:
            self._wrong(mark, "this alias stands inside of what it stands for")
            return None
        self._open.add(id(node))
        make = self._mapping if isinstance(node, yaml.MappingNode) else self._sequence
        made = make(node, place)
        self._open.discard(id(node))
        return made

    def _mapping(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            mark = _mark(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(mark, "a key must be a single value")
            elif key.value in made:
                first = self._tree.keys[*place, key.value]
                self._wrong(mark, f"the key {key.value!r} is already there in line {first.line}")
            else:
                self._tree.keys[*place, key.value] = mark
                made[key.value] = self.value(value, (*place, key.value))
        return made

    def _sequence(self, node: yaml.Node, place: Place) -> list[Any]:
        return [self.value(each, (*place, n)) for n, each in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, mark: Mark) -> Any:
        if node.tag not in _SCALARS:
            self._wrong(mark, f"the tag {node.tag!r} means nothing here")
            return None
        try:
            value = _SCALARS[node.tag](node.value)
            if isinstance(value, str):
                return _VARIABLE.sub(lambda match: variable(match, self._environment), value)
        except ValueError as error:
            self._wrong(mark, str(error))
            return None
        return value

    def _wrong(self, mark: Mark, message: str) -> None:
        self._tree.problems.append(Problem(mark, message))


def variable(match: re.Match[str], environment: Mapping[str, str]) -> str:
    """What stands for one `${…}`; raises `ValueError` where nothing does."""
    inside, closed = match.groups()
    if inside is None:
        return "${"
    if not closed:
        raise ValueError("'${' without '}'; write '$${' where no variable is meant")
    if inside.startswith("file:"):
        return _file(inside.removeprefix("file:"))
    if inside.startswith("credential:"):
        if not (folder := environment.get("CREDENTIALS_DIRECTORY")):
            raise ValueError(
                f"'${{{inside}}}': systemd gives no credentials here; that takes LoadCredential= in the unit"
            )
        return _file(f"{folder}/{inside.removeprefix('credential:')}")
    parts = _NAME.fullmatch(inside)
    if parts is None:
        raise ValueError(f"'${{{inside}}}' names no variable; write '$${{' where none is meant")
    name, has_default, default = parts.groups()
    if value := environment.get(name, ""):
        return value
    if has_default:
        return default
    if name in environment:
        return ""
    raise ValueError(f"the environment variable {name} is not set; give it a value, or write '${{{name}:-default}}'")


def _file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _syntax(error: yaml.YAMLError, text: str) -> Problem:
    """What the YAML parser says, at the place where it noticed."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        context = f" {error.context} that began in line {_mark(error.context_mark).line}" if error.context_mark else ""
        mark = _mark(error.problem_mark)
        line = "".join(text.split("\n")[mark.line - 1 : mark.line])
        hint = '; inside of {…} and […], write "${NAME}" with quotes' if "${" in line else ""
        if line[mark.column - 1 : mark.column] == "\t":
            hint = "; indent with blanks, not with tabs"
        return Problem(mark, f"no valid YAML: {error.problem}{context}{hint}")
    # libyaml counts this position in bytes.
    before = text.encode()[: getattr(error, "position", 0)].decode(errors="ignore").split("\n")
    return Problem(Mark(len(before), len(before[-1]) + 1), f"no valid YAML: {getattr(error, 'reason', error)}")

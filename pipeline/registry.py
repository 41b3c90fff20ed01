"""A name → its class, lazily, by convention.

The stage `geoip` is the one class with a nested `Options` in the module `stages.geoip`; inputs and outputs are found
the same way in `pipeline.inputs` and `pipeline.outputs`. What is not there may come from an installed distribution
through the entry point groups `aiologs.stages`, `aiologs.inputs` and `aiologs.outputs`, whose entries name a class.
So an author edits one file, and only what a configuration names is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from inspect import cleandoc, getdoc
from pkgutil import iter_modules
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Kind = Literal["input", "output", "stage"]

PACKAGES: dict[Kind, str] = {"input": "pipeline.inputs", "output": "pipeline.outputs", "stage": "stages"}

# A module with such a class is a part; the others beside it only make decisions for one.
_OPTIONS = re.compile(r"^\s+class Options\b", re.MULTILINE)
_DECODE = re.compile(r"^\s+def decode\b", re.MULTILINE)


class Unknown(LookupError):
    """There is no part of that name, or it can't be imported; the message has the nearest names."""


def find(kind: Kind, name: str) -> type[Any]:
    """The class of an input, output or stage; raises `Unknown`."""
    found = _built_in(kind, name) or _installed(kind, name)
    if found is None:
        raise Unknown(f"unknown {kind} {name!r}{nearest(name, names(kind))}")
    return found


def options(kind: Kind, name: str) -> type[BaseModel]:
    """The pydantic model of a part's options; raises `Unknown`."""
    return cast("type[BaseModel]", find(kind, name).Options)


def names(kind: Kind) -> list[str]:
    """All parts of a kind, sorted, without importing any of them."""
    return sorted({*_modules(kind, _OPTIONS), *_entry_points(kind)})


def decoders() -> list[str]:
    """The built-in stages that can also stand behind an input's `decode:`, without importing them."""
    return sorted(_modules("stage", _DECODE))


def nearest(name: str, known: list[str]) -> str:
    """What to add to a message about an unknown name: the nearest known ones, else all of them."""
    folded = {each.lower(): each for each in known}
    if close := get_close_matches(name.lower(), folded, n=2, cutoff=0.6):
        return f"; did you mean {' or '.join(repr(folded[each]) for each in close)}?"
    return f"; there is {', '.join(map(repr, sorted(known)))}" if known else ""


def _built_in(kind: Kind, name: str) -> type[Any] | None:
    # Anything else could reach outside the package: "..config", "file.File".
    if not name.isidentifier() or name.startswith("_"):
        return None
    path = f"{PACKAGES[kind]}.{name}"
    if find_spec(path) is None:
        return None
    try:
        return _part(import_module(path))
    except ImportError as error:
        raise Unknown(f"{kind} {name!r} can't be imported: {error}") from error


def _part(module: ModuleType) -> type[Any] | None:
    """The class of a module that has options; None where the module is no part."""
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    parts = [each for each in classes if "Options" in vars(each)]
    if len(parts) > 1:
        raise TypeError(f"{module.__name__} has more than one class with Options: {', '.join(map(str, parts))}")
    return parts[0] if parts else None


def _installed(kind: Kind, name: str) -> type[Any] | None:
    point = _entry_points(kind).get(name)
    if point is None:
        return None
    try:
        return cast("type[Any]", point.load())
    except (ImportError, AttributeError) as error:
        raise Unknown(f"{kind} {name!r} ({point.value}) can't be imported: {error}") from error


def _entry_points(kind: Kind) -> dict[str, Any]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms that a configuration of built-in parts spares

    return {point.name: point for point in entry_points(group=f"aiologs.{kind}s")}


def _modules(kind: Kind, marker: re.Pattern[str]) -> list[str]:
    package = import_module(PACKAGES[kind])
    modules = [module.name for module in iter_modules(package.__path__) if not module.name.startswith("_")]
    return [name for name in modules if marker.search(_source(f"{PACKAGES[kind]}.{name}"))]


def _source(path: str) -> str:
    loader: Any = getattr(find_spec(path), "loader", None)
    return loader.get_source(path) or ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a part, for people."""

    name: str
    type: str
    default: str
    """As JSON would have it; empty where the option is required."""
    description: str
    required: bool


@dataclass(frozen=True, slots=True)
class Description:
    """A part, for people."""

    kind: Kind
    name: str
    doc: str
    """The docstring of its module, or of its class where it has none."""
    options: list[Option]

    @property
    def summary(self) -> str:
        """The first sentence or line of its documentation."""
        return self.doc.split("\n\n")[0].replace("\n", " ")

    def __str__(self) -> str:
        """The documentation and a table of the options."""
        lines = [f"{self.kind} {self.name}", "", self.doc, "", "Options" if self.options else "It has no options."]
        for option in self.options:
            default = "required" if option.required else f"default {option.default}"
            lines += [f"  {option.name}: {option.type} ({default})", f"      {option.description}"]
        return "\n".join(lines)


def describe(kind: Kind, name: str) -> Description:
    """What a part does and its options; raises `Unknown`."""
    found = find(kind, name)
    doc = getdoc(import_module(found.__module__)) or getdoc(found) or ""
    fields: dict[str, FieldInfo] = found.Options.model_fields
    return Description(kind, name, cleandoc(doc), [_option(key, field) for key, field in fields.items()])


def _option(name: str, field: FieldInfo) -> Option:
    required = field.is_required()
    default = "" if required else _shown(field.get_default(call_default_factory=True, validated_data={}))
    return Option(field.alias or name, type_text(field.annotation), default, field.description or "", required)


def _shown(default: Any) -> str:
    from pydantic_core import to_json  # noqa: PLC0415 - only documentation needs it

    text = to_json(default, fallback=str).decode()
    return text if len(text) <= 200 else f"{text[:200]}…"


def type_text(annotation: Any) -> str:
    """A type as people write it: `list[str] | null`, `"client" | "content"`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return " | ".join(map(type_text, args))
    if origin is Literal:
        return " | ".join(f'"{arg}"' if isinstance(arg, str) else str(arg) for arg in args)
    if annotation is NoneType:
        return "null"
    if origin is Annotated:
        return type_text(args[0])
    if origin is None:
        return getattr(annotation, "__name__", str(annotation))
    return f"{getattr(origin, '__name__', origin)}[{', '.join('…' if arg is ... else type_text(arg) for arg in args)}]"

"""pydantic's errors as problems at places in a YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.registry import nearest
from pipeline.yaml_positions import Mark, Place, Problem, Tree


def problems(
    error: ValidationError, model: type[BaseModel], tree: Tree, place: Place, beside: AbstractSet[str]
) -> list[Problem]:
    """What `error` says about the mapping at `place`, which `model` did not take.

    `beside` are keys that may stand there though the model does not know them, for the nearest name.
    """
    found: dict[Mark, Problem] = {}
    before: Place = ()
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        problem = _problem(each["type"], each["msg"], each["loc"], model, tree, place, beside)
        first = found.setdefault(problem.mark, problem)
        if problem.message not in first.message:
            # One value may be wrong for every branch of a union; what is missing, each is.
            way = "also: " if each["type"] == "missing" and each["loc"][:-1] == before else "or: "
            found[problem.mark] = Problem(problem.mark, f"{first.message}; {way}{problem.message}")
        before = each["loc"][:-1]
    return list(found.values())


def _problem(
    kind: str, message: str, loc: Place, model: type[BaseModel], tree: Tree, place: Place, beside: AbstractSet[str]
) -> Problem:
    at = place
    for step in loc:  # beside keys and positions it holds names of the branches of a union
        if (*at, step) in tree.marks:
            at = (*at, step)
    last = str(loc[-1]) if loc else ""
    if kind == "extra_forbidden":
        known = _fields(model, loc[:-1]) | (beside if len(loc) == 1 else set())
        return Problem(tree.key(at), f"unknown key {last!r}{nearest(last, sorted(known))}")
    if kind == "missing":
        return Problem(tree.key(at), f"{last!r} is missing")
    if kind in {"model_type", "dict_type"}:
        return Problem(tree.mark(at), "keys with values must stand here")
    if kind == "list_type":
        message = "a list must stand here, in brackets"
    elif kind == "string_pattern_mismatch":  # a pattern tells a user less than what is wanted
        message = f"this does not fit; wanted is: {_description(model, loc)}"
    elif kind == "string_type":
        message = "a text must stand here, in quotes where it looks like a number"
    elif kind == "path_type":
        message = "a path must stand here"
    keys = ".".join(str(step) for step in at[len(place) :])
    return Problem(tree.mark(at), f"{keys}{': ' if keys else ''}{message.removeprefix('Value error, ')}")


def _fields(model: type[BaseModel], way: Place) -> set[str]:
    """The keys that are known where `way` leads from a model."""
    return {field.alias or name for each in _reached(model, way) for name, field in each.model_fields.items()}


def _description(model: type[BaseModel], way: Place) -> str:
    """What the field to which `way` leads says of itself."""
    fields = [each.model_fields.get(str(way[-1])) for each in _reached(model, way[:-1])]
    return next((field.description for field in fields if field and field.description), "another text")


def _reached(model: type[BaseModel], way: Place) -> list[type[BaseModel]]:
    models = [model]
    for step in way:
        found = [each.model_fields[str(step)].annotation for each in models if str(step) in each.model_fields]
        models = [inner for annotation in found for inner in _models(annotation)] or models
    return models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)

"""The JSON schema of the configuration file, for editors: made from the options of every part there is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from pipeline import registry
from pipeline.registry import Kind
from pipeline.settings import Settings

_VARIABLE = {"type": "string", "pattern": r"\$\{.*\}"}
_WHEN = {
    "type": "string",
    "description": "A condition on the event's fields; the stage sees only events for which it holds.",
}
_NAME = {"type": "string", "description": "Its name in metrics and dead letters; by default its type."}


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12). Imports every part."""
    kinds: tuple[Kind, ...] = ("input", "output", "stage")
    models = {(kind, name): registry.options(kind, name) for kind in kinds for name in registry.names(kind)}
    every: list[type[BaseModel]] = [Settings, *models.values()]
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in every]
    references, whole = models_json_schema(pairs, ref_template="#/$defs/{model}")
    definitions = whole["$defs"]

    def of(model: type[BaseModel]) -> dict[str, Any]:
        made: dict[str, Any] = definitions[references[model, "validation"]["$ref"].rpartition("/")[2]]
        return made

    top = dict(of(Settings))
    stages = [_stage(name, of(models["stage", name])) for name in registry.names("stage")]
    properties = {
        "inputs": _parts("input", {name: of(models["input", name]) for name in registry.names("input")}),
        "stages": {"type": "array", "items": {"oneOf": stages}},
        "outputs": _parts("output", {name: of(models["output", name]) for name in registry.names("output")}),
    }
    top["properties"] = {key: {**value, **properties.get(key, {})} for key, value in top["properties"].items()}
    top |= {"$schema": GenerateJsonSchema.schema_dialect, "title": "aiologs", "required": ["inputs", "outputs"]}
    made: dict[str, Any] = _with_variables({**top, "$defs": definitions})
    return made


def _parts(kind: Kind, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A mapping of names to parts, whose options depend on their type."""
    decoders = registry.decoders()
    decode = {"decode": {"anyOf": [{"enum": decoders}, {"type": "object", "maxProperties": 1}], "default": "json"}}
    beside = decode if kind == "input" else {}
    each = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": sorted(models)}},
        "oneOf": [_part(name, model, beside) for name, model in models.items()],
    }
    return {"type": "object", "minProperties": 1, "additionalProperties": each}


def _part(name: str, model: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    properties = {"type": {"const": name}, **beside, **model.get("properties", {})}
    return {**model, "title": name, "properties": properties, "required": ["type", *model.get("required", [])]}


def _stage(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """A stage is its name alone, where it needs no options, or a mapping of the name to its options."""
    options = {**model, "title": name, "properties": {**model.get("properties", {}), "when": _WHEN, "name": _NAME}}
    required = bool(model.get("required"))
    mapping = {
        "type": "object",
        "title": name,
        "required": [name],
        "additionalProperties": False,
        "properties": {name: options if required else {"anyOf": [options, {"type": "null"}]}},
    }
    return mapping if required else {"anyOf": [{"const": name}, mapping]}


def _with_variables(value: Any) -> Any:
    """Let `${NAME}` stand where a number or a boolean is wanted: it is replaced before the values are checked."""
    if isinstance(value, list):
        return [_with_variables(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: _with_variables(each) for key, each in value.items()}
    # An option that is named `type` has a schema here, which is no hashable value.
    if made.get("type") in ("integer", "number", "boolean"):
        about = {key: made.pop(key) for key in ("title", "description", "default") if key in made}
        return {"anyOf": [made, _VARIABLE], **about}
    return made

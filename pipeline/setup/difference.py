"""Compares what is wanted with what a cluster answers, which words the same thing in other ways.

Both are flattened to paths, in one notation for times and settings, without what Elasticsearch adds of its own. So
what remains different was made by another aiologs, or by somebody else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pipeline.setup.definitions import Kind, Resource

Flat = dict[str, Any]
"""Values by path, `template.settings.index.number_of_replicas`; an empty object or array is a value."""

Origin = Literal["missing", "outdated", "changed by hand", "not by aiologs", "newer"]
"""Why something is not as wanted. `outdated`: aiologs wrote it as it stands, with another version or configuration."""

_MILLISECONDS = {"nanos": 1e-6, "micros": 1e-3, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIME = re.compile(r"(\d+)(nanos|micros|ms|s|m|h|d)")
_SETTINGS = "template.settings."
_ADDED = {"created_date", "modified_date", "created_date_millis", "modified_date_millis"}
_NOTHING: tuple[Any, ...] = ([], None)
_DEFAULTS: list[tuple[str, str, Any]] = [
    ("allocate", "include", {}),
    ("allocate", "exclude", {}),
    ("allocate", "require", {}),
    ("delete", "delete_searchable_snapshot", True),
]


@dataclass(frozen=True)
class Field:
    """One value that differs; None: not there."""

    path: str
    is_: Any
    wanted: Any


@dataclass(frozen=True)
class Change:
    """What is to be done about one resource."""

    resource: Resource
    origin: Origin
    fields: list[Field]

    @property
    def kind(self) -> Kind:
        """The kind of the resource."""
        return self.resource.kind

    @property
    def name(self) -> str:
        """The name of the resource."""
        return self.resource.name


def change(resource: Resource, found: dict[str, Any] | None) -> Change | None:
    """How a resource in the cluster differs from the wanted one; None: not at all."""
    wanted = flat(resource.body)
    if found is None:
        return Change(resource, "missing", [Field(path, None, value) for path, value in wanted.items()])
    now = flat(found)
    fields = [
        Field(path, now.get(path), wanted.get(path))
        for path in [*wanted, *(path for path in now if path not in wanted)]
        if now.get(path) != wanted.get(path)
    ]
    return Change(resource, _origin(resource, found, now), fields) if fields else None


def _origin(resource: Resource, found: dict[str, Any], now: Flat) -> Origin:
    meta = _meta(found)
    if meta.get("managed_by") != "aiologs":
        return "not by aiologs"
    if meta.get("digest") != _digest(now):
        return "changed by hand"
    version = meta.get("version")
    newer = isinstance(version, int) and version > _meta(resource.body).get("version", 0)
    return "newer" if newer else "outdated"


def signed(resource: Resource) -> dict[str, Any]:
    """The body to send: with a digest of itself, by which a later look knows whether somebody else has changed it."""
    body: dict[str, Any] = orjson.loads(orjson.dumps(resource.body))
    meta = body.get("policy", body).setdefault("_meta", {"managed_by": "aiologs"})
    meta["digest"] = _digest(flat(resource.body))
    return body


def _meta(body: dict[str, Any]) -> dict[str, Any]:
    meta = body.get("policy", body).get("_meta")
    return meta if isinstance(meta, dict) else {}


def _digest(now: Flat) -> str:
    # What it is described as is no matter of function.
    functional = {path: value for path, value in now.items() if "_meta." not in path}
    return hashlib.sha256(orjson.dumps(functional, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def flat(body: dict[str, Any]) -> Flat:
    """A resource's body, whether it comes from a file or from the cluster."""
    leaves = {".".join(path): value for path, value in _leaves(_tidy(body), ())}
    return {name: _plain(name, value) for name, value in leaves.items() if not name.endswith("_meta.digest")}


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
    return [(path, value)]


def _tidy(body: dict[str, Any]) -> dict[str, Any]:
    """Without what Elasticsearch adds, and what says nothing."""
    body = {key: value for key, value in body.items() if key not in _ADDED and value not in _NOTHING}
    if "policy" in body:
        phases = {name: _phase(phase) for name, phase in body["policy"]["phases"].items()}
        body["policy"] = body["policy"] | {"phases": phases}
    if "template" in body:
        body["template"] = {key: value for key, value in body["template"].items() if value != {}}
    if "data_stream" in body:
        body["data_stream"] = {key: value for key, value in body["data_stream"].items() if value is not False}
    return {key: value for key, value in body.items() if key != "template" or value}


def _phase(phase: dict[str, Any]) -> dict[str, Any]:
    actions = {
        action: {key: value for key, value in options.items() if (action, key, value) not in _DEFAULTS}
        for action, options in phase.get("actions", {}).items()
    }
    age = {"min_age": phase["min_age"]} if _time(phase.get("min_age", "0ms")) != "0d" else {}
    return age | {"actions": actions}


def _plain(name: str, value: Any) -> Any:
    if name.startswith(_SETTINGS):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if name.endswith("_age"):
        return _time(value)
    return value


def _time(value: Any) -> Any:
    """A time in the largest unit that gives a whole number."""
    match = _TIME.fullmatch(str(value))
    if not match:
        return value
    milliseconds = int(match[1]) * _MILLISECONDS[match[2]]
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if milliseconds % _MILLISECONDS[unit] == 0 or unit == "ms")
    return f"{milliseconds / _MILLISECONDS[unit]:.0f}{unit}"

"""What a cluster is to have: the files of config/elasticsearch, shaped for a mode and a number of data nodes.

Policies, component templates and index templates have the form of Elasticsearch's own API, so that the files can be
sent by hand too. As they stand they are those of `daily` on two data nodes or more.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import orjson

from pipeline.contract import Unusable

Mode = Literal["daily", "data_stream", "rollover"]
Kind = Literal["lifecycle policy", "component template", "index template", "write alias", "data stream"]

ROLLOVER = {"max_age": "1d", "max_primary_shard_size": "50gb"}
"""When an index of an alias or a data stream is followed by the next."""
DATED = "aio-dated"
"""The component of templates whose indices are named by a day."""
ALIAS = "index.lifecycle.rollover_alias"
POLICY = "index.lifecycle.name"
_FOLDERS: dict[str, Kind] = {
    "ilm": "lifecycle policy",
    "component_templates": "component template",
    "index_templates": "index template",
}


@dataclass(frozen=True)
class Resource:
    """Something that a cluster has by name; `body` is what is sent to make it."""

    kind: Kind
    name: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """All that a cluster is to have, in the order in which it can be made."""

    mode: Mode
    data_nodes: int
    resources: list[Resource]
    notes: list[str] = field(default_factory=list)
    """What is different from the files, and why."""

    def of(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """The bodies of one kind, by name."""
        return {each.name: each.body for each in self.resources if each.kind == kind}


def shipped() -> Path:
    """The folder of the definitions: in the wheel it stands beside the code, in a checkout beside the package."""
    package = Path(__file__).parent.parent
    return next(path for path in (package / "_config", package.parent / "config") if path.is_dir()) / "elasticsearch"


def load(folder: Path | None = None) -> list[Resource]:
    """The definitions of a folder; raises `Unusable` naming the file that is none."""
    folder = folder or shipped()
    found = [_read(path, kind) for name, kind in _FOLDERS.items() for path in sorted((folder / name).glob("*.json"))]
    if not found:
        raise Unusable(f"{folder} has no definitions: it must hold {', '.join(_FOLDERS)} with JSON files in them")
    return found


def _read(path: Path, kind: Kind) -> Resource:
    try:
        body = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from error
    if not isinstance(body, dict):
        raise Unusable(f"{path}: it must hold a JSON object, as Elasticsearch's API takes it")
    return Resource(kind, path.stem, body)


def wanted(mode: Mode, data_nodes: int, folder: Path | None = None, *, day: timedelta = timedelta(days=1)) -> Wanted:
    """What a cluster with so many data nodes is to have.

    `day` is how long a day of the policies lasts, so that a whole life passes in a minute under test.
    """
    resources = deepcopy(load(folder))
    notes = []
    if mode != "daily":
        resources = [_streaming(each, mode) for each in resources]
    if data_nodes < 2 and sum(map(_without_replicas, resources)):
        notes.append(
            "one data node: a replica could never be placed, and the lifecycle would wait for it in warm for ever. So "
            "indices get 0 replicas instead of 1; run setup again when there are more nodes"
        )
    if day != timedelta(days=1):
        resources = [_hurried(each, day) for each in resources]
    return Wanted(mode, data_nodes, [*resources, *_first_indices(resources)], notes)


def _streaming(resource: Resource, mode: Mode) -> Resource:
    """A family behind one name instead of an index a day: what the template's name says is where documents go."""
    body, name = resource.body, resource.name
    if resource.kind == "lifecycle policy":
        body["policy"]["phases"]["hot"]["actions"].setdefault("rollover", dict(ROLLOVER))
    if resource.kind == "index template" and DATED in body["composed_of"]:
        body["composed_of"].remove(DATED)
        if mode == "data_stream":
            body |= {"index_patterns": [name], "data_stream": {}}
        else:
            body["index_patterns"] = [f"{name}-0*"]
            body["template"]["settings"][ALIAS] = name
    return resource


def _without_replicas(resource: Resource) -> bool:
    """Take the replicas out; whether there were any."""
    if resource.kind == "lifecycle policy":
        phases = resource.body["policy"]["phases"].values()
        parts = [phase["actions"]["allocate"] for phase in phases if "allocate" in phase["actions"]]
        key = "number_of_replicas"
    else:
        parts, key = [_settings(resource)], "index.number_of_replicas"
    found = [part for part in parts if part.get(key)]
    for part in found:
        part[key] = 0
    return bool(found)


def _settings(resource: Resource) -> dict[str, Any]:
    settings: dict[str, Any] = resource.body.get("template", {}).get("settings", {})
    return settings


def _hurried(resource: Resource, day: timedelta) -> Resource:
    if resource.kind != "lifecycle policy":
        return resource
    text = orjson.dumps(resource.body).decode()
    unit = day / timedelta(milliseconds=1)
    hurried = re.sub(r'_age":"(\d+)d"', lambda age: f'_age":"{round(int(age[1]) * unit)}ms"', text)
    return Resource(resource.kind, resource.name, orjson.loads(hurried))


def _first_indices(resources: list[Resource]) -> list[Resource]:
    """The aliases with their first index, and the data streams, that templates speak of."""
    found: list[Resource] = []
    for each in resources:
        if alias := _settings(each).get(ALIAS):
            found.append(Resource("write alias", alias, {"aliases": {alias: {"is_write_index": True}}}))
        elif "data_stream" in each.body:
            found += [Resource("data stream", name, {}) for name in each.body["index_patterns"] if "*" not in name]
    return found

"""Shows how a cluster differs from what is wanted, and makes it so.

Everything is sent whole and in order (policies, component templates, index templates, then the first index of aliases
and data streams), and only what differs: so it can be done again at any point, and by many at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from pipeline.setup.cluster import Cluster, Refused
from pipeline.setup.definitions import Kind, Mode, Resource, Wanted, wanted
from pipeline.setup.difference import Change, Origin, change, signed

OLDEST = (8, 14)
"""The first version that knows all settings (`total_fields.ignore_dynamic_beyond_limit`)."""

_PATHS: dict[Kind, str] = {
    "lifecycle policy": "_ilm/policy",
    "component template": "_component_template",
    "index template": "_index_template",
    "data stream": "_data_stream",
}
_MARKS: dict[Origin, str] = {
    "missing": "+",
    "outdated": "~",
    "changed by hand": "!",
    "not by aiologs": "!",
    "newer": "=",
}
_EXISTS = {"resource_already_exists_exception", "invalid_alias_name_exception"}


class Unfit(Exception):
    """The cluster can't have what is wanted, whoever asks: it has no lifecycle management, or is too old."""


@dataclass(frozen=True)
class Plan:
    """What `apply` would do to a cluster."""

    cluster: str
    wanted: Wanted
    changes: list[Change]
    obstacles: list[str] = field(default_factory=list)
    """What stands in the way of an alias or a data stream; `doctor` tells more."""

    @property
    def pending(self) -> list[Change]:
        """The changes that `apply` makes: what a newer aiologs wrote it leaves alone."""
        return [each for each in self.changes if each.origin != "newer"]

    @property
    def clean(self) -> bool:
        """Whether everything is as wanted."""
        return not self.pending and not self.obstacles

    def __str__(self) -> str:
        """What an operator reads."""
        head = f"{self.cluster}, {_count(self.wanted.data_nodes, 'data node')}, mode {self.wanted.mode}"
        lines = [head, *(f"note: {note}" for note in self.wanted.notes)]
        for each in self.changes:
            lines.append(f"{_MARKS[each.origin]} {each.kind} {each.name}{_why(each)}")
            if each.origin != "missing":
                lines += [f"    {one.path}: {_show(one.is_)} -> {_show(one.wanted)}" for one in each.fields]
        lines += [f"! {obstacle}" for obstacle in self.obstacles]
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        if self.clean:
            return "Nothing to do: the cluster is as wanted."
        counts = {origin: sum(each.origin == origin for each in self.pending) for origin in _MARKS}
        told = ", ".join(f"{count} {origin}" for origin, count in counts.items() if count)
        lines = [f"To do: {told}. `aiologs setup apply` does it."] if told else []
        if self.obstacles:
            lines.append(f"In the way: {_count(len(self.obstacles), 'obstacle')}, which `apply` leaves alone.")
        return "\n".join(lines)

    def brief(self) -> str:
        """What is to be done, in half a line."""
        counts = Counter((each.kind, each.origin) for each in self.pending)
        told = [f"{kind} {origin}: {count}" for (kind, origin), count in counts.items()]
        return ", ".join([*told, *self.obstacles])

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cluster": self.cluster,
            "mode": self.wanted.mode,
            "data_nodes": self.wanted.data_nodes,
            "clean": self.clean,
            "notes": self.wanted.notes,
            "obstacles": self.obstacles,
            "changes": [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "origin": each.origin,
                    "fields": [{"path": one.path, "is": one.is_, "wanted": one.wanted} for one in each.fields],
                }
                for each in self.changes
            ],
        }


def _why(change: Change) -> str:
    match change.origin:
        case "missing":
            return _gist(change.resource)
        case "changed by hand":
            return ": changed by hand since aiologs wrote it"
        case "not by aiologs":
            return ": not written by aiologs"
        case "newer":
            return ": written by a newer aiologs, so it is left alone"
    return ""


def _gist(resource: Resource) -> str:
    """What is worth knowing about something that is to be made."""
    body = resource.body
    if resource.kind == "lifecycle policy":
        ages = (f"{name} {phase['min_age']}" for name, phase in body["policy"]["phases"].items() if name != "hot")
        return f": {', '.join(['hot', *ages])}"
    if resource.kind == "index template":
        policy = body.get("template", {}).get("settings", {}).get("index.lifecycle.name")
        return f": {', '.join(body['index_patterns'])}{f', lifecycle {policy}' if policy else ''}"
    return ""


def _show(value: Any) -> str:
    return "(none)" if value is None else orjson.dumps(value).decode()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def look(cluster: Cluster, mode: Mode, folder: Path | None = None, *, day: timedelta = timedelta(days=1)) -> Plan:
    """Compare the cluster with what is wanted; raises `Away`, `Refused` and `Unfit`. `day`: as in `wanted`."""
    about = identify(cluster)
    existing = _existing(cluster)
    nodes = cluster.ask("GET", "_cluster/health?filter_path=number_of_data_nodes")["number_of_data_nodes"]
    want = wanted(mode, nodes, folder, day=day)
    changes = [
        found
        for each in want.resources
        if each.kind in existing and (found := change(each, existing[each.kind].get(each.name)))
    ]
    obstacles: list[str] = []
    for each in want.resources:
        if each.kind not in existing and (state := target(cluster, each)) != "there":
            if state == "missing":
                changes.append(Change(each, "missing", []))
            else:
                obstacles.append(f"{each.kind} {each.name}: {state}; `aiologs setup doctor` tells what to do")
    return Plan(about, want, changes, obstacles)


def identify(cluster: Cluster) -> str:
    """The cluster's name and version; raises `Unfit` where it can't have lifecycles."""
    about = cluster.ask("GET", "")
    version = about.get("version", {}) if isinstance(about, dict) else {}
    number = str(version.get("number", ""))
    if version.get("distribution") == "opensearch":
        raise Unfit(f"OpenSearch {number} has no index lifecycle management: set `setup: off` and use its ISM policies")
    if version.get("build_flavor") == "serverless":
        raise Unfit(
            "Elasticsearch Serverless manages lifecycles itself: set `setup: off` and give its data streams a retention"
        )
    if tuple(int(part) for part in number.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit()) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise Unfit(f"Elasticsearch {number or '?'} is older than {least}, which setup needs: set `setup: off`")
    return f"cluster {about['cluster_name']}, Elasticsearch {number}"


def _existing(cluster: Cluster) -> dict[Kind, dict[str, dict[str, Any]]]:
    """What is there, by kind and name, as it would be sent."""
    policies = cluster.ask("GET", "_ilm/policy")
    if policies is None:
        raise Unfit("the cluster does not know lifecycle policies (GET /_ilm/policy answers 404): set `setup: off`")
    components = cluster.ask("GET", "_component_template?flat_settings=true", missing={})
    templates = cluster.ask("GET", "_index_template?flat_settings=true", missing={})
    try:
        return {
            "lifecycle policy": {name: {"policy": each["policy"]} for name, each in policies.items()},
            "component template": {
                each["name"]: each["component_template"] for each in components.get("component_templates", [])
            },
            "index template": {each["name"]: each["index_template"] for each in templates.get("index_templates", [])},
        }
    except (LookupError, TypeError, AttributeError):
        raise Unfit("its answers are none of Elasticsearch's to GET /_ilm/policy and such: set `setup: off`") from None


def target(cluster: Cluster, resource: Resource) -> str:
    """Whether an alias or a data stream is `there` or `missing`; or else what stands in its place."""
    name = resource.name
    if resource.kind == "data stream":
        found = cluster.ask("GET", f"_data_stream/{name}", missing={}).get("data_streams", [])
        if any(each["name"] == name for each in found):
            return "there"
    aliased = cluster.ask("GET", f"_alias/{name}", missing={})
    aliased = {index: each["aliases"][name] for index, each in aliased.items() if name in each.get("aliases", {})}
    if aliased and resource.kind == "data stream":
        return f"there is an alias of that name, of {', '.join(aliased)}"
    if aliased:
        writes = [index for index, each in aliased.items() if each.get("is_write_index") or len(aliased) == 1]
        return "there" if writes else f"none of its indices is the one to write to: {', '.join(aliased)}"
    if cluster.ask("GET", f"{name}?filter_path=*.settings.index.uuid", missing={}):
        return "there is an index of that name"
    return "missing"


def apply(
    cluster: Cluster, plan: Plan, *, done: Callable[[Change], None] = lambda _: None, gently: bool = False
) -> int:
    """Make what the plan says; how many changes it were.

    `gently`: what somebody has changed by hand stays. Raises `Away` and `Refused` at the first that fails: what comes
    after may rest on it.
    """
    count = 0
    for each in plan.pending:
        if gently and each.origin in {"changed by hand", "not by aiologs"}:
            continue
        _put(cluster, each.resource)
        done(each)
        count += 1
    return count


def _put(cluster: Cluster, resource: Resource) -> None:
    if resource.kind == "write alias":
        _bootstrap(cluster, resource)
        return
    body = None if resource.kind == "data stream" else signed(resource)
    try:
        cluster.ask("PUT", f"{_PATHS[resource.kind]}/{resource.name}", body)
    except Refused as refused:
        # Another one was faster.
        if resource.kind != "data stream" or target(cluster, resource) != "there":
            raise refused from None


def _bootstrap(cluster: Cluster, resource: Resource) -> None:
    """The first index of an alias; or the alias again, where its indices are there without it."""
    alias = resource.name
    indices = sorted(cluster.ask("GET", f"{alias}-0*?filter_path=*.settings.index.uuid", missing={}) or {})
    try:
        if indices:
            add = {"index": indices[-1], "alias": alias, "is_write_index": True}
            cluster.ask("POST", "_aliases", {"actions": [{"add": add}]})
        else:
            cluster.ask("PUT", f"{alias}-000001", resource.body)
    except Refused as refused:
        if refused.type not in _EXISTS or target(cluster, resource) != "there":
            raise

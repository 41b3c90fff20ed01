"""What is wrong with the indices that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.setup import disks
from pipeline.setup.cluster import Cluster, Refused
from pipeline.setup.definitions import ALIAS, DATED, POLICY, Wanted
from pipeline.setup.findings import Finding, settings
from pipeline.setup.matching import first

NEAR = 0.9
"""So full may a mapping be before it is told."""
_AT_ONCE = 14
_WRITING = ("hot", "warm")

Settings = Mapping[str, str]


def examine(cluster: Cluster, wanted: Wanted) -> Iterator[Finding]:
    """What is wrong with the indices whose names are those of a template."""
    templates = wanted.of("index template")
    patterns = ",".join(sorted({_broad(each) for body in templates.values() for each in body["index_patterns"]}))
    found = cluster.ask("GET", f"{patterns}/_settings?flat_settings=true&expand_wildcards=open,hidden", missing={})
    ours = {index: each["settings"] for index, each in sorted(found.items()) if first(templates, _streamed(index))}
    if not ours:
        return
    for index, now in ours.items():
        template = first(templates, _streamed(index))
        assert template is not None  # noqa: S101 - that is how they were chosen
        yield from _policy(index, now, templates[template])
    yield from _lifecycle(cluster, ours, wanted)
    yield from _blocked(cluster, ours)
    yield from _crowded(cluster, ours, templates)


def _broad(pattern: str) -> str:
    """A pattern of names for all that a template's could be, data streams' hidden indices too."""
    return pattern.partition("-20*")[0].partition("-0*")[0].rstrip("*-") + "*"


def _streamed(index: str) -> str:
    """The name that the template sees: that of a data stream for one of its indices (`.ds-NAME-DAY-NUMBER`)."""
    return index.removeprefix(".ds-").rsplit("-", 2)[0] if index.startswith(".ds-") else index


def _policy(index: str, now: Settings, template: Mapping[str, Any]) -> Iterator[Finding]:
    """A lifecycle that is not attached, or is another one."""
    expected = template.get("template", {}).get("settings", {})
    policy = expected.get(POLICY)
    if policy is None or (now.get(POLICY) == policy and now.get(ALIAS) == expected.get(ALIAS)):
        return
    lifecycle = {name: value for name, value in expected.items() if name.startswith("index.lifecycle.")}
    if DATED in template["composed_of"]:
        lifecycle["index.lifecycle.parse_origination_date"] = True
    if POLICY not in now:
        what = "it has no lifecycle, so it never ages"
    elif now[POLICY] != policy:
        what = f"its lifecycle is {now[POLICY]}, not {policy}"
    else:
        what = f"its lifecycle rolls the alias {now.get(ALIAS, '(none)')} over, not {expected.get(ALIAS, '(none)')}"
    repair = settings(index, **{name.replace(".", "__"): value for name, value in lifecycle.items()})
    yield Finding("policy-not-attached", index, what, f"attach {policy}; it then ages from its day at once", repair)


def _lifecycle(cluster: Cluster, ours: Mapping[str, Settings], wanted: Wanted) -> Iterator[Finding]:
    """Indices that failed a step or wait in one, and replicas against the number of nodes."""
    explained = _explained(cluster, list(ours))
    for index, now in ours.items():
        state = explained.get(index, {})
        replicas = int(now.get("index.number_of_replicas", 0))
        if now.get("index.auto_expand_replicas", "false") == "false":
            yield from _replicas(index, replicas, state.get("phase"), wanted)
        info = state.get("step_info", {})
        reason = str(info.get("reason") or info.get("message") or "")
        if state.get("step") == "ERROR":
            where = f"{state.get('phase')}/{state.get('action')}/{state.get('failed_step')}"
            remedy = "mend the cause; Elasticsearch tries most steps again now and then, `doctor --repair` at once"
            what, done = f"its lifecycle failed at {where}: {reason}", "the step that failed is tried again"
            yield Finding("lifecycle-error", index, what, remedy, _retry(index), done)
        elif reason and state.get("step") not in {None, "complete"}:
            where = f"{state.get('phase')}/{state.get('action')}/{state.get('step')}"
            remedy = "see what it waits for; replicas that have no node are a finding of their own"
            yield Finding("lifecycle-waits", index, f"its lifecycle waits at {where}: {reason}", remedy)


def _explained(cluster: Cluster, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Where each index stands in its lifecycle; so many names at once as fit into a request's line (4 KiB)."""
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        try:
            found |= cluster.ask("GET", f"{','.join(some)}/_ilm/explain", missing={}).get("indices", {})
        except Refused as refused:
            if refused.type != "index_closed_exception":
                raise
            # The lifecycle closes an index for a moment to change its codec: it will be well, and the others are asked.
            if len(some) > 1:
                for each in some:
                    found |= _explained(cluster, [each])
    return found


def _retry(index: str) -> Callable[[Cluster], None]:
    def repair(cluster: Cluster) -> None:
        cluster.ask("POST", f"{index}/_ilm/retry")

    return repair


def _replicas(index: str, replicas: int, phase: str | None, wanted: Wanted) -> Iterator[Finding]:
    if replicas > max(0, wanted.data_nodes - 1):
        fit = max(0, wanted.data_nodes - 1)
        what = f"replicas: {replicas}, but there is room for {fit}: more are never placed, and its lifecycle waits"
        yield Finding(
            "replicas", index, what, f"set number_of_replicas to {fit}", settings(index, index__number_of_replicas=fit)
        )
    elif replicas == 0 and wanted.data_nodes > 1 and phase in _WRITING:
        what = "it has no replica though there are nodes for one: when a disk fails, it is lost"
        repair = settings(index, index__number_of_replicas=1)
        yield Finding("replicas", index, what, "set number_of_replicas to 1", repair)


def _blocked(cluster: Cluster, ours: Mapping[str, Settings]) -> Iterator[Finding]:
    """Blocks that Elasticsearch sets when a disk is full."""
    blocked = [index for index, now in ours.items() if now.get("index.blocks.read_only_allow_delete") == "true"]
    if not blocked:
        return
    full = disks.full(cluster)
    for index in blocked:
        what = "a full disk has made it read-only (read_only_allow_delete)"
        if full:
            remedy = f"free or add disk space first: {', '.join(full)}; then Elasticsearch lifts the block itself"
            yield Finding("disk-block", index, what, remedy)
        else:
            repair = settings(index, index__blocks__read_only_allow_delete=None)
            yield Finding("disk-block", index, what, "there is space again: lift the block", repair)


def _crowded(cluster: Cluster, ours: Mapping[str, Settings], templates: Mapping[str, Any]) -> Iterator[Finding]:
    """Mappings near their limit, of the newest index of each template."""
    newest = {first(templates, _streamed(index)): index for index in ours}
    for index in newest.values():
        limit = int(ours[index].get("index.mapping.total_fields.limit", 1000))
        properties = cluster.ask("GET", f"{index}/_mapping", missing={}).get(index, {}).get("mappings", {})
        counts = {name: _fields(each) for name, each in properties.get("properties", {}).items()}
        total = sum(counts.values())
        if total >= NEAR * limit:
            groups = {name: count for name, count in counts.items() if count > 1}
            groups["the top level"] = total - sum(groups.values())
            most = ", ".join(f"{name} ({groups[name]})" for name in sorted(groups, key=groups.__getitem__)[:-4:-1])
            what = f"its mapping has {total} of {limit} fields; new ones beyond are kept but can't be searched"
            remedy = f"most are in {most}: put what clients make up into `labels` or `context`, or raise the limit"
            yield Finding("field-limit", index, what, remedy)


def _fields(mapping: Mapping[str, Any]) -> int:
    """How many fields a mapping counts as: itself, its inner ones, and those beside it."""
    inner = [*mapping.get("properties", {}).values(), *mapping.get("fields", {}).values()]
    return 1 + sum(map(_fields, inner))

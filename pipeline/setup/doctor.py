"""Looks for what is commonly wrong with a cluster, its indices and their lifecycle, and mends what is safe to mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.setup import indices
from pipeline.setup.cluster import Cluster, Refused
from pipeline.setup.definitions import DATED, Kind, Mode, Resource, Wanted
from pipeline.setup.findings import Finding
from pipeline.setup.matching import first, sample
from pipeline.setup.plan import Plan, Unfit, apply, look, target


def examine(cluster: Cluster, mode: Mode, folder: Path | None = None, routes: Sequence[str] = ()) -> list[Finding]:
    """All that is wrong, what the rest depends on first. `routes`: the names of indices that the configuration gives.

    Raises `Away` and `Refused`.
    """
    try:
        plan = look(cluster, mode, folder)
    except Unfit as unfit:
        return [Finding("unfit", "cluster", str(unfit), "lifecycle and templates are to be looked after elsewhere")]
    return [
        *_stopped(cluster),
        *_difference(plan),
        *_in_the_way(cluster, plan.wanted),
        *_shadowed(cluster, plan.wanted),
        *_routes(routes, plan.wanted),
        *indices.examine(cluster, plan.wanted),
    ]


def mend(cluster: Cluster, findings: Sequence[Finding]) -> None:
    """Repair what can be, in order; each finding's `outcome` tells how it went."""
    for each in findings:
        if each.repair:
            try:
                each.repair(cluster)
                each.outcome = each.repaired
            except Refused as refused:
                each.outcome = f"not repaired: {refused}"


def _stopped(cluster: Cluster) -> Iterator[Finding]:
    status = cluster.ask("GET", "_ilm/status", missing={}).get("operation_mode", "RUNNING")
    if status != "RUNNING":

        def start(cluster: Cluster) -> None:
            cluster.ask("POST", "_ilm/start")

        yield Finding(
            "lifecycle-stopped",
            "cluster",
            f"lifecycle management is {status}: no index ages",
            "POST /_ilm/start",
            start,
        )


def _difference(plan: Plan) -> Iterator[Finding]:
    if plan.pending:

        def repair(cluster: Cluster) -> None:
            # What is in the way of an alias is mended after this.
            apply(cluster, plan)

        remedy = "look at `aiologs setup plan`, then `aiologs setup apply`"
        yield Finding("difference", "cluster", f"it is not as wanted: {plan.brief()}", remedy, repair)


def _in_the_way(cluster: Cluster, wanted: Wanted) -> Iterator[Finding]:
    """Indices where an alias or a data stream should be."""
    kinds: tuple[Kind, ...] = ("write alias", "data stream")
    for each in (one for one in wanted.resources if one.kind in kinds):
        state = target(cluster, each)
        if state in {"there", "missing"}:
            continue
        if each.kind == "write alias" and state == "there is an index of that name":
            remedy = f"clone it to {each.name}-000001 and put the alias in its place; documents wait meanwhile"
            yield Finding("index-for-alias", each.name, f"{state} where an alias should be", remedy, _Cloned(each))
        elif each.kind == "write alias":
            remedy = f"set is_write_index for the newest: POST /_aliases with add, alias {each.name}"
            yield Finding("alias-without-writer", each.name, state, remedy)
        else:
            remedy = "stop writing to it, reindex it under another name, delete it, then `aiologs setup apply`"
            yield Finding("index-for-stream", each.name, f"{state} where a data stream should be", remedy)


class _Cloned:
    """Puts an alias in the place of an index, whose documents it keeps."""

    def __init__(self, resource: Resource) -> None:
        self._alias = resource.name

    def __call__(self, cluster: Cluster) -> None:
        old, new = self._alias, f"{self._alias}-000001"
        cluster.ask("PUT", f"{old}/_block/write")
        try:
            clone = {"settings": {"index.blocks.write": None}}
            cluster.ask("PUT", f"{old}/_clone/{new}?wait_for_active_shards=1", clone)
            cluster.ask("GET", f"_cluster/health/{new}?wait_for_status=yellow&timeout=20s")
            # The settings that its template would have given.
            simulated = cluster.ask("POST", f"_index_template/_simulate_index/{new}")["template"]["settings"]["index"]
            given = {name: simulated[name] for name in ("lifecycle", "number_of_replicas") if name in simulated}
            cluster.ask("PUT", f"{new}/_settings", {"index": given})
            add = {"index": new, "alias": old, "is_write_index": True}
            cluster.ask("POST", "_aliases", {"actions": [{"add": add}, {"remove_index": {"index": old}}]})
        except BaseException:
            cluster.ask("PUT", f"{old}/_settings", {"index.blocks.write": None})
            raise


def _shadowed(cluster: Cluster, wanted: Wanted) -> Iterator[Finding]:
    """Templates that another one, of a higher priority, takes the place of."""
    found = cluster.ask("GET", "_index_template?flat_settings=true", missing={}).get("index_templates", [])
    templates = {each["name"]: each["index_template"] for each in found}
    for name, body in wanted.of("index template").items():
        told: set[str] = set()
        for pattern in body["index_patterns"] if name in templates else ():
            index = sample(pattern)
            winner = first(templates, index)
            if winner is not None and winner not in {name, *told, *wanted.of("index template")}:
                told.add(winner)
                above = templates[winner].get("priority", 0)
                yield Finding(
                    "shadowed-template",
                    f"index template {name}",
                    f"{winner} (priority {above}, for {', '.join(templates[winner]['index_patterns'])}) comes before it"
                    f" (priority {body['priority']}) for names such as {index}",
                    f"narrow the patterns of {winner}, or give it a priority below {body['priority']}",
                )


def _routes(routes: Sequence[str], wanted: Wanted) -> Iterator[Finding]:
    """Names that the configuration gives to indices which do not fit the mode."""
    templates = wanted.of("index template")
    kept = {each.name for each in wanted.resources if each.kind in {"write alias", "data stream"}} | {
        "aio-error-groups"
    }
    for route in dict.fromkeys(routes):
        name = route.replace("{day}", "2026.11.20")
        template = first(templates, name)
        if (
            template is None
            or (wanted.mode == "daily" and DATED in templates[template]["composed_of"])
            or route in kept
        ):
            continue
        if wanted.mode == "daily":
            remedy = f"name it {route}-{{day}}, or choose `mode: data_stream` or `rollover`"
            yield Finding(
                "route", f"route to {route}", "an index without a day has no lifecycle: it grows for ever", remedy
            )
        else:
            remedy = f"name it as one of {', '.join(sorted(kept))}, or choose `mode: daily`"
            what = f"with mode {wanted.mode} nothing ages what is written there"
            yield Finding("route", f"route to {route}", what, remedy)

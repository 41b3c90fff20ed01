"""A real cluster as the tests of `setup` use it: set up, looked at, and left as it was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pipeline.outputs.elasticsearch import Elasticsearch
from pipeline.setup.cluster import Cluster, Refused, connect
from pipeline.setup.plan import apply, look

SECONDS = 90.0
DAY = timedelta(days=1)


@contextmanager
def clean(url: str, **options: Any) -> Iterator[Cluster]:
    """The cluster without anything of ours, before and after."""
    cluster = connect(Elasticsearch.Options(hosts=[url], **options))
    empty(cluster)
    try:
        yield cluster
    finally:
        empty(cluster)


def empty(cluster: Cluster) -> None:
    for each in cluster.ask("GET", "_data_stream/aio-*", missing={}).get("data_streams", []):
        cluster.ask("DELETE", f"_data_stream/{each['name']}")
    for index in cluster.ask("GET", "aio-*/_settings?expand_wildcards=all&filter_path=*.settings.index.uuid") or {}:
        cluster.ask("DELETE", index)
    for kind, list_, key in (
        ("_index_template", "index_templates", "name"),
        ("_component_template", "component_templates", "name"),
    ):
        for each in cluster.ask("GET", kind, missing={}).get(list_, []):
            if each[key].startswith(("aio-", "shadow")):
                cluster.ask("DELETE", f"{kind}/{each[key]}")
    for name in cluster.ask("GET", "_ilm/policy"):
        if name.startswith("aio-"):
            cluster.ask("DELETE", f"_ilm/policy/{name}")


def set_up(cluster: Cluster, mode: Any = "daily", day: timedelta = DAY) -> None:
    apply(cluster, look(cluster, mode, day=day))
    assert look(cluster, mode, day=day).clean


def write(cluster: Cluster, index: str, *documents: dict[str, Any]) -> None:
    """Each document in a segment of its own."""
    for each in documents:
        cluster.ask("POST", f"{index}/_doc?refresh=true&op_type=create", each)


def wait(what: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)
    return answer


def aged(cluster: Cluster, index: str, age: timedelta) -> None:
    """Let an index be as if it had begun so long ago."""
    began = (time.time() - age.total_seconds()) * 1000
    cluster.ask("PUT", f"{index}/_settings", {"index.lifecycle.origination_date": int(began)})


def phase(cluster: Cluster, index: str) -> str | None:
    """The phase whose steps are all done; `deleted`: the index is no more."""
    if (state := explain(cluster, index)) is None:
        return "deleted"
    return state["phase"] if state.get("step") == "complete" else None


def explain(cluster: Cluster, index: str) -> dict[str, Any] | None:
    """Where an index stands in its lifecycle; None: it is no more."""
    try:
        found = cluster.ask("GET", f"{index}/_ilm/explain", missing={}).get("indices")
    except Refused as refused:
        if refused.type == "index_closed_exception":  # for the moment in which its codec changes
            return {}
        raise
    return found[index] if found else None


def looks(cluster: Cluster, index: str) -> dict[str, Any]:
    """What the lifecycle promises about an index."""
    health = cluster.ask("GET", f"_cluster/health/{index}?wait_for_status=green&timeout=30s")
    (answer,) = cluster.ask("GET", f"{index}/_settings?flat_settings=true").values()
    settings = answer["settings"]
    (shards,) = cluster.ask("GET", f"{index}/_segments")["indices"].values()
    copies = [list(each["segments"].values()) for each in shards["shards"]["0"]]
    attributes = [each["attributes"] for copy in copies for each in copy]
    modes = {value for each in attributes for name, value in each.items() if name.endswith("Format.mode")}
    return {
        "read-only": settings.get("index.blocks.write") == "true",
        "replicas": int(settings["index.number_of_replicas"]),
        "segments": max(map(len, copies)),
        "codec": modes,
        "health": health["status"],
    }

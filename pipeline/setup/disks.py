"""Whether a disk of the cluster is as full as makes Elasticsearch block indices: its flood stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.setup.cluster import Cluster

_PREFIX = "cluster.routing.allocation.disk."
_FLOOD = f"{_PREFIX}watermark.flood_stage"
_UNITS = {unit: 1024**n for n, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))}


def full(cluster: Cluster) -> list[str]:
    """The nodes at their flood stage, with how full they are; raises `Away` and `Refused`."""
    found = cluster.ask("GET", "_cluster/settings?include_defaults=true&flat_settings=true", missing={})
    settings = {**found.get("defaults", {}), **found.get("persistent", {}), **found.get("transient", {})}
    if str(settings.get(f"{_PREFIX}threshold_enabled")).lower() == "false":
        return []
    disks = cluster.ask("GET", "_cat/allocation?format=json&bytes=b&h=node,disk.avail,disk.total,disk.percent")
    return [f"{each['node']} ({each['disk.percent']} %)" for each in disks if _is_full(each, settings)]


def _is_full(disk: Mapping[str, Any], settings: Mapping[str, str]) -> bool:
    if disk.get("disk.avail") is None or disk.get("disk.total") is None:  # shards without a node have a line, too
        return False
    wanted = free(int(disk["disk.total"]), settings.get(_FLOOD, "95%"), settings.get(f"{_FLOOD}.max_headroom", "-1"))
    return int(disk["disk.avail"]) < wanted


def free(total: int, flood: str, headroom: str) -> float:
    """How many bytes of a disk must be free, by these two settings: a part in use, or bytes that are free; and at most
    so many bytes, -1: no limit.
    """
    if (wanted := _bytes(flood)) is not None:
        return wanted
    used = float(flood.removesuffix("%")) / 100 if flood.endswith("%") else float(flood)
    most = _bytes(headroom)
    return total * (1 - used) if most is None else min(total * (1 - used), most)


def _bytes(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtp]?b)", text.lower())
    return float(match[1]) * _UNITS[match[2]] if match else None

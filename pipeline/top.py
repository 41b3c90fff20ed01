"""`aiologs top`: what the running daemon does, from two looks at its /metrics and /status."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.contract import Unusable

if TYPE_CHECKING:
    from rich.console import Group

SECONDS = 5.0
"""How long the daemon may take to answer."""
FATES = ("stored", "already", "dropped", "refused", "set_aside", "parked")

Values = dict[str, Counter[tuple[str, ...]]]
"""By metric: the value for each combination of labels, in the order of their names."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the daemon."""

    time: float
    values: Values
    status: dict[str, Any]


def look(address: str) -> Look:
    """Ask the daemon at HOST:PORT; raises `Unusable` where none answers."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - a tenth of a second

    host, _, port = address.rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "::"}:  # noqa: S104 - it listens everywhere, so here, too
        host = "127.0.0.1"
    try:
        metrics, status = (_get(f"http://{host}:{port}/{path}") for path in ("metrics", "status"))
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unusable(
            f"no daemon answers at {host}:{port} ({reason}): is `aiologs run` at work with this file? Its `admin:` "
            "says where to ask"
        ) from error
    values: Values = {}
    for family in text_string_to_metric_families(metrics.decode()):
        for sample in family.samples:
            key = tuple(sample.labels[name] for name in sorted(sample.labels))
            values.setdefault(sample.name.removeprefix("aiologs_"), Counter())[key] += sample.value  # type: ignore[assignment]
    return Look(time.monotonic(), values, orjson.loads(status))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - always http
        return bytes(answer.read())


def view(before: Look, now: Look) -> dict[str, Any]:
    """What has happened between two looks: rates a second, and how things stand now."""
    status, seconds = now.status, max(1e-9, now.time - before.time)

    def value(name: str, *key: str) -> float:
        return now.values.get(name, Counter())[key]

    def rate(name: str, *key: str) -> float:
        # A daemon that has started anew counts from 0.
        return round(max(0.0, value(name, *key) - before.values.get(name, Counter())[key]) / seconds, 1)

    inputs = {
        name: {
            "type": each["type"],
            "records_per_second": rate("records_total", name),
            "bytes_per_second": rate("record_bytes_total", name),
            "records": int(value("records_total", name)),
            "lag": _lag(each),
            "waits": each["waits"],
        }
        for name, each in status["inputs"].items()
    }
    outputs = {
        name: {
            "type": each["type"],
            "per_second": {fate: rate("documents_total", fate, name) for fate in FATES},
            "documents": {fate: each["documents"].get(fate, 0) for fate in FATES},
            "in_flight": each["in_flight"],
            "parked_now": sum(index["documents"] for index in each["parked"].values()),
            "blocked": each["blocked"],
            "blocked_since": each["blocked_since"],
        }
        for name, each in status["outputs"].items()
    }
    return {
        "version": status["version"],
        "uptime_seconds": status["uptime_seconds"],
        "ready": status["ready"],
        "summary": status["summary"],
        "inputs": inputs,
        "outputs": outputs,
        "workers": status["workers"],
        "dead_letters": status["dead_letters"]["count"],
        "in_flight_bytes": status["in_flight"]["bytes"],
        "cpu_percent": round(100 * rate("process_cpu_seconds_total"), 1),
        "memory_bytes": int(value("process_resident_memory_bytes")),
    }


def _lag(each: dict[str, Any]) -> str | None:
    """How far an input is behind, with its unit."""
    for key, unit in (("lag_bytes", "bytes"), ("lag_records", "records")):
        if key in each:
            return f"{sum(each[key].values()) if each[key] else 0:,} {unit}"
    return None


def screen(seen: dict[str, Any]) -> Group:
    """A view for people."""
    from rich.console import Group  # noqa: PLC0415 - only for people
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    good = seen["summary"] == ["all is well"]
    head = Text(
        f"aiologs {seen['version']}, up {_duration(seen['uptime_seconds'])}, "
        f"{'ready' if seen['ready'] else 'NOT READY'} · {seen['workers']} workers · daemon: "
        f"{seen['cpu_percent']:g} % CPU, {seen['memory_bytes'] / 2**20:,.0f} MiB, workers aside · "
        f"{seen['in_flight_bytes'] / 2**20:,.1f} MiB in flight · {seen['dead_letters']:,} dead letters",
        style="bold",
    )
    lines = [Text(line, style="green" if good else "yellow") for line in seen["summary"]]
    inputs = Table("input", "type", box=None, padding=(0, 2, 0, 0))
    for column in ("records/s", "KiB/s", "records", "behind"):
        inputs.add_column(column, justify="right")
    inputs.add_column("waits for")
    for name, each in seen["inputs"].items():
        waits = each["waits"]
        inputs.add_row(
            name,
            each["type"],
            f"{each['records_per_second']:,.0f}",
            f"{each['bytes_per_second'] / 1024:,.0f}",
            f"{each['records']:,}",
            each["lag"] or "",
            Text(f"{waits['for']}, {waits['seconds']:g} s" if waits else "", style="yellow"),
        )
    outputs = Table("output", box=None, padding=(0, 1, 0, 0))  # to stand within 80 columns
    for column in (*(f"{fate.replace('_', chr(10))}\n/s" for fate in FATES), "stored", "in\nflight", "parked\nnow"):
        outputs.add_column(column, justify="right")
    for name, each in seen["outputs"].items():
        outputs.add_row(
            Text(f"{name} BLOCKED" if each["blocked"] else name, style="red" if each["blocked"] else ""),
            *(f"{each['per_second'][fate]:,.0f}" for fate in FATES),
            f"{each['documents']['stored']:,}",
            f"{each['in_flight']:,}",
            f"{each['parked_now']:,}",
        )
    return Group(head, *lines, Text(), inputs, Text(), outputs)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"

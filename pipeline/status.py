"""What /status answers: how each part fares, and who waits for whom, since when, in sentences first."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.log import RECENT

if TYPE_CHECKING:
    from pipeline.app import App

SLOW_SECONDS = 5.0
"""An input that waits longer for an acknowledgement is named, and a write that takes longer, as what for."""


class Blocked:
    """Since when outputs take nothing, as seen by looking at them now and then."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        """Seconds since 1970, for each that takes nothing."""

    def look(self, outputs: Mapping[str, Any]) -> None:
        """Look at them."""
        blocked = [name for name, output in outputs.items() if output.blocked]
        self.since = {name: self.since.get(name, time.time()) for name in blocked}


def status(app: App) -> dict[str, Any]:
    """The answer of /status."""
    reasons = app.not_ready()
    delivery = app.delivery
    return {
        "version": __version__,
        "pid": os.getpid(),
        "host": app.config.host,
        "started": _moment(app.started),
        "uptime_seconds": _ago(app.started),
        "ready": not reasons,
        "reasons": reasons,
        "summary": _summary(app),
        "inputs": {part.name: _input(app, part.name, part.type) for part in app.config.inputs.values()},
        "stages": [spec.name for spec in app.config.stages],
        "outputs": {part.name: _output(app, part.name, part.type) for part in app.config.outputs.values()},
        "dead_letters": {"count": app.dead.count(), "bytes": app.dead.bytes(), "max_bytes": app.dead.limits.max_bytes},
        "in_flight": {"batches": delivery.in_flight_batches, "bytes": delivery.in_flight_bytes},
        "workers": app.processor.alive,
        "configuration": {"file": str(app.config.path), **app.reload, "loaded": _moment(app.reload["loaded"])},
        "problems": RECENT.problems(),
    }


def _summary(app: App) -> list[str]:
    """What an operator should know first; one sentence where all is well."""
    found = [
        f"output {name} takes nothing since {_moment(since)} ({_ago(since):g} s): {app.outputs[name].blocked}"
        for name, since in app.blocked.since.items()
        if name in app.outputs and app.outputs[name].blocked
    ]
    found += [
        f"can't {purpose} since {_moment(since)}: {message}"
        for purpose, (message, since) in app.delivery.storing.troubles.items()
    ]
    found += [
        f"input {name} waits since {_moment(since)} ({_ago(since):g} s) for {_cause(app)}"
        for name, since in app.delivery.waiting.oldest().items()
        if _ago(since) >= SLOW_SECONDS
    ]
    for (output, index), n in app.parked.counts().items():
        if n > 0:
            since, reason = app.parked.reasons.get((output, index), (0.0, "?"))
            found.append(f"output {output}, index {index}: {n} documents are parked since {_moment(since)}: {reason}")
    if n := app.dead.count():
        found.append(f"{n} dead letters: see `aiologs dead list`")
    if error := app.reload["error"]:
        found.append(f"the last reload was refused: {error}")
    return found or ["all is well"]


def _cause(app: App) -> str:
    """For what an input waits that finds no room."""
    blocked = [f"output {name}" for name, output in app.outputs.items() if output.blocked]
    if blocked:
        return " and ".join(blocked)
    if app.delivery.storing.troubles:
        return "the disk"
    writes = app.delivery.storing.writing.oldest()
    slowest = min(writes, key=lambda name: writes[name], default=None)
    if slowest and _ago(writes[slowest]) >= SLOW_SECONDS:
        return f"output {slowest}, whose oldest write has taken {_ago(writes[slowest]):g} s"
    return "its turn: stages and outputs are busy"


def _input(app: App, name: str, type_: str) -> dict[str, Any]:
    since = app.delivery.waiting.oldest().get(name)
    answer: dict[str, Any] = {
        "type": type_,
        "records": int(app.metrics.values("records").get((name,), 0)),
        "waits": {"since": _moment(since), "seconds": _ago(since), "for": _cause(app)}
        if since and _ago(since) >= SLOW_SECONDS
        else None,
    }
    for metric, key in (("file_lag_bytes", "lag_bytes"), ("kafka_lag", "lag_records")):
        lags = {"/".join(of): value for (source, *of), value in app.metrics.values(metric).items() if source == name}
        if lags:
            answer[key] = {of: int(value) for of, value in lags.items() if value} or 0
    return answer | {"last_problem": RECENT.of(f"input {name}")}


def _output(app: App, name: str, type_: str) -> dict[str, Any]:
    blocked, since = app.outputs[name].blocked if name in app.outputs else None, app.blocked.since.get(name)
    write = app.delivery.storing.writing.oldest().get(name)
    parked = {
        index: {"documents": n, "since": _moment(since), "reason": reason}
        for (output, index), n in app.parked.counts().items()
        if output == name and n > 0
        for since, reason in [app.parked.reasons.get((output, index), (0.0, "?"))]
    }
    fates = app.metrics.values("documents")
    return {
        "type": type_,
        "blocked": blocked,
        "blocked_since": _moment(since) if blocked and since else None,
        "documents": {fate: int(n) for (output, fate), n in fates.items() if output == name},
        "in_flight": app.delivery.in_flight(name),
        "oldest_write_seconds": write and _ago(write),
        "parked": parked,
        "last_problem": RECENT.of(f"output {name}"),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _ago(since: float) -> float:
    return round(max(0.0, time.time() - since), 1)

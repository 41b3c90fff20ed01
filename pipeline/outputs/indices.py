"""What stands in an Elasticsearch: which documents an index has, which indices are read-only, when they are deleted.

For the output that meets a read-only index, and for `aiologs replay --plan`. `ask` is what sends a request and gives
status and body: `Elasticsearch.ask`. All raise `Failed` where there is no answer or another than expected.

    present = await existing(ask, "aio-logs-2026.08.01", ["id-1", "id-2"])      # {"id-2"}
    found = await standings(ask, ["aio-logs-2026.08.01", "aio-logs-2026.08.02*"])
    found["aio-logs-2026.08.01"].blocks     # {"write"}: read-only
    found["aio-logs-2026.08.01"].phase      # "warm"
    found["aio-logs-2026.08.01"].deleted    # when its lifecycle deletes it, in seconds since 1970

The privileges on the indices: `read` for `existing`; `view_index_metadata` for `standings`, and on the cluster
`read_ilm` for `deleted`, which is None without it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from pipeline.outputs._answers import Failed, Kind, failed

Ask = Callable[[str, str, bytes | None], Awaitable[tuple[int, bytes]]]
"""Method, target and JSON body of a request → status and body of the answer."""

TOGETHER = 1000
"""Ids asked for in one request."""
WRITE_BLOCKS = ("write", "read_only")
"""The settings `index.blocks.…` that forbid to store documents and that a lifecycle or an operator sets."""

_DAILY = re.compile(r"(.*-\d{4}\.\d{2}\.\d{2})(?:-(\d+))?", re.DOTALL)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "micros": 1e-6, "nanos": 1e-9}


def daily(index: str) -> tuple[str, int] | None:
    r"""The index of a day and the number of its replay index: `a-2026.08.01-2` → `a-2026.08.01`, 2; 0 for itself.

    None where the name has no day at its end. Elasticsearch takes a day from both names
    (`index.lifecycle.parse_origination_date` wants `^.*-{yyyy.MM.dd}(-\d+)?$`), so they are deleted at the same time.
    """
    match = _DAILY.fullmatch(index)
    return (match[1], int(match[2] or 0)) if match else None


@dataclass(slots=True, frozen=True)
class Standing:
    """What holds for an index now."""

    index: str
    blocks: frozenset[str] = frozenset()
    """Those of `WRITE_BLOCKS` that are set: none, or it is read-only."""
    phase: str | None = None
    """Of its lifecycle: hot, warm, cold …; None without one."""
    deleted: float | None = None
    """When its lifecycle deletes it, in seconds since 1970; None: never, or it may not be asked."""


async def existing(ask: Ask, index: str, ids: Sequence[str]) -> set[str]:
    """Which of these ids the index has, also those that no search finds yet."""
    target = f"/{quote(index)}/_mget?_source=false&filter_path=docs._id,docs.found,docs.error.type,docs.error.reason"
    found: set[str] = set()
    for start in range(0, len(ids), TOGETHER):
        answer = await _json(ask, "POST", target, {"ids": ids[start : start + TOGETHER]})
        for each in answer.get("docs", []):
            if "error" in each:
                raise Failed(Kind.BLOCKED, f"index {index}: {each['error']['type']}: {each['error']['reason']}")
            if each["found"]:
                found.add(each["_id"])
    return found


async def standings(ask: Ask, names: Iterable[str], *, lifecycle: bool = True) -> dict[str, Standing]:
    """The indices of these names (`*` stands for anything) that are there; without `lifecycle` only their blocks."""
    target = "/" + ",".join(quote(name, safe="*") for name in names)
    keys = ",".join(f"*.settings.index.{key}" for key in ("blocks", "creation_date", "lifecycle.origination_date"))
    found = await _json(ask, "GET", f"{target}/_settings?ignore_unavailable=true&filter_path={keys}")
    settings = {index: each["settings"]["index"] for index, each in found.items()}
    if not (lifecycle and settings):
        return {index: Standing(index, _blocks(each)) for index, each in settings.items()}
    explained = await _explained(ask, target)
    ages = await _ages(ask, {each["policy"] for each in explained.values() if "policy" in each})
    return {index: _standing(index, each, explained.get(index, {}), ages) for index, each in settings.items()}


async def foreseen(ask: Ask, index: str, now: float) -> float | None:
    """When an index that is made `now` would be deleted, in seconds since 1970, by its template's lifecycle.

    None: it would stay. Takes the privilege `manage_index_templates` besides `read_ilm`; without it None, too.
    """
    key = "filter_path=template.settings.index.lifecycle"
    status, answer = await ask("POST", f"/_index_template/_simulate_index/{quote(index)}?{key}", None)
    if status in {400, 403, 404, 405, 410}:
        return None
    lifecycle = _parsed(status, answer).get("template", {}).get("settings", {}).get("index", {}).get("lifecycle", {})
    age = (await _ages(ask, {lifecycle["name"]} if "name" in lifecycle else set())).get(lifecycle.get("name", ""))
    if age is None:
        return None
    same = daily(index)
    if same and str(lifecycle.get("parse_origination_date")).lower() == "true":
        now = datetime.strptime(same[0][-10:], "%Y.%m.%d").replace(tzinfo=UTC).timestamp()
    return now + age


def _blocks(settings: dict[str, Any]) -> frozenset[str]:
    blocks = settings.get("blocks", {})
    return frozenset(name for name in WRITE_BLOCKS if str(blocks.get(name)).lower() == "true")


def _standing(index: str, settings: dict[str, Any], explained: dict[str, Any], ages: dict[str, float]) -> Standing:
    # The lifecycle counts from the origination date where there is one; `explain` does not.
    begins = settings.get("lifecycle", {}).get("origination_date", explained.get("lifecycle_date_millis"))
    age = ages.get(explained.get("policy", ""))
    deleted = None if begins is None or age is None else int(begins) / 1000 + age
    return Standing(index, _blocks(settings), explained.get("phase"), deleted)


async def _explained(ask: Ask, target: str) -> dict[str, dict[str, Any]]:
    """What the lifecycle says of each index; nothing where the server has none (serverless, OpenSearch)."""
    keys = ",".join(f"indices.*.{key}" for key in ("phase", "policy", "lifecycle_date_millis"))
    status, answer = await ask("GET", f"{target}/_ilm/explain?filter_path={keys}", None)
    if status in {400, 404, 405, 410}:
        return {}
    explained: dict[str, dict[str, Any]] = _parsed(status, answer).get("indices", {})
    return explained


async def _ages(ask: Ask, policies: set[str]) -> dict[str, float]:
    """The age in seconds at which each policy deletes, where it does."""
    if not policies:
        return {}
    names = ",".join(quote(name, safe="") for name in sorted(policies))
    key = "*.policy.phases.delete.min_age"
    status, answer = await ask("GET", f"/_ilm/policy/{names}?filter_path={key}", None)
    if status in {403, 404}:
        return {}
    found = _parsed(status, answer)
    return {name: seconds(each["policy"]["phases"]["delete"]["min_age"]) for name, each in found.items()}


def seconds(duration: str) -> float:
    """A duration as Elasticsearch writes it, `90d` or `0ms`, in seconds; raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(d|h|m|s|ms|micros|nanos)", duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration such as 90d, 12h or 30s")
    return float(match[1]) * _UNITS[match[2]]


async def _json(ask: Ask, method: str, target: str, body: Any = None) -> dict[str, Any]:
    return _parsed(*await ask(method, target, None if body is None else orjson.dumps(body)))


def _parsed(status: int, answer: bytes) -> dict[str, Any]:
    if status != 200:
        raise failed(status, answer)
    try:
        return dict(orjson.loads(answer or b"{}"))
    except (ValueError, TypeError):
        raise Failed(Kind.ODD, "the answer is not JSON") from None

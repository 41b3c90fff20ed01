"""The id that ties the records of one request together, found or made.

    - correlation
    - correlation: {within: []}              # look at the top of a record only: cheaper

sets `correlation` to `{"id": …, "source": "received"}`, and `trace` to `{"id": …}` where a trace is known (ECS's
`trace.id`; ECS has no field for correlation). The id is, in this order:

1. what `correlation` itself holds: a text, or an object with an `id`, whose `source` then stays;
2. `correlationId`, `correlation_id`, `x-correlation-id`;
3. the trace's id: `traceId`, `trace_id`, `trace.id`, `x-trace-id`, or that of a W3C `traceparent`;
4. made of the record's document id, the same at every run: then `source` is `made`.

Names are looked up at the top first, then under `headers`, `request.headers` and `context` (option `within`), there
in any letter case and with `-`, `_` or nothing between the words.

An id is 1 to 128 characters of `A-Z a-z 0-9 . _ : -`, and not only zeros, which tracers write for want of a trace.
Anything else counts as missing, and so does a `traceparent` that W3C's Trace Context (section 3.2) calls invalid.
Another value under `correlation` is replaced; `trace` stays as it is where it already has an `id` or is no object.
"""

import re
from typing import Any

from pydantic import BaseModel, Field

from pipeline.contract import Event
from pipeline.fields import Getter, derived, getter, tops

_IDS = ("correlationId", "correlation_id", "x-correlation-id", "X-Correlation-Id", "X-Correlation-ID")
_TRACES = ("traceId", "trace_id", "trace.id", "x-trace-id", "X-Trace-Id", "X-Trace-ID")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_ZEROS = {"0" * 32, "0" * 16}


class Correlation:
    """Finds or makes the correlation id."""

    class Options(BaseModel, extra="forbid"):
        """Where to put it and where else to look."""

        target: str = Field(
            default="correlation", pattern=r"^[^.@]+$", description="The top-level field for the id and its source."
        )
        within: list[str] = Field(
            default=["headers", "request.headers", "context"],
            description="Objects in which to look for headers too; each has to be decoded for it.",
        )

    def __init__(self, options: Options) -> None:
        self._target = options.target
        self._ids, self._traces = [getter(path) for path in _IDS], [getter(path) for path in _TRACES]
        self._within = [getter(path) for path in options.within]
        self.adds = frozenset({options.target, "trace"})
        objects = {f"{path}.*" for path in options.within}
        self.reads = self.adds.union(objects, *map(tops, (*_IDS, *_TRACES, "traceparent", *options.within)))

    def __call__(self, events: list[Event]) -> list[Event]:
        """Set the id in every event; raises `KeyError` where one has to be made and the event has no document id."""
        target = self._target
        for event in events:
            own = event.get(target)
            received = None if own is None else _valid(own.get("id") if isinstance(own, dict) else own)
            id_ = received or _first(event, self._ids)
            trace = _first(event, self._traces) or _parent(event.get("traceparent"))
            if not (id_ and trace):
                headers = self._headers(event)
                trace = trace or headers.get("trace")
                id_ = id_ or headers.get("id") or trace
            if received and isinstance(own, dict):
                event[target] = {"source": "received", **own}
            elif id_:
                event[target] = {"id": id_, "source": "received"}
            else:
                event[target] = {"id": derived(event, "correlation"), "source": "made"}
            if trace:
                _set_trace(event, trace)
        return events

    def _headers(self, event: Event) -> dict[str, str]:
        """The valid `id` and `trace` among the event's headers, of each the first."""
        found: dict[str, str] = {}
        for get in self._within:
            headers = get(event)
            for name, value in headers.items() if isinstance(headers, dict) else ():
                kind, read = _HEADERS.get(name.lower().replace("-", "").replace("_", ""), ("", _valid))
                if kind and kind not in found and (valid := read(value)):
                    found[kind] = valid
        return found


def _first(event: Event, getters: list[Getter]) -> str | None:
    """The first valid id."""
    for get in getters:
        value = get(event)
        if value is not None and (valid := _valid(value)):
            return valid
    return None


def _valid(value: Any) -> str | None:
    """The id in a field, None for what is none."""
    value = _single(value)
    return value if isinstance(value, str) and _ID.fullmatch(value) and value.strip("0-") else None


def _parent(value: Any) -> str | None:
    """The trace's id in a traceparent, None for what is none."""
    value = _single(value)
    parent = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if parent is None:
        return None
    version, trace, span, more = parent.groups()
    # Only a later version may have more fields.
    return None if {trace, span} & _ZEROS or (more and version == "00") else str(trace)


def _single(value: Any) -> Any:
    """A header's value: some servers log lists, since a header may come more than once."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _set_trace(event: Event, id_: str) -> None:
    own = event.get("trace", {})
    if isinstance(own, dict) and "id" not in own and "trace.id" not in event:
        event["trace"] = {**own, "id": id_}


# As they stand among headers, in small letters and without what is between the words.
_HEADERS = {
    "correlationid": ("id", _valid),
    "xcorrelationid": ("id", _valid),
    "traceid": ("trace", _valid),
    "xtraceid": ("trace", _valid),
    "traceparent": ("trace", _parent),
}

"""Fields of events by their path, and texts with fields in them: helpers for authors of stages.

A path is `request.clientIp`: the key `clientIp` of the object `request`; or one key that itself has dots, which
is what ECS loggers write. Where an event has both, the key with dots is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from pipeline.contract import ID, Event

Getter = Callable[[Event], Any]

_BRACES = re.compile(r"\{([^{}]*)\}")


def tops(path: str) -> frozenset[str]:
    """The top-level fields that reading or writing `path` may touch."""
    return frozenset({path, path.partition(".")[0]})


def getter(path: str) -> Getter:
    """A function that returns the field's value in an event, None where there is none."""
    if "." not in path:
        return lambda event: event.get(path)
    parts = path.split(".")

    def get(event: Event) -> Any:
        if path in event:
            return event[path]
        value: Any = event
        for part in parts:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    return get


def put(event: Event, path: str, value: Any) -> None:
    """Set the field, making objects on the way; raises `TypeError` where a scalar stands in the way."""
    if path in event or "." not in path:
        event[path] = value
        return
    at: Any = event
    *way, last = path.split(".")
    for part in way:
        if at.get(part) is None:
            at[part] = {}
        at = at[part]
        if not isinstance(at, dict):
            raise TypeError(f"{path}: {part} is not an object")
    at[last] = value


def pop(event: Event, path: str) -> Any:
    """Remove the field and return its value, None where there is none; an object left empty goes too."""
    if path in event or "." not in path:
        return event.pop(path, None)
    *way, last = path.split(".")
    holders: list[Any] = [event]
    for part in way:
        holders.append(holders[-1].get(part))
        if not isinstance(holders[-1], dict):
            return None
    if last not in holders[-1]:
        return None
    value = holders.pop().pop(last)
    while holders and not holders[-1][way[-1]]:
        del holders.pop()[way.pop()]
    return value


def tag(event: Event, *tags: str) -> None:
    """Add tags to the event's `tags`, each once; a scalar there becomes a list. Raises `TypeError` on an object.

    The list is a new one: the event's own may be shared.
    """
    present = event.get("tags")
    if present is None:
        present = []
    elif isinstance(present, dict):
        raise TypeError("tags is an object, not a list")
    elif not isinstance(present, list):
        present = [present]
    event["tags"] = [*present, *(new for new in dict.fromkeys(tags) if new not in present)]


class Template:
    """A text with fields in braces: `aio-logs-{service}-{day}`.

    `{day}` is the event's day in UTC from `@timestamp`, as `2026.11.20`. Raises `ValueError` on unbalanced braces
    or an empty name. `fields` holds the top-level fields that it reads.
    """

    def __init__(self, text: str) -> None:
        pieces = _BRACES.split(text)
        self.text, self.names = text, pieces[1::2]
        if "{" in "".join(pieces[::2]) or "}" in "".join(pieces[::2]) or not all(self.names):
            raise ValueError(f"braces in {text!r} must enclose the name of a field, as in {{service}}")
        self._format = "".join("%s" if n % 2 else piece.replace("%", "%%") for n, piece in enumerate(pieces))
        self._getters = [_day if name == "day" else getter(name) for name in self.names]
        self._lone = self._getters[0] if pieces[::2] == ["", ""] else None
        self.fields = frozenset[str]().union(
            *(frozenset({"@timestamp"}) if name == "day" else tops(name) for name in self.names)
        )

    def __call__(self, event: Event) -> str | None:
        """The text with the event's values, or None where a field is missing or no text, number or boolean."""
        if self._lone:
            value = self._lone(event)
            if value.__class__ is str and value:
                return value
        values = []
        for get in self._getters:
            value = get(event)
            if not isinstance(value, str | int | float) or value == "":
                return None
            values.append(str(value).lower() if isinstance(value, bool) else value)
        return self._format % tuple(values)


def _day(event: Event) -> str | None:
    stamp = event.get("@timestamp")
    return _dotted(stamp[:10]) if isinstance(stamp, str) and stamp.endswith("Z") and len(stamp) >= 20 else None


@lru_cache(1024)
def _dotted(day: str) -> str | None:
    """`2026.11.20` for `2026-11-20`; None for what is no day: a record's own `@timestamp` may hold anything."""
    try:
        return date.fromisoformat(day).isoformat().replace("-", ".")
    except ValueError:
        return None


def derived(event: Event, purpose: str) -> str:
    """32 hexadecimal characters made from the event's document id: the same at every run."""
    return blake2b(f"{purpose}:{event[ID]}".encode(), digest_size=16).hexdigest()

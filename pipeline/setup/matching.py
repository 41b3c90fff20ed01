"""Which template Elasticsearch takes for an index: of those whose pattern fits, the one of the highest priority."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def first(templates: Mapping[str, Mapping[str, Any]], index: str) -> str | None:
    """The name of the template that an index is made by; None: of none."""
    fitting = [name for name, each in templates.items() if fits(index, each["index_patterns"])]
    return max(fitting, key=lambda name: int(templates[name].get("priority", 0)), default=None)


def fits(index: str, patterns: list[str]) -> bool:
    """Whether one of the patterns, in which only `*` is special, is that of the name."""
    return any(re.fullmatch(".*".join(map(re.escape, each.split("*"))), index, re.DOTALL) for each in patterns)


def sample(pattern: str) -> str:
    """A name for a pattern, as such names are in practice."""
    dated = re.sub(r"20\*\.\*\.\*$", "2026.11.20", pattern)
    return re.sub(r"-0\*$", "-000001", dated).replace("*", "some")

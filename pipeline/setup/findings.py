"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.setup.cluster import Cluster


@dataclass
class Finding:
    """Something that is wrong: what, where, and what to do about it."""

    kind: str
    """Its name for programs: `lifecycle-error`, `shadowed-template` …"""
    where: str
    what: str
    remedy: str
    repair: Callable[[Cluster], None] | None = field(default=None, repr=False)
    """Mends it; None: it takes somebody who knows."""
    repaired: str = "repaired"
    """What to say when `repair` has done what it does."""
    outcome: str = ""
    """What came of the repair."""

    def __str__(self) -> str:
        """What an operator reads."""
        able = "`doctor --repair` does it" if self.repair else "not repaired by doctor"
        return f"- {self.where}: {self.what}\n  {self.remedy} ({able})"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "remedy": self.remedy,
            "repairable": self.repair is not None,
        }


def settings(index: str, **values: Any) -> Callable[[Cluster], None]:
    """A repair that sets settings of an index; a name's double underscores stand for dots."""
    body = {name.replace("__", "."): value for name, value in values.items()}

    def repair(cluster: Cluster) -> None:
        cluster.ask("PUT", f"{index}/_settings", body)

    return repair

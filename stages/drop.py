"""Drops events: all that it is given, or a part of them.

    - drop: {when: 'level == "debug" and request.path == "/health"'}
    - drop: {percent: 90, when: 'level == "debug"'}                     # keep one in ten

Without `when:` it drops every event of the pipeline. What is dropped is counted, and acknowledged as if it was
stored. With `percent`, a hash of the event's document id decides, so that a replay drops the same ones.
"""

from hashlib import blake2b

from pydantic import BaseModel, Field

from pipeline.contract import ID, Event


class Drop:
    """Drops events."""

    class Options(BaseModel, extra="forbid"):
        """How many to drop."""

        percent: float = Field(default=100, gt=0, le=100, description="How many of a hundred events to drop.")

    def __init__(self, options: Options) -> None:
        self._all = options.percent == 100
        self._below = options.percent / 100 * 2**64
        self.reads = self.adds = frozenset[str]()

    def __call__(self, events: list[Event]) -> list[Event]:
        """The events that are kept; raises `KeyError` on one without an id, where that decides."""
        return [] if self._all else [event for event in events if _place(event) >= self._below]


def _place(event: Event) -> int:
    """An evenly distributed number below 2⁶⁴ that depends on the document id alone."""
    return int.from_bytes(blake2b(event[ID].encode(), digest_size=8).digest())

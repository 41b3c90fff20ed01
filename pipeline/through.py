"""Records through the stages beside the daemon, for `aiologs tap`: what an event is before and after, redacted."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pipeline import registry
from pipeline.chain import Chain
from pipeline.check import build
from pipeline.condition import Condition
from pipeline.config import Config
from pipeline.contract import ID, Batch, Event


@dataclass(slots=True)
class Passed:
    """What became of a record at the place that is looked at."""

    input: str
    id: str
    before: list[Event] = field(default_factory=list)
    """Without what is secret; from the decoder, where no stage was chosen."""
    after: list[Event] = field(default_factory=list)
    """Without what is secret; none: dropped."""
    failed: str | None = None
    """The stage that could not process it, and the kind of error, whose text may hold what is secret."""


class Through:
    """Takes records through the stages of a configuration; see `Passed`."""

    def __init__(self, config: Config, stage: str | None = None, where: str | None = None) -> None:
        self._chain: Chain = build(config, splice=False)
        names = [step.spec.name for step in self._chain.steps]
        self._first, self._last = (0, len(names)) if stage is None else (names.index(stage), names.index(stage) + 1)
        self._where = Condition(where) if where else None
        kind = registry.find("stage", "redact")
        hiding = [step.stage for step in self._chain.steps if step.spec.type == "redact"]
        self._hiding: list[Any] = hiding or [kind(kind.Options())]

    def follow(self, input_: str, id_: str, record: bytes, origin: Mapping[str, Any]) -> Passed | None:
        """What becomes of a record; None: `where` holds neither before nor after."""
        passed, at, before, events = Passed(input_, id_), "decode", list[Event](), list[Event]()
        try:
            batch = Batch(input_, record, "tap", ends=array("Q", [len(record)]), ids=[id_], origin=dict(origin))
            events = self._decoded(batch)
            for n, step in enumerate(self._chain.steps[: self._last]):
                at = step.spec.name
                if n == self._first:
                    before = deepcopy(events)
                events = step(events)
        except Exception as error:  # noqa: BLE001 - a stage's error API is to raise, whatever it likes
            passed.failed, events = f"{at}: {type(error).__name__}", []
        if self._where and not any(self._where(event) for event in [*before, *events]):
            return None
        passed.before, passed.after = [*map(self._safe, before)], [*map(self._safe, events)]
        return passed

    def _decoded(self, batch: Batch) -> list[Event]:
        events = self._chain.decode(batch.input, batch.records())
        for event in events:
            event[ID] = batch.document_ids()[0]
            for key, value in batch.origin.items():
                if key.partition(".")[0] not in event and key not in event:
                    event[key] = value
        return events

    def _safe(self, event: Event) -> Event:
        """The event without what is secret; only its keys where that can't be told."""
        safe = deepcopy(event)
        try:
            for stage in self._hiding:
                stage([safe])
        except Exception:  # noqa: BLE001 - as above
            return dict.fromkeys(event, "(hidden)")
        finally:
            for stage in self._hiding:
                stage.counts.clear()
        return safe

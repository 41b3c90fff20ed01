"""The ledger: the sum over all records that comes out at any moment, for each output.

    records + events made + unparked  =  the documents of every fate + in flight

On the left stand `aiologs_records_total` and `aiologs_events_made_total` (of all inputs and stages together) and
`aiologs_unparked_total` of the output; on the right `aiologs_documents_total` of the output, of every fate, and its
`aiologs_in_flight_records`. Both sides change within one turn of the event loop, which also answers /metrics: no scrape
ever sees one without the other. The counters begin at 0 with the process, as Prometheus expects of them; what a killed
daemon had in flight is read again by the next one, and counted there.

The fates: `stored`; `already` (there, recognised by its id); `dropped` (by a stage's rule, and blank lines, by
`decode`); `refused` (to the client that sent it); `set_aside` (as a dead letter); `parked` (on disk); `given_up` (not
acknowledged, so that it will be read or sent again: what a stop that came to its deadline cut off, or a failed output);
`before` (a reload added the output: what had been written by then).
A parked document that an output takes at last, or refuses, has been unparked: it comes in once more, and has another
fate. Dead letters that are tried again are no part of the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipeline.contract import Batch
    from pipeline.metrics import Metrics

Fate = Literal["stored", "already", "dropped", "refused", "set_aside", "parked", "given_up", "before"]


class Ledger:
    """Keeps the sum. Who decides a fate calls it in the turn in which that is true and, on a disk, durable.

    `outputs` is looked at each time: a reload may add and remove some.
    """

    def __init__(self, metrics: Metrics, outputs: Mapping[str, Any]) -> None:
        self._metrics, self._outputs = metrics, outputs
        self._came = 0
        self._open = 0
        """Of what came, how much is not on its way to the outputs yet, and will be to those that there are then."""
        self._decided: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        """For each output, how many records and events it has not decided about."""
        self._shown: set[str] = set()
        self._follow()

    def take(self, batch: Batch, records: int) -> None:
        """Records come in."""
        labels = {"input": batch.input}
        self._metrics.count("records", records, labels)
        self._metrics.count("record_bytes", len(batch.block), labels)
        self._come(records)

    def made(self, stage: str, n: int) -> None:
        """A stage has made events beyond one a record."""
        self._metrics.count("events_made", n, {"stage": stage})
        self._come(n)

    def decide(self, fate: Fate, n: int) -> None:
        """So many have this fate at every output: they never reach one."""
        self._follow()
        self._open -= n
        for output in self._shown:
            self.decide_at(output, fate, n)

    def begin(self, n: int) -> set[str]:
        """So many are on their way now to the outputs that are returned."""
        self._follow()
        self._open -= n
        return {*self._shown}

    def decide_at(self, output: str, fate: Fate, n: int) -> None:
        """So many have this fate at one output."""
        self._count(output, fate, n)
        self._move(output, -n)

    def unparked(self, output: str, fates: Mapping[Fate, int]) -> None:
        """Parked documents have other fates by now."""
        n = sum(fates.values())
        self._metrics.count("unparked", n, {"output": output})
        self._decided[output] -= n
        for fate, each in fates.items():
            self._count(output, fate, each)

    def _come(self, n: int) -> None:
        self._follow()
        self._came += n
        self._open += n
        for output in self._shown:
            self._move(output, n)

    def _count(self, output: str, fate: Fate, n: int) -> None:
        if n:
            self._metrics.count("documents", n, {"output": output, "fate": fate})
            self._decided[output] += n

    def _move(self, output: str, n: int) -> None:
        self.in_flight[output] += n
        if output in self._shown:
            self._metrics.gauge("in_flight_records", self.in_flight[output], {"output": output})

    def _follow(self) -> None:
        """Notice outputs that a reload has added or removed."""
        if self._shown == self._outputs.keys():
            return
        for output in self._shown - self._outputs.keys():
            self._move(output, -self._open)
            self._metrics.forget("in_flight_records", {"output": output})
        for output in self._outputs.keys() - self._shown:
            self._count(output, "before", self._came - self._open - self._decided[output] - self.in_flight[output])
            self._shown.add(output)
            self._move(output, self._open)
        self._shown &= self._outputs.keys()


class Account:
    """The records of one run, from when they have come in until each has its fate at each output."""

    def __init__(self, ledger: Ledger, records: int) -> None:
        self._ledger, self._events = ledger, records
        self._left: dict[str, int] | None = None

    def made(self, stage: str, n: int) -> None:
        """A stage has made events beyond one a record."""
        self._ledger.made(stage, n)
        self._events += n

    def put_back(self, n: int) -> None:
        """So many are left to another run, before this one's are on their way to the outputs."""
        self._events -= n

    def decide(self, fate: Fate, n: int) -> None:
        """So many have the same fate at every output: they never reach one."""
        if self._left is None:
            self._ledger.decide(fate, n)
            self._events -= n
            return
        for output in self._left:
            self.decide_at(output, fate, n)

    def begin(self) -> set[str]:
        """All that is left is on its way now to the outputs that are returned."""
        outputs = self._ledger.begin(self._events)
        self._left = dict.fromkeys(outputs, self._events)
        return outputs

    def decide_at(self, output: str, fate: Fate, n: int) -> None:
        """So many have this fate at one output."""
        assert self._left is not None, "it has not begun"  # noqa: S101 - a mistake of ours
        self._left[output] -= n
        self._ledger.decide_at(output, fate, n)

    def close(self) -> None:
        """What has no fate by now is given up."""
        if self._left is None:
            self.decide("given_up", self._events)
            return
        for output, n in self._left.items():
            self.decide_at(output, "given_up", n)

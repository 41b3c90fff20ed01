"""What aiologs counts and measures: declared in one table, kept in plain dictionaries, shown as Prometheus text.

An update costs less than a microsecond. A name or labels that are not declared raise, so that a mistake shows in the
first test that comes by. A metric has at most 1,000 series: what comes then goes into one whose labels are `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from prometheus_client import Metric as Family
    from prometheus_client.registry import Collector

PREFIX = "aiologs_"
SERIES = 1000
"""How many series a metric may have."""
OTHER = "other"

_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric. Seconds and bytes are its units, and its name says which."""

    name: str
    """Without the prefix, and without `_total`, which counters get."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram."""

    @property
    def full_name(self) -> str:
        """The name that Prometheus shows."""
        return f"{PREFIX}{self.name}{'_total' * (self.kind == 'counter')}"


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help_, labels)


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, "histogram", help_, labels, buckets)


METRICS = (
    _counter("records", "Records taken from inputs; a blank line counts, and is dropped by `decode`.", "input"),
    _counter("record_bytes", "Bytes of the records taken from inputs, undecoded.", "input"),
    _counter("records_refused", "Records that were refused to the client that sent them.", "input"),
    _counter("events_made", "Events that a stage or decoder made beyond one a record.", "stage"),
    _counter("events_dropped", "Events that a stage dropped by a rule.", "stage"),
    _counter("set_aside", "Records or documents set aside as dead letters, by the stage or output at fault.", "stage"),
    _counter(
        "documents",
        "Records and the events made of them, by what became of them: stored, already (there), dropped, refused (to the"
        " client), set_aside, parked, given_up (unacknowledged: they will be read or sent again), before (that a reload"
        " added the output).",
        "output",
        "fate",
    ),
    _counter("unparked", "Parked documents that the output has taken, or refused, since.", "output"),
    _counter("redactions", "Values redacted.", "rule"),
    _counter("lines_cut", "Lines that were longer than allowed.", "input"),
    _counter("files_truncated", "Files that became shorter while they were followed.", "input"),
    _counter("files_damaged", "Compressed files that end too early or are damaged.", "input"),
    _counter("datagrams_dropped", "Datagrams for which there was no room.", "input"),
    _counter("records_cut", "Records of several lines that ended at a limit.", "input"),
    _counter("buffer_damaged", "Batches in a disk buffer that were damaged and are kept aside.", "input"),
    _counter("connection_errors", "Connections that were ended or not taken.", "input", "reason"),
    _counter("peers_held_back", "Times that an address had to wait, with as many bytes as one may have.", "input"),
    _counter("http_errors", "HTTP requests answered with an error.", "input", "status"),
    _counter("bulk_requests", "Bulk requests answered.", "output", "status"),
    _counter("bulk_retries", "Bulk requests or items sent again.", "output", "reason"),
    _counter(
        "read_only_documents",
        "Documents for read-only indices: already there, sent with replay_index or add, set_aside.",
        "output",
        "fate",
    ),
    _counter("documents_repaired", "Times that a field was moved since its index wants another type.", "output"),
    _counter("failure_store", "Documents that Elasticsearch put into a failure store.", "output"),
    _counter("blocked_seconds", "Seconds in which an output took nothing.", "output"),
    _counter("worker_restarts", "Worker processes replaced: died, hung, nursery.", "reason"),
    _counter("config_reload_failures", "Reloads refused because the new configuration is wrong."),
    _gauge("build_info", "Always 1; the version is a label.", "version"),
    _gauge("in_flight_bytes", "Bytes of records taken from inputs and not acknowledged yet."),
    _gauge("in_flight_records", "Records and events that have no fate yet.", "output"),
    _gauge("buffered_bytes", "Bytes that wait in the disk buffer of an input.", "input"),
    _gauge("buffered_batches", "Batches that wait in the disk buffer of an input.", "input"),
    _gauge("parked", "Documents parked on disk.", "output", "index"),
    _gauge("parked_bytes", "Bytes that parked documents take on disk."),
    _gauge("parked_oldest_seconds", "How long the oldest parked document has waited."),
    _counter("dead_letters_dropped", "Dead letters removed for good by dead_letters: old, full.", "reason"),
    _gauge("dead_letters", "Dead letters on disk."),
    _gauge("dead_letter_bytes", "Bytes that dead letters take on disk."),
    _gauge("output_blocked", "1 while an output takes nothing.", "output"),
    _gauge("bulk_concurrency", "Bulk requests that may be under way at once now.", "output"),
    _gauge("workers", "Worker processes alive."),
    _gauge("connections", "Connections open.", "input"),
    _gauge("file_lag_bytes", "Bytes in a followed file that are not delivered yet.", "input", "path"),
    _gauge("files_followed", "Files that are followed.", "input"),
    _gauge("files_open", "Files open for reading.", "input"),
    _gauge("kafka_lag", "Records in assigned partitions that are not delivered yet.", "input", "topic", "partition"),
    _gauge("geoip_database_age_seconds", "Age of the GeoIP database by its own date."),
    _gauge("stage_value", "What a stage says about itself under a name that is not declared.", "name"),
    _gauge("config_reload_success_timestamp_seconds", "When the configuration was last loaded."),
    _histogram("chain_seconds", "Time that a run of batches took through the chain, with waiting.", _QUICK),
    _histogram("stage_seconds", "Time that a run of batches took in a stage.", _QUICK, "stage"),
    _histogram("bulk_seconds", "Time until a bulk request was answered.", _SLOW, "output"),
)
"""Every metric there is."""

_NO_LABELS: Mapping[str, str] = {}


@dataclass(slots=True)
class _Histogram:
    """Observations by bucket, the last one without a bound, and their sum."""

    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class _Series:
    """The values of one metric by its labels' values."""

    metric: Metric
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    histograms: dict[tuple[str, ...], _Histogram] = field(default_factory=dict)

    def key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels' values in the declared order, or those of `other` where there are too many series."""
        if labels.keys() != set(self.labels):
            raise ValueError(f"metric {self.metric.name} has the labels {list(self.labels)}, not {list(labels)}")
        key = tuple(labels[name] for name in self.labels)
        known = self.histograms if self.metric.kind == "histogram" else self.values
        return key if key in known or len(known) < SERIES else (OTHER,) * len(key)


class Metrics:
    """All metrics of this process. Not for threads."""

    def __init__(self) -> None:
        series = [_Series(metric, metric.labels) for metric in METRICS]
        of_kind = {
            kind: {each.metric.name: each for each in series if each.metric.kind == kind}
            for kind in ("counter", "gauge", "histogram")
        }
        self._counters, self._gauges, self._histograms = of_kind.values()
        self._series = series
        for each in series:  # what has no labels is there from the start, so that a rate can be taken
            if each.metric.kind == "counter" and not each.metric.labels:
                each.values[()] = 0

    def count(self, name: str, n: float = 1, labels: Mapping[str, str] = _NO_LABELS) -> None:
        """Add to a counter; raises `KeyError` or `ValueError` for what is not declared."""
        series = self._counters[name]
        values = series.values
        if tuple(labels) == series.labels and (key := tuple(labels.values())) in values:  # the usual case
            values[key] += n
            return
        key = series.key(labels)
        values[key] = values.get(key, 0) + n

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = _NO_LABELS) -> None:
        """Set a gauge; raises like `count`."""
        series = self._gauges[name]
        series.values[series.key(labels)] = value

    def report(self, name: str, value: float) -> None:
        """Set the gauge that a stage names; one that is not declared (without labels) goes into `stage_value`."""
        if (series := self._gauges.get(name)) and not series.labels:
            self.gauge(name, value)
        else:
            self.gauge("stage_value", value, {"name": name})

    def clear(self, name: str) -> None:
        """Forget all series of a gauge, before those that there are now are set."""
        self._gauges[name].values.clear()

    def forget(self, name: str, labels: Mapping[str, str]) -> None:
        """Forget one series of a gauge: what it measured is gone."""
        series = self._gauges[name]
        series.values.pop(series.key(labels), None)

    def forget_all(self, label: str, value: str) -> None:
        """Forget what the gauges say of a part that is gone; counters stay, since sums are made of them."""
        for series in self._gauges.values():
            if label in series.labels:
                at = series.labels.index(label)
                series.values = {key: each for key, each in series.values.items() if key[at] != value}

    def observe(self, name: str, seconds: float, labels: Mapping[str, str] = _NO_LABELS) -> None:
        """Add an observation to a histogram; raises like `count`."""
        series = self._histograms[name]
        key = series.key(labels)
        if (histogram := series.histograms.get(key)) is None:
            histogram = series.histograms[key] = _Histogram([0] * (len(series.metric.buckets) + 1))
        histogram.counts[bisect_left(series.metric.buckets, seconds)] += 1
        histogram.total += seconds

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a counter or gauge by its labels' values; raises `KeyError` for what is not declared."""
        return dict((self._counters.get(name) or self._gauges[name]).values)

    def collect(self) -> Iterator[Family]:
        """All metrics, as the library wants them of a collector."""
        return map(_family, self._series)

    def render(self, *, openmetrics: bool = False) -> bytes:
        """All metrics, and those of this process, as Prometheus text 0.0.4 or OpenMetrics 1.0.0."""
        # Imported when it is first asked for: it costs a tenth of a second.
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # noqa: PLC0415
        from prometheus_client.openmetrics import exposition  # noqa: PLC0415

        registry = CollectorRegistry(auto_describe=False)
        registry.register(cast("Collector", self))
        ProcessCollector(registry=registry)
        if openmetrics:
            return bytes(exposition.generate_latest(registry))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _family(series: _Series) -> Family:
    from prometheus_client import Metric as Family  # noqa: PLC0415 - see above

    metric = series.metric
    family = Family(f"{PREFIX}{metric.name}", metric.help, metric.kind)
    for key, value in series.values.items():
        family.add_sample(metric.full_name, dict(zip(metric.labels, key, strict=True)), value)
    for key, histogram in series.histograms.items():
        labels, count = dict(zip(metric.labels, key, strict=True)), 0
        for bound, n in zip((*map(str, metric.buckets), "+Inf"), histogram.counts, strict=True):
            count += n
            family.add_sample(f"{metric.full_name}_bucket", labels | {"le": bound}, count)
        family.add_sample(f"{metric.full_name}_count", labels, count)
        family.add_sample(f"{metric.full_name}_sum", labels, histogram.total)
    return family

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from pipeline.metrics import METRICS, PREFIX, SERIES, Metrics

ROOT = Path(__file__).parent.parent


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Name and labels' values (in the order of their names) → value, as Prometheus and OpenMetrics read them."""
    plain, open_ = (
        {
            (sample.name.removeprefix(PREFIX), *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith(PREFIX)
        }
        for families in (prometheus(metrics.render().decode()), openmetrics(metrics.render(openmetrics=True).decode()))
    )
    assert plain == open_
    return plain


def test_counters_add_up_by_labels(metrics):
    for fate, n in [("stored", 2), ("already", 1), ("stored", 3)]:
        metrics.count("documents", n, {"output": "es", "fate": fate})
    metrics.count("blocked_seconds", 0.5, {"output": "es"})
    found = samples(metrics)
    assert found["documents_total", "stored", "es"] == 5
    assert found["documents_total", "already", "es"] == 1
    assert found["blocked_seconds_total", "es"] == 0.5


def test_a_counter_without_labels_is_there_from_the_start(metrics):
    assert samples(metrics)["config_reload_failures_total",] == 0
    metrics.count("config_reload_failures")
    assert samples(metrics)["config_reload_failures_total",] == 1


def test_the_order_of_labels_does_not_matter(metrics):
    metrics.count("documents", 1, {"output": "es", "fate": "stored"})
    metrics.count("documents", 1, {"fate": "stored", "output": "es"})
    assert samples(metrics)["documents_total", "stored", "es"] == 2


def test_a_gauge_has_its_last_value_until_it_is_cleared(metrics):
    metrics.gauge("parked", 3, {"output": "es", "index": "a"})
    metrics.gauge("parked", 2, {"output": "es", "index": "a"})
    metrics.gauge("workers", 2)
    assert samples(metrics)["parked", "a", "es"] == 2
    metrics.clear("parked")
    metrics.gauge("parked", 1, {"output": "es", "index": "b"})
    assert {key for key in samples(metrics) if key[0] == "parked"} == {("parked", "b", "es")}
    assert samples(metrics)["workers",] == 2


def test_the_gauges_of_what_is_gone_are_forgotten(metrics):
    for name in ("web", "ship"):
        metrics.gauge("connections", 2, {"input": name})
        metrics.gauge("kafka_lag", 2, {"input": name, "topic": "web", "partition": "0"})
        metrics.count("records", 2, {"input": name})
    metrics.forget_all("input", "web")
    text = metrics.render().decode()
    assert 'input="web"' not in text.replace('aiologs_records_total{input="web"} 2.0', "")
    assert 'aiologs_records_total{input="web"} 2.0' in text
    assert 'aiologs_connections{input="ship"} 2.0' in text
    assert 'topic="web"' in text


def test_a_stage_may_report_under_a_name_of_its_own(metrics):
    metrics.report("geoip_database_age_seconds", 5)
    metrics.report("cache_entries", 7)
    metrics.report("parked", 8)
    found = samples(metrics)
    assert found["geoip_database_age_seconds",] == 5
    assert found["stage_value", "cache_entries"] == 7
    assert found["stage_value", "parked"] == 8


def test_observations_are_counted_in_buckets_with_their_bound_included(metrics):
    for seconds in (0.005, 0.0051, 61.0):
        metrics.observe("bulk_seconds", seconds, {"output": "es"})
    found = samples(metrics)
    buckets = {key[1]: value for key, value in found.items() if key[0] == "bulk_seconds_bucket"}
    assert buckets["0.005"] == 1
    assert buckets["0.01"] == buckets["60.0"] == 2
    assert buckets["+Inf"] == found["bulk_seconds_count", "es"] == 3
    assert found["bulk_seconds_sum", "es"] == pytest.approx(61.0101)


@pytest.mark.parametrize(
    ("method", "name", "labels"),
    [
        ("count", "record", {}),
        ("count", "workers", {}),
        ("gauge", "records", {"input": "a"}),
        ("gauge", "worker", {}),
        ("observe", "workers", {}),
        ("count", "records", {}),
        ("count", "records", {"output": "a"}),
        ("count", "records", {"input": "a", "output": "b"}),
        ("gauge", "workers", {"input": "a"}),
        ("observe", "bulk_seconds", {}),
    ],
)
def test_what_is_not_declared_raises(metrics, method, name, labels):
    with pytest.raises((KeyError, ValueError)):
        getattr(metrics, method)(name, 1, labels)


def test_wrong_labels_are_named(metrics):
    with pytest.raises(ValueError, match=r"metric records has the labels \['input'\], not \['output'\]"):
        metrics.count("records", 1, {"output": "a"})


def test_a_metric_has_a_bounded_number_of_series(metrics):
    for n in range(SERIES + 10):
        metrics.count("redactions", 1, {"rule": f"{n}"})
        metrics.observe("bulk_seconds", 1, {"output": f"{n}"})
        metrics.gauge("parked", n, {"output": "es", "index": f"{n}"})
    metrics.count("redactions", 1, {"rule": "0"})
    found = samples(metrics)
    assert sum(key[0] == "redactions_total" for key in found) == SERIES + 1
    assert found["redactions_total", "other"] == 10
    assert found["redactions_total", "0"] == 2
    assert found["bulk_seconds_count", "other"] == 10
    assert found["parked", "other", "other"] == SERIES + 9


def test_any_text_can_be_a_label(metrics):
    text = 'a"b\\c\nd{é}\u2028'
    metrics.count("records", 1, {"input": text})
    assert samples(metrics)["records_total", text] == 1


def test_the_process_is_measured_too(metrics):
    assert b"process_resident_memory_bytes" in metrics.render()


def test_names_are_unique_and_say_their_unit():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
            assert list(metric.buckets) == sorted(set(metric.buckets))


def used() -> Iterator[tuple[str, str, list[str] | None]]:
    """The metrics that the code names: kind, name, and the labels where they stand in the call."""
    kinds = {"count": "counter", "gauge": "gauge", "observe": "histogram"}
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(_, called) | ast.Name(called), [ast.Constant(str(name)), _, labels]):
                    if called in kinds:
                        yield kinds[called], name, _keys(labels)


def _keys(labels: ast.expr) -> list[str] | None:
    return [ast.literal_eval(key) for key in labels.keys if key] if isinstance(labels, ast.Dict) else None


def test_what_the_code_counts_is_declared():
    declared: dict[tuple[str, str], set[str]] = {(each.kind, each.name): {*each.labels} for each in METRICS}
    found = [*used()]
    assert len(found) > 15
    for kind, name, labels in found:
        assert (kind, name) in declared
        assert labels is None or {*labels} == declared[kind, name], name


def test_what_is_declared_is_set_somewhere():
    paths = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    code = "".join(path.read_text() for path in paths if path.name != "metrics.py")
    assert {each.name for each in METRICS if f'"{each.name}"' not in code} == {"stage_value"}  # that is set by `report`


def test_the_library_is_not_imported_before_somebody_asks():
    program = "import sys, pipeline.metrics; pipeline.metrics.Metrics(); sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

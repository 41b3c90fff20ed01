"""Whether the ledger comes out: see `pipeline.ledger`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, Mapping[str, str], float]
"""Name, labels, value."""


def assert_balanced(metrics: str) -> dict[str, Counter[str]]:
    """Fail where the sum does not come out for an output in what /metrics said; returns each output's fates."""
    return assert_samples_balanced(
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    )


def assert_samples_balanced(samples: Iterable[Sample]) -> dict[str, Counter[str]]:
    """The same for samples that are at hand."""
    total: Counter[str] = Counter()
    in_flight: dict[str, float] = {}
    unparked: Counter[str] = Counter()
    fates: dict[str, Counter[str]] = defaultdict(Counter)
    for name, labels, value in samples:
        match name.removeprefix("aiologs_"):
            case "in_flight_records":
                in_flight[labels["output"]] = value
            case "unparked_total":
                unparked[labels["output"]] = value
            case "documents_total":
                fates[labels["output"]][labels["fate"]] = value
            case other:
                total[other] += value
    assert in_flight, "there is no ledger in this"
    came = total["records_total"] + total["events_made_total"]
    for output, under_way in in_flight.items():
        found = fates[output]
        told = f"output {output}: {came:g} + {unparked[output]:g} unparked in; {dict(found)}, {under_way:g} in flight"
        assert came + unparked[output] == found.total() + under_way, told
        assert under_way >= 0, told
        if not found["before"]:
            assert found["dropped"] == total["events_dropped_total"], told
            assert found["refused"] == total["records_refused_total"], told
    return fates

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contract import Event
from pipeline.fields import derived
from stages.correlation import Correlation

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def run(event: Event, **options: Any) -> Event:
    (after,) = Correlation(Correlation.Options(**options))([{"@id": "log-1"} | event])
    return after


def found(event: Event, **options: Any) -> tuple[Any, Any, Any]:
    """The id, whence, and the trace's id."""
    after = run(event, **options)
    trace = after.get("trace")
    return (
        after["correlation"]["id"],
        after["correlation"]["source"],
        trace.get("id") if isinstance(trace, dict) else None,
    )


MADE = (derived({"@id": "log-1"}, "correlation"), "made", None)


@pytest.mark.parametrize(
    "event",
    [
        {"correlationId": "c-1"},
        {"correlation_id": "c-1"},
        {"x-correlation-id": "c-1"},
        {"X-Correlation-ID": "c-1"},
        {"correlation": "c-1"},
        {"correlation": {"id": "c-1"}},
        {"headers": {"x-correlation-id": "c-1"}},
        {"headers": {"X-CORRELATION-ID": ["c-1"]}},
        {"request": {"headers": {"x_correlation_id": "c-1"}}},
        {"context": {"correlationId": "c-1"}},
        {"correlationId": "", "context": {"correlation_id": "c-1"}},
        {"headers": "none", "context": {"correlation_id": "c-1"}},
        {"headers": {"Correlation-Id": "c-1"}, "context": {"correlation_id": "c-2"}},
    ],
)
def test_a_correlation_id_is_found_under_the_usual_names(event):
    assert found(event) == ("c-1", "received", None)


@pytest.mark.parametrize(
    "event",
    [
        {"traceId": TRACE},
        {"trace_id": TRACE},
        {"x-trace-id": TRACE},
        {"traceparent": PARENT},
        {"trace": {"id": TRACE, "sampled": True}},
        {"headers": {"X-Trace-Id": TRACE}},
        {"request": {"headers": {"traceparent": PARENT}}},
        {"context": {"traceId": TRACE}},
    ],
)
def test_a_trace_is_found_and_correlates_where_nothing_else_does(event):
    assert found(event) == (TRACE, "received", TRACE)


def test_a_trace_is_found_beside_a_correlation_id():
    assert found({"correlationId": "c-1", "traceId": TRACE}) == ("c-1", "received", TRACE)
    assert found({"correlationId": "c-1", "headers": {"traceparent": PARENT}}) == ("c-1", "received", TRACE)
    assert found({"traceId": TRACE, "headers": {"x-correlation-id": "c-1"}}) == ("c-1", "received", TRACE)


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a\n", "ä", "a" * 129, "<script>", "0", "0" * 32, "00-00", None, 5, True, [], ["a", "b"], {}],
)
def test_what_is_no_id_counts_as_missing(value):
    assert found({"correlationId": value, "traceId": value, "headers": {"x-correlation-id": value}}) == MADE


@pytest.mark.parametrize("value", ["a", "a" * 128, "A.b_c:d-9"])
def test_an_id_is_1_to_128_plain_characters(value):
    assert found({"correlationId": value}) == (value, "received", None)


@pytest.mark.parametrize("value", [PARENT, f"cc-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01-more", [PARENT]])
def test_a_traceparent_names_the_trace(value):
    assert found({"traceparent": value}) == (TRACE, "received", TRACE)


@pytest.mark.parametrize(
    "value",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"{PARENT}\n",
        TRACE,
        5,
    ],
)
def test_an_invalid_traceparent_counts_as_missing(value):
    assert found({"traceparent": value}) == MADE
    assert found({"headers": {"traceparent": value}}) == MADE


def test_a_correlation_id_that_looks_like_a_traceparent_stays_whole():
    assert found({"correlationId": PARENT}) == (PARENT, "received", None)


def test_an_id_is_made_of_the_document_id_alone():
    assert found({}) == found({"message": "x"}) == MADE
    assert run({"@id": "log-2"})["correlation"] != run({})["correlation"]


def test_without_a_document_id_none_can_be_made():
    with pytest.raises(KeyError):
        Correlation(Correlation.Options())([{}])


@pytest.mark.parametrize("own", [0.93, ["a", "b"], {"id": 5}, {"coefficient": 1}, "not an id"])
def test_another_value_under_the_target_is_replaced(own):
    assert found({"correlation": own}) == MADE


def test_a_record_that_went_through_before_stays_as_it_is():
    once = run({"headers": {"traceparent": PARENT}})
    assert run(once) == once
    made = run({})
    assert run(made) == made
    assert run({"correlation": {"id": "c-1", "by": "nginx"}})["correlation"] == {
        "id": "c-1",
        "by": "nginx",
        "source": "received",
    }


@pytest.mark.parametrize(
    ("event", "trace"),
    [
        ({"trace": {"sampled": True}}, {"sampled": True, "id": TRACE}),
        ({"trace": {"id": 5}}, {"id": 5}),
        ({"trace": "at f (app.js:1)"}, "at f (app.js:1)"),
        ({"trace.id": 5}, None),
    ],
)
def test_a_trace_of_the_records_own_stays_as_it_is(event, trace):
    assert run({"traceId": TRACE} | event).get("trace") == trace


def test_target_and_places_may_be_chosen():
    after = run(
        {"http": {"Correlation-ID": "c-1"}, "context": {"correlationId": "c-2"}}, target="request_id", within=["http"]
    )
    assert after["request_id"] == {"id": "c-1", "source": "received"}
    assert found({"headers": {"x-correlation-id": "c-1"}}, within=[]) == MADE


def test_it_says_what_it_reads_and_adds():
    stage = Correlation(Correlation.Options(within=["request.headers"]))
    assert {"request", "request.headers", "trace", "trace.id", "traceparent", "correlationId"} <= stage.reads
    assert "context" not in stage.reads
    assert stage.adds == {"correlation", "trace"}


@pytest.mark.parametrize("target", ["", "a.b", "@id"])
def test_a_wrong_target_is_an_error(target):
    with pytest.raises(ValidationError):
        Correlation.Options(target=target)

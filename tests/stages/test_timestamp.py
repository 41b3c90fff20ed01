import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.contract import Event
from stages.timestamp import Timestamp

MIDNIGHT = "2026-11-20T00:00:00.000Z"
LATER = "2026-11-20T00:00:01.000Z"


def run(event: Event, **options: Any) -> Event:
    (after,) = Timestamp(Timestamp.Options(**options))([dict(event)])
    return after


@pytest.mark.parametrize(
    "value",
    [MIDNIGHT, 1795132800000, 1795132800.0, "1795132800", "2026-11-20T01:00:00+01:00", "20/Nov/2026:00:00:00 +0000"],
)
def test_a_time_is_written_in_utc_and_its_field_stays(value):
    assert run({"timestamp": value}, field="timestamp") == {"timestamp": value, "@timestamp": MIDNIGHT}


@pytest.mark.parametrize("name", ["@timestamp", "timestamp", "time", "ts"])
def test_the_usual_fields_are_found_without_options(name):
    assert run({name: 1795132800})["@timestamp"] == MIDNIGHT


def test_the_first_field_with_a_time_counts():
    assert run({"a": {"b": LATER}, "c": MIDNIGHT}, field=["a.b", "c"])["@timestamp"] == LATER
    assert run({"c": MIDNIGHT}, field=["a.b", "c"]) == {"c": MIDNIGHT, "@timestamp": MIDNIGHT}


def test_a_wrong_field_is_marked_even_where_the_next_one_has_a_time():
    after = run({"a": "soon", "c": MIDNIGHT}, field=["a", "c"])
    assert after == {"a": "soon", "c": MIDNIGHT, "@timestamp": MIDNIGHT, "tags": ["_bad_timestamp"]}


def test_the_records_own_timestamp_counts_where_the_field_is_missing():
    assert run({"@timestamp": "2026-11-20T00:00:00Z"}, field="timestamp") == {"@timestamp": MIDNIGHT}


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "2026-13-40T99:99:99.999Z",
        "2026-02-30T00:00:00.000Z",
        "2101-01-01T00:00:00.000Z",
        5,
        10**30,
        True,
        [],
        {},
        "",
    ],
)
def test_a_wrong_time_is_marked_and_none_is_invented(value):
    assert run({"timestamp": value}, field="timestamp") == {"timestamp": value, "tags": ["_bad_timestamp"]}


@pytest.mark.parametrize("event", [{}, {"timestamp": None}])
def test_a_missing_time_is_marked(event):
    assert run(event, field="timestamp") == event | {"tags": ["_no_timestamp"]}


def test_a_mark_is_added_to_the_tags_that_are_there():
    assert run({"tags": ["a"]})["tags"] == ["a", "_no_timestamp"]
    assert run({"tags": "a"})["tags"] == ["a", "_no_timestamp"]


def test_a_wrong_timestamp_of_the_records_own_moves_out_of_the_way():
    assert run({"@timestamp": "soon"}) == {"timestamp_original": "soon", "tags": ["_bad_timestamp"]}
    assert run({"@timestamp": None}) == {"tags": ["_no_timestamp"]}
    after = run({"@timestamp": "soon", "timestamp": "later"}, field="timestamp")
    assert after == {"timestamp": "later", "timestamp_original": "soon", "tags": ["_bad_timestamp"]}


def test_another_target_may_be_named():
    stage = Timestamp(Timestamp.Options(field="seen", target="seenAt"))
    assert stage([{"seen": 1795132800}]) == [{"seen": 1795132800, "seenAt": MIDNIGHT}]
    assert stage.adds == {"seenAt", "seenAt_original", "tags"}
    assert stage.reads == {"seen", "seenAt", "seenAt_original", "tags"}


def test_only_the_given_formats_are_tried():
    assert run({"t": "20.11.2026"}, field="t", formats=["%d.%m.%Y"])["@timestamp"] == MIDNIGHT
    assert "@timestamp" not in run({"t": MIDNIGHT}, field="t", formats=["%d.%m.%Y"])
    assert "@timestamp" not in run({"t": 1795132800}, field="t", formats=["iso8601"])
    assert run({"t": MIDNIGHT}, field="t", formats=["epoch", "iso8601"])["@timestamp"] == MIDNIGHT


def test_a_format_of_ones_own_before_iso_8601_comes_first():
    options = {"field": "t", "formats": ["%Y-%d-%mT%H:%M:%S.%fZ", "iso8601"]}
    assert run({"t": "2026-01-02T00:00:00.000Z"}, **options)["@timestamp"] == "2026-02-01T00:00:00.000Z"
    assert run({"t": "2026-01-20T00:00:00.000Z"}, **options)["@timestamp"] == "2026-01-20T00:00:00.000Z"


def test_a_zone_counts_for_times_that_name_none():
    options = {"field": "t", "zone": "Europe/Berlin"}
    assert run({"t": "2026-11-20 01:00:00"}, **options)["@timestamp"] == MIDNIGHT
    assert run({"t": MIDNIGHT}, **options)["@timestamp"] == MIDNIGHT


def test_a_year_comes_from_the_reference_or_the_time_is_wrong():
    event = {"t": "Dec 31 23:59:59", "file.mtime": "2027-01-02T00:00:00Z"}
    assert run(event, field="t", reference="file.mtime")["@timestamp"] == "2026-12-31T23:59:59.000Z"
    assert run(event, field="t")["tags"] == ["_bad_timestamp"]
    assert run({"t": "Dec 31 23:59:59"}, field="t", reference="file.mtime")["tags"] == ["_bad_timestamp"]


def test_it_says_what_it_reads_and_adds():
    stage = Timestamp(Timestamp.Options(field=["a.b", "c"], reference="d.e"))
    assert stage.reads == {"a", "a.b", "c", "d", "d.e", "@timestamp", "timestamp_original", "tags"}
    assert stage.adds == {"@timestamp", "timestamp_original", "tags"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": []}, "at least 1"),
        ({"field": ""}, "at least 1"),
        ({"formats": []}, "at least 1"),
        ({"formats": ["iso"]}, "unknown format 'iso'; there is iso8601"),
        ({"formats": ["%H:%M"]}, "has no day"),
        ({"zone": "Europe/Nowhere"}, "unknown time zone 'Europe/Nowhere'"),
        ({"target": "a.b"}, "pattern"),
        ({"target": "@id"}, "pattern"),
        ({"feild": "a"}, "Extra inputs"),
    ],
)
def test_a_wrong_option_is_an_error(options, message):
    with pytest.raises(ValidationError, match=message):
        Timestamp.Options(**options)


CANONICAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")


@pytest.mark.parametrize("odd", ["2026-11-20T00:00:61.000Z", f"{MIDNIGHT}\n{MIDNIGHT}", "é", "", None, [], 5])
def test_an_odd_value_among_usual_ones_changes_nothing_for_these(odd):
    events = Timestamp(Timestamp.Options(field="t"))([{"t": MIDNIGHT}, {"t": odd}, {"t": LATER}])
    assert [event.get("@timestamp") for event in events] == [MIDNIGHT, None, LATER]


@given(
    st.from_regex(r"\A[0-9]{4}-[0-9W-]{5}[T ][0-9:.,]{12}[Z0]\Z") | st.from_regex(CANONICAL, fullmatch=True) | st.text()
)
def test_what_is_set_is_a_canonical_time(text):
    after = run({"t": text}, field="t")
    if "@timestamp" in after:
        assert CANONICAL.fullmatch(after["@timestamp"])
        datetime.fromisoformat(after["@timestamp"])
    else:
        assert after["tags"] == ["_bad_timestamp"]

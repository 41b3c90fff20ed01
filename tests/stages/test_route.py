from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.route import Route

STAMP = "2026-11-20T10:11:12.123Z"


def make(**options: Any) -> Route:
    return Route(Route.Options(**options))


def routed(stage: Route, **event: Any) -> str:
    (result,) = stage([event])
    return str(result["@index"])


REFERENCE = make(
    rules=[
        {"when": 'category == "audit"', "index": "aio-security-audit-{day}"},
        {"when": "severity >= 17", "index": "aio-errors-{day}"},
        {"when": "service is not None", "index": "aio-logs-{service}-{day}"},
        {"when": "team", "index": "team-{team}-{n}"},
        {"when": "fixed", "index": "fixed"},
    ]
)


@pytest.mark.parametrize(
    ("event", "index"),
    [
        ({"category": "audit", "severity": 17}, "aio-security-audit-2026.11.20"),
        ({"severity": 17, "service": "x"}, "aio-errors-2026.11.20"),
        ({"service": "api"}, "aio-logs-api-2026.11.20"),
        ({"service": "API Gate/way:1"}, "aio-logs-api_gate_way_1-2026.11.20"),
        ({"service": {"name": "api"}}, "aio-logs-unrouted"),
        ({"service": ""}, "aio-logs-unrouted"),
        ({"service": "ü" * 200}, "aio-logs-unrouted"),
        ({"service": "{day}"}, "aio-logs-{day}-2026.11.20"),
        ({"team": "a", "n": 5}, "team-a-5"),
        ({"team": True, "n": 1.5}, "team-true-1.5"),
        ({"team": "a"}, "aio-logs-unrouted"),
        ({"team": "a", "@timestamp": None}, "aio-logs-unrouted"),
        ({"fixed": 1, "@timestamp": "nonsense"}, "fixed"),
        ({}, "aio-logs-2026.11.20"),
    ],
)
def test_the_first_rule_that_holds_names_the_index(event, index):
    for _ in range(2):  # the second time from memory
        assert routed(REFERENCE, **{"@timestamp": STAMP} | event) == index


@pytest.mark.parametrize(
    "stamp", [None, "", "yesterday", "2026-11-20", "2026-13-45T10:11:12Z", 1795132800057, "2026-11-20T10:11:12+02:00"]
)
def test_events_without_a_usable_time_are_never_given_a_day(stamp):
    for event in ({"@timestamp": stamp}, {}):
        assert routed(REFERENCE, **event) == "aio-logs-undated"
        assert routed(REFERENCE, service="x", **event) == "aio-logs-undated"


def test_every_day_has_its_own_index():
    assert routed(REFERENCE, **{"@timestamp": STAMP}) == "aio-logs-2026.11.20"
    assert routed(REFERENCE, **{"@timestamp": STAMP.replace("20T", "21T")}) == "aio-logs-2026.11.21"
    assert routed(REFERENCE, **{"@timestamp": "2026-11-21T10:11:12Z"}) == "aio-logs-2026.11.21"
    assert routed(REFERENCE, **{"@timestamp": "2026-11-20 is not a day."}) == "aio-logs-undated"


def test_it_reads_what_rules_and_names_need_and_adds_no_field():
    assert REFERENCE.reads == {"category", "severity", "service", "team", "n", "fixed", "@timestamp"}
    assert REFERENCE.adds == frozenset()


def test_fallbacks_can_be_named():
    stage = make(default="x-{a}-{day}", undated="no-time", fallback="no-field")
    assert [routed(stage, a=1), routed(stage, **{"@timestamp": STAMP})] == ["no-time", "no-field"]


@pytest.mark.parametrize(
    "options",
    [{"default": "a" + "é" * 128}]
    + [
        {"default": name}
        for name in (
            "{service}",
            "{service}-x",
            "-x",
            "_x",
            "+x",
            ".security",
            "..",
            "",
            "Logs",
            "app-Logs",
            "a b",
            "a:b",
            "a/{x}",
        )
    ]
    + [
        {"default": name}
        for name in ("a*", "a?", 'a"', "a<b>", "a|b", "a,b", "a#", "a\\b", "x{", "x}", "x{}", "a" * 256)
    ]
    + [{"undated": "x-{day}"}, {"fallback": "{x}"}, {"fallback": "X"}, {"nonsense": 1}]
    + [{"rules": [{"when": when, "index": "x"}]} for when in ("a ==", "__import__('os')", "f(x)")]
    + [{"rules": [{"when": "a", "index": "X"}]}, {"rules": [{"when": "a"}]}, {"rules": [{"index": "x"}]}],
)
def test_what_can_not_work_is_refused_at_configuration(options):
    with pytest.raises(ValidationError):
        Route.Options(**options)


def test_a_refusal_says_where_and_why():
    with pytest.raises(ValidationError, match=r"(?s)rules\.0\.when.*column"):
        Route.Options(rules=[{"when": "a ==", "index": "x"}])
    with pytest.raises(ValidationError, match="lower-case letter or a digit"):
        Route.Options(default="{service}-{day}")


values = st.text(max_size=40) | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.none())


@given(values, values)
def test_no_value_leads_out_of_the_family_or_to_a_name_that_elasticsearch_refuses(one, two):
    name = routed(make(default="app-{a}.{b.c}"), a=one, b={"c": two})
    assert name.startswith("app-") or name == "aio-logs-unrouted"
    assert name == name.lower()
    assert not set(name) & set('\\/*?"<>| ,#:\n\x00')
    assert len(name.encode(errors="replace")) <= 255


def test_names_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("stages.route._MOST_NAMES", 10)
    stage = make(default="x-{a}")
    assert {routed(stage, a=n) for n in range(100)} == {f"x-{n}" for n in range(100)}
    assert len(stage._default._names) <= 10
    daily = make()
    stamps = [f"{year}-01-01T00:00:00.000Z" for year in range(2000, 2100)]
    assert len({routed(daily, **{"@timestamp": stamp}) for stamp in stamps}) == 100
    assert len(daily._default._days) <= 10

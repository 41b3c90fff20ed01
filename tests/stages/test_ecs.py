import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.ecs import _SINGLE, Ecs

VERSION = {"ecs": {"version": "9.4.0"}}


def mapped(event: dict[str, Any]) -> dict[str, Any]:
    (result,) = Ecs(Ecs.Options())([copy.deepcopy(event)])
    return result


def test_a_winston_record():
    assert mapped(
        {
            "timestamp": "2026-11-20T10:11:12.123Z",
            "level": "error",
            "message": "request failed",
            "service": "api-gateway",
            "environment": "production",
            "category": "request",
            "correlationId": "c1",
            "traceId": "t1",
            "userId": "u1",
            "clientIp": "192.0.2.1",
            "request": {
                "method": "GET",
                "path": "/x",
                "statusCode": 500,
                "durationMs": 1.5,
                "userAgent": "curl",
                "a": 1,
            },
            "error": {"name": "TimeoutError", "message": "timed out", "stack": "Error: …", "code": "E1", "b": 2},
        }
    ) == VERSION | {
        "timestamp": "2026-11-20T10:11:12.123Z",
        "message": "request failed",
        "category": "request",
        "log": {"level": "error"},
        "service": {"name": "api-gateway", "environment": "production"},
        "labels": {"correlation_id": "c1"},
        "trace": {"id": "t1"},
        "user": {"id": "u1"},
        "client": {"ip": "192.0.2.1"},
        "http": {"request": {"method": "GET"}, "response": {"status_code": 500}},
        "url": {"path": "/x"},
        "event": {"duration": 1_500_000},
        "user_agent": {"original": "curl"},
        "request": {"a": 1},
        "error": {"type": "TimeoutError", "message": "timed out", "stack_trace": "Error: …", "code": "E1", "b": 2},
    }


def test_a_pino_record():
    assert mapped(
        {
            "level": 50,
            "time": 1795132800057,
            "pid": 7,
            "hostname": "web-1",
            "name": "app",
            "msg": "failed",
            "req": {
                "id": 1,
                "method": "GET",
                "url": "/x?y",
                "remoteAddress": "::1",
                "remotePort": 5,
                "headers": {"a": 1},
            },
            "res": {"statusCode": 500},
            "responseTime": 12,
            "err": {"type": "Error", "message": "boom", "stack": "Error: boom"},
        }
    ) == VERSION | {
        "time": 1795132800057,
        "log": {"level": "error", "logger": "app"},
        "process": {"pid": 7},
        "host": {"hostname": "web-1"},
        "message": "failed",
        "http": {"request": {"id": 1, "method": "GET"}, "response": {"status_code": 500}},
        "url": {"original": "/x?y"},
        "client": {"ip": "::1", "port": 5},
        "req": {"headers": {"a": 1}},
        "event": {"duration": 12_000_000},
        "error": {"type": "Error", "message": "boom", "stack_trace": "Error: boom"},
    }


@pytest.mark.parametrize(
    ("event", "result"),
    [
        ({"host": "web-1"}, {"host": {"name": "web-1"}}),
        ({"error": "boom"}, {"error": {"message": "boom"}}),
        ({"user": "ana"}, {"user": {"name": "ana"}}),
        ({"user": 7}, {"user": {"id": 7}}),
        ({"service": ["a", "b"]}, {"service": {"name": ["a", "b"]}}),
        ({"url": "/x"}, {"url": {"original": "/x"}}),
        ({"log": "text"}, {"message": "text"}),
        ({"labels": "x"}, {"labels": {"labels": "x"}}),
        ({"log": "text", "message": "m"}, {"message": "m", "labels": {"log": "text"}}),
        (
            {"log": "text", "message": "m", "level": "info"},
            {"message": "m", "labels": {"log": "text"}, "log": {"level": "info"}},
        ),
        ({"error": "boom", "error.message": "m"}, {"error.message": "m", "labels": {"error": "boom"}}),
        (
            {"host": "a", "host.name": "b", "labels": {"host": "c"}},
            {"host.name": "b", "labels": {"host": "c", "host_": "a"}},
        ),
        ({"host": None}, {"host": None}),
        ({"error": [{"message": "x"}]}, {"error": [{"message": "x"}]}),
        ({"error": "boom", "err": {"name": "E"}}, {"error": {"message": "boom", "type": "E"}}),
    ],
)
def test_a_single_value_becomes_the_object_that_ecs_wants(event, result):
    assert mapped(event) == VERSION | result


@pytest.mark.parametrize(
    "event",
    [
        {"msg": "a", "message": "b"},
        {"level": "info", "log": {"level": "warn"}},
        {"level": "info", "log.level": "warn"},
        {"level": ["info"]},
        {"msg": {"a": 1}},
        {"hostname": "x", "host": None},
        {"method": "pay"},
        {"durationMs": -1},
        {"durationMs": "5"},
        {"durationMs": True},
        {"durationMs": 1e300},
        {"request": "GET /"},
        {"statusCode": 200, "http": [{}]},
        {"correlationId": "a", "labels": {"correlation_id": "b"}},
        {"err": {"name": "A"}, "error": {"type": "B", "message": "m"}},
        {"userId": None},
    ],
)
def test_what_has_no_place_or_one_that_is_taken_stays(event):
    assert mapped(event) == VERSION | event


def test_snake_case_and_other_spellings():
    assert mapped(
        {
            "trace_id": "t",
            "user_id": 5,
            "correlation_id": "c",
            "status_code": 200,
            "duration_ms": 1,
            "ip": "::1",
            "method": "get",
        }
    ) == VERSION | {
        "trace": {"id": "t"},
        "user": {"id": 5},
        "labels": {"correlation_id": "c"},
        "http": {"response": {"status_code": 200}, "request": {"method": "get"}},
        "event": {"duration": 1_000_000},
        "client": {"ip": "::1"},
    }


@pytest.mark.parametrize(("number", "word"), [(10, "trace"), (30, "info"), (60, "fatal"), (35, 35)])
def test_numbers_of_levels_become_words(number, word):
    assert mapped({"level": number})["log"] == {"level": word}


@pytest.mark.parametrize("version", [{"ecs": {"version": "1.6.0"}}, {"ecs.version": "1.6.0"}])
def test_a_record_in_ecs_is_left_alone(version):
    event = version | {"@timestamp": "x", "log.level": "info", "message": "m", "service": {"name": "x"}, "tags": ["a"]}
    assert mapped(event) == event


def test_the_version_can_be_another():
    assert Ecs(Ecs.Options(version="8.11.0"))([{}]) == [{"ecs": {"version": "8.11.0"}}]
    with pytest.raises(ValidationError):
        Ecs.Options.model_validate({"fields": {}})


names = st.sampled_from(
    [
        *sorted(Ecs(Ecs.Options())._names),
        "message",
        "http",
        "type",
        "code",
        "path",
        "id",
        "request.id",
        "log.level",
        "a",
    ]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**13)
    | st.floats(allow_nan=False)
    | st.sampled_from(["GET", "x", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) else value is not None


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(names, values, max_size=8))
def test_nothing_is_lost_objects_are_objects_and_once_is_enough(event):
    result = mapped(event)
    assert orjson.dumps(result)
    assert leaves(result) - leaves(event) in {0, 1}
    strays = [name for name in _SINGLE if not isinstance(result.get(name), dict | list | None)]
    assert strays == []
    assert mapped(result) == result

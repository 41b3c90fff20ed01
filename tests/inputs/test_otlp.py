from contextlib import suppress
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from pipeline.inputs._bodies import BodyError
from pipeline.inputs._otlp import JSON, PROTOBUF, answer, records

TIME = 1_763_596_800_000_000_001


def request() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    part = request.resource_logs.add()
    part.resource.attributes.add(key="service.name").value.string_value = "api"
    scoped = part.scope_logs.add()
    scoped.scope.name = "lib"
    log = scoped.log_records.add(time_unix_nano=TIME, severity_number=17, trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    log.body.string_value = "it broke"
    log.attributes.add(key="n").value.int_value = 2**60
    log.attributes.add(key="list").value.array_value.values.add().double_value = 0.5
    log.attributes.add(key="map").value.kvlist_value.values.add(key="b").value.bytes_value = b"\xff"
    log.attributes.add(key="nothing")
    bare = scoped.log_records.add(observed_time_unix_nano=TIME, severity_text="notice", event_name="e")
    bare.body.kvlist_value.values.add(key="ok").value.bool_value = True
    return request


EXPECTED = [
    {
        "timestamp": TIME,
        "level": "ERROR",
        "severity": 17,
        "message": "it broke",
        "attributes": {"n": 2**60, "list": [0.5], "map": {"b": "ff"}, "nothing": None},
        "resource": {"service.name": "api"},
        "scope": {"name": "lib"},
        "traceId": "01" * 16,
        "spanId": "02" * 8,
    },
    {
        "timestamp": TIME,
        "level": "notice",
        "body": {"ok": True},
        "resource": {"service.name": "api"},
        "scope": {"name": "lib"},
        "eventName": "e",
    },
]

AS_JSON = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]},
            "scopeLogs": [
                {
                    "scope": {"name": "lib"},
                    "logRecords": [
                        {
                            "timeUnixNano": str(TIME),
                            "severityNumber": 17,
                            "body": {"stringValue": "it broke"},
                            "traceId": "01" * 16,
                            "spanId": "02" * 8,
                            "attributes": [
                                {"key": "n", "value": {"intValue": str(2**60)}},
                                {"key": "list", "value": {"arrayValue": {"values": [{"doubleValue": 0.5}]}}},
                                {
                                    "key": "map",
                                    "value": {"kvlistValue": {"values": [{"key": "b", "value": {"bytesValue": "ff"}}]}},
                                },
                                {"key": "nothing"},
                            ],
                        },
                        {
                            "observedTimeUnixNano": str(TIME),
                            "severityText": "notice",
                            "eventName": "e",
                            "body": {"kvlistValue": {"values": [{"key": "ok", "value": {"boolValue": True}}]}},
                        },
                    ],
                }
            ],
        }
    ]
}


@pytest.mark.parametrize(
    ("kind", "data"),
    [(PROTOBUF, request().SerializeToString()), (JSON, orjson.dumps(AS_JSON))],
    ids=["protobuf", "json"],
)
def test_each_log_record_becomes_a_record(kind, data):
    body = records(kind, data, 100)
    ends = [0, *(body.ends or [])]
    assert [orjson.loads(body.block[a:b]) for a, b in pairwise(ends)] == EXPECTED
    assert body.count() == 2


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (PROTOBUF, b"\xff\xff", 400), (JSON, b"{", 400), (JSON, b"[1]", 400), (JSON, b'{"resourceLogs":[1]}', 400),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"x"}]}]}]}', 400),
        ("text/plain", b"", 415),
    ],
)  # fmt: skip
def test_what_is_no_export_request_is_refused_with_the_reason(kind, data, status):
    with pytest.raises(BodyError) as error:
        records(kind, data, 100)
    assert error.value.status == status


def nested(number: int, *inner: bytes) -> bytes:
    """Messages as a field of another."""
    return b"".join(bytes([number << 3 | 2]) + varint(len(each)) + each for each in inner)


def varint(number: int) -> bytes:
    more = b""
    while number > 0x7F:
        more, number = more + bytes([number & 0x7F | 0x80]), number >> 7
    return more + bytes([number])


@pytest.mark.parametrize(
    "data",
    [
        nested(1, nested(2, nested(2, *[b""] * 500))),
        nested(1, *[nested(2, nested(2, b""))] * 500),
        nested(1, nested(2, *[b""] * 500)),
        nested(1, *[b"\x12\x00"] * 500),
    ],
    ids=["records", "resources", "scopes", "empty resources"],
)
def test_a_protobuf_request_with_far_too_many_parts_is_not_parsed(data):
    assert ExportLogsServiceRequest.FromString(data)
    with pytest.raises(BodyError, match="more than 100 records"):
        records(PROTOBUF, data, 100)


def test_a_protobuf_request_with_as_many_records_as_it_may_have_is_taken():
    one = request().resource_logs[0].scope_logs[0].log_records[0].SerializeToString()
    assert records(PROTOBUF, nested(1, nested(2, nested(2, *[one] * 100))), 100).count() == 100


@given(st.binary(max_size=60))
def test_whatever_is_sent_as_protobuf_is_taken_or_refused(data):
    with suppress(BodyError):
        records(PROTOBUF, data, 1)


def test_an_empty_request_has_no_records():
    assert records(PROTOBUF, b"", 100).count() == 0
    assert records(JSON, b"{}", 100).count() == 0


def test_refused_records_are_a_partial_success():
    assert answer(JSON, []) == b"{}"
    assert orjson.loads(answer(JSON, ["bad", "worse"])) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "bad"}
    }
    assert answer(PROTOBUF, []) == b""
    response = ExportLogsServiceResponse.FromString(answer(PROTOBUF, ["bad"]))
    assert response.partial_success.rejected_log_records == 1
    assert response.partial_success.error_message == "bad"

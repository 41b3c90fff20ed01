"""OTLP/HTTP logs (https://opentelemetry.io/docs/specs/otlp/#otlphttp): requests to records, and the answer. No I/O.

A log record becomes `{"timestamp": NANOSECONDS, "level": TEXT, "severity": NUMBER, "message": BODY, "attributes": {…},
"resource": {…}, "scope": {…}, "traceId": HEX, "spanId": HEX, "eventName": TEXT}`, without what is empty: names that the
stages know. A body that is no text goes to `body`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from pipeline.inputs._bodies import Body, BodyError, TooMany, check_values, joined

PROTOBUF, JSON = "application/x-protobuf", "application/json"
# A severity without a text is called by the name of its range (the OpenTelemetry log data model).
_RANGES = ("", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def records(content_type: str, data: bytes, most: int) -> Body:
    """The log records of an export request, one record each; raises `BodyError`, also with far more than `most`."""
    if content_type == PROTOBUF:
        if _has_more(data, 3 * most):  # each with a resource and a scope of its own
            raise TooMany(most)
        found = _from_protobuf(data)
    elif content_type == JSON:
        check_values(data, most)
        found = _from_json(data)
    else:
        raise BodyError(415, f"{content_type}: OTLP logs are {PROTOBUF} or {JSON}")
    return Body(*joined([orjson.dumps(_lean(record), option=orjson.OPT_NON_STR_KEYS) for record in found]))


def answer(content_type: str, reasons: list[str]) -> bytes:
    """The response; records that were refused make a partial success, which a client must not send again."""
    if content_type == JSON:
        partial = {"rejectedLogRecords": str(len(reasons)), "errorMessage": reasons[0]} if reasons else None
        return orjson.dumps({"partialSuccess": partial} if partial else {})
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415 - 0.1 s, only for OTLP
        ExportLogsServiceResponse,
    )

    response = ExportLogsServiceResponse()
    if reasons:
        response.partial_success.rejected_log_records = len(reasons)
        response.partial_success.error_message = reasons[0]
    return bytes(response.SerializeToString())


def _lean(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in (None, "", 0, {}, [])}


def _record(resource: Any, scope: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = fields.pop("body")
    number, text = fields.pop("number"), fields.pop("text")
    level = text or (_RANGES[(number + 3) // 4] if 0 < number <= 24 else "")
    message = {"message": body} if isinstance(body, str) else {"body": body}
    severity = number if 0 < number <= 24 else 0
    return {**fields, "level": level, "severity": severity, **message, "resource": resource, "scope": _lean(scope)}


# --- protobuf ---


def _has_more(data: bytes, most: int) -> bool:
    """Whether a request has more than so many resources, scopes and log records.

    An empty one takes two bytes there, and hundreds when it is parsed. A request that is broken has fewer.
    """
    if len(data) <= 2 * most:
        return False
    count = 0
    for part in _fields(data, (0, len(data)), 1):
        for scoped in _fields(data, part, 2):
            count += 1 + sum(1 for _ in islice(_fields(data, scoped, 2), most))
            if count > most:
                return True
        count += 1
    return count > most


def _fields(data: bytes, within: tuple[int, int], number: int) -> Iterator[tuple[int, int]]:
    """Where the messages stand that a message has as this field (https://protobuf.dev/programming-guides/encoding)."""
    at, end = within
    while at < end:
        key, at = _varint(data, at, end)
        kind, size = key & 7, 0
        if kind == 2:
            size, at = _varint(data, at, end)
            if key >> 3 == number:
                yield at, min(at + size, end)
        elif kind == 0:
            _, at = _varint(data, at, end)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            return
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = shift = 0
    while at < end:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80 or shift > 63:
            break
    return value, at


def _from_protobuf(data: bytes) -> list[dict[str, Any]]:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest  # noqa: PLC0415

    request = ExportLogsServiceRequest()
    try:
        request.ParseFromString(data)
    except DecodeError as error:
        raise BodyError(400, f"the body is no ExportLogsServiceRequest: {error}") from error
    return [
        _record(
            _attributes(part.resource.attributes),
            {"name": scoped.scope.name, "version": scoped.scope.version},
            timestamp=each.time_unix_nano or each.observed_time_unix_nano,
            number=each.severity_number,
            text=each.severity_text,
            body=_value(each.body),
            attributes=_attributes(each.attributes),
            traceId=each.trace_id.hex(),
            spanId=each.span_id.hex(),
            eventName=each.event_name,
        )
        for part in request.resource_logs
        for scoped in part.scope_logs
        for each in scoped.log_records
    ]


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    match kind:
        case "array_value":
            return [_value(each) for each in inner.values]
        case "kvlist_value":
            return _attributes(inner.values)
        case "bytes_value":
            return inner.hex()
        case _:
            return inner


# --- JSON ---


def _from_json(data: bytes) -> list[dict[str, Any]]:
    try:
        request = orjson.loads(data)
        return [
            _json_record(part, scoped, each)
            for part in request.get("resourceLogs", ())
            for scoped in part.get("scopeLogs", ())
            for each in scoped.get("logRecords", ())
        ]
    except orjson.JSONDecodeError as error:
        raise BodyError(400, f"the body is no JSON: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BodyError(400, f"the body is no ExportLogsServiceRequest: {type(error).__name__}: {error}") from error


def _json_record(part: dict[str, Any], scoped: dict[str, Any], each: dict[str, Any]) -> dict[str, Any]:
    # 64-bit integers are texts in JSON (protobuf's JSON mapping), ids are hexadecimal (OTLP).
    scope = scoped.get("scope", {})
    return _record(
        _json_attributes(part.get("resource", {}).get("attributes", ())),
        {"name": scope.get("name"), "version": scope.get("version")},
        timestamp=int(each.get("timeUnixNano") or 0) or int(each.get("observedTimeUnixNano") or 0),
        number=int(each.get("severityNumber") or 0),
        text=each.get("severityText", ""),
        body=_json_value(each.get("body") or {}),
        attributes=_json_attributes(each.get("attributes", ())),
        traceId=each.get("traceId", ""),
        spanId=each.get("spanId", ""),
        eventName=each.get("eventName", ""),
    )


def _json_attributes(pairs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _json_value(pair.get("value", {})) for pair in pairs}


def _json_value(value: dict[str, Any]) -> Any:
    match next(iter(value.items()), (None, None)):
        case "intValue", inner:
            return int(inner)
        case "arrayValue", inner:
            return [_json_value(each) for each in inner.get("values", ())]
        case "kvlistValue", inner:
            return _json_attributes(inner.get("values", ()))
        case _, inner:
            return inner

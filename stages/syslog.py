r"""Syslog messages, RFC 5424 and the older RFC 3164, as a decoder or from a field.

    inputs:
      devices: {type: udp, listen: ":5514", decode: syslog}
      system: {type: file, paths: [/var/log/syslog*, /var/log/auth.log*], decode: syslog, mtime: true}
    stages:
      - timestamp: {field: timestamp, reference: event.created}   # file: reference: file.mtime
      - severity: {field: level}

or, where the message is a field of a record: `- syslog: {field: message}`.

    <165>1 2026-11-20T00:00:00.003Z db1 postgres 17 ID47 [origin ip="192.0.2.1"] ready
    <34>Nov 20 00:00:00 db1 su[230]: failed for root

| field | from |
|---|---|
| `timestamp` | the time as it is written, for the stage `timestamp` |
| `level` | the severity: emerg, alert, crit, err, warning, notice, info, debug |
| `message` | the text |
| `host.name`, `process.name`, `process.pid` | the host, the program, its number |
| `log.syslog.…` | priority, facility and severity with code and name, version, hostname, appname, procid, msgid, structured_data |

What a message lacks (`-`) is missing. The time of RFC 3164 has no year and no zone: the stage `timestamp` takes the year
from `reference`, never from the clock, and the zone from its option. A time of ISO 8601 in an RFC 3164 message, as
rsyslog and syslog-ng write it, is understood, and so is a message without a time (Python's SysLogHandler), without a host
(what a program says to its own machine) or without a priority (a line of /var/log/syslog). A parameter that stands in
structured data several times becomes a list. Bytes that are not UTF-8 are replaced and the event is tagged `_not_utf8`.

A record with neither a priority nor a time, with a priority above 191 or with broken structured data is set aside. As a
stage, it leaves records alone in which the field is missing; other fields that the message sets are replaced.
"""  # noqa: E501 - rows of a table

import re
from typing import Any

from pydantic import BaseModel, Field

from pipeline.contract import Event
from pipeline.fields import getter, put, tag

_SEVERITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
_FACILITIES = [
    *["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"],
    *["ntp", "audit", "alert", "clock"],
    *(f"local{n}" for n in range(8)),
]

_RFC5424 = re.compile(r"<(\d{1,3})>([1-9]\d{0,2}) (-|\d{4}-\S+) (\S+) (\S+) (\S+) (\S+) (?=-|\[)", re.ASCII)
_PRIORITY = re.compile(r"<(\d{1,3})>", re.ASCII)
_TIME = re.compile(
    r"((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d+)?"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?):? ",
    re.ASCII,
)
_HOST = re.compile(r"([^\s\[\]]*[^\s\[\]:]) +")
_TAG = re.compile(r"([^\s:\[\]]+)(?:\[([^\s\]]*)\])?:(?: |$)")
# Possessive, so that whatever comes is read once.
_ELEMENT = re.compile(r'\[([^\s=\]"]++)((?: ++[^\s=\]"]++="(?:[^"\\]|\\.)*+")*+) *+\]', re.DOTALL)
_PARAMETER = re.compile(r'([^\s=\]"]++)="((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')


class Syslog:
    """Reads syslog messages."""

    class Options(BaseModel, extra="forbid"):
        """Where the message is."""

        field: str = Field(
            default="message", min_length=1, description="As a stage: the field with the message, `<34>Nov 20 …`."
        )

    def __init__(self, options: Options) -> None:
        self._get = getter(options.field)

    def decode(self, records: list[bytes]) -> list[Event]:
        """One event a record; raises `ValueError` on what is no syslog."""
        return [_decoded(record) for record in records]

    def __call__(self, events: list[Event]) -> list[Event]:
        """Take the field of each event apart."""
        for event in events:
            text = self._get(event)
            if text is None:
                continue
            if not isinstance(text, str):
                raise TypeError(f"the field holds no text but {type(text).__name__}")
            _merge(event, _parse(text))
        return events


def _decoded(record: bytes) -> Event:
    try:
        return _parse(record.decode())
    except UnicodeDecodeError:
        event = _parse(record.decode(errors="replace"))
        tag(event, "_not_utf8")
        return event


def _merge(event: Event, parsed: Event) -> None:
    for key, value in parsed.items():
        if not isinstance(value, dict):
            event[key] = value
            continue
        for name, inner in value.items():
            put(event, f"{key}.{name}", inner)


def _parse(text: str) -> Event:
    if match := _RFC5424.match(text):
        return _rfc5424(text, match)
    return _rfc3164(text)


def _rfc5424(text: str, match: re.Match[str]) -> Event:
    priority, version, time, host, program, process, message_id = match.groups()
    data, at = _structured_data(text, match.end())
    if text[at : at + 1].strip():
        raise ValueError(f"structured data is followed by {text[at : at + 20]!r} instead of a blank")
    event, syslog = _event(int(priority), text[at + 1 :].removeprefix("\ufeff"))
    syslog["version"] = version
    if time != "-":
        event["timestamp"] = time
    _origin(event, syslog, host=host, program=program, process=process)
    if message_id != "-":
        syslog["msgid"] = message_id
    if data:
        syslog["structured_data"] = data
    return event


def _structured_data(text: str, at: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The elements from there on, and where they end."""
    data: dict[str, dict[str, Any]] = {}
    if text[at] == "-":
        return data, at + 1
    while text[at : at + 1] == "[":
        match = _ELEMENT.match(text, at)
        if match is None:
            raise ValueError(f"broken structured data: {text[at : at + 40]!r}")
        values = data.setdefault(match[1], {})
        for name, value in _PARAMETER.findall(match[2]):
            plain = _ESCAPED.sub(r"\1", value)
            if name not in values:
                values[name] = plain
            elif isinstance(values[name], list):
                values[name].append(plain)
            else:
                values[name] = [values[name], plain]
        at = match.end()
    return data, at


def _rfc3164(text: str) -> Event:
    priority = _PRIORITY.match(text)
    at = priority.end() if priority else 0
    time = _TIME.match(text, at)
    if not priority and not time:
        raise ValueError("no syslog: neither a priority nor a time at its beginning")
    host = program = process = "-"
    if time:
        at = time.end()
        tagged = _TAG.match(text, at)
        if not tagged and (named := _HOST.match(text, at)):
            host, at = named[1], named.end()
            tagged = _TAG.match(text, at)
        if tagged:
            program, process, at = tagged[1], tagged[2] or "-", tagged.end()
    event, syslog = _event(int(priority[1]) if priority else None, text[at:])
    if time:
        event["timestamp"] = time[1]
    _origin(event, syslog, host=host, program=program, process=process)
    return event


def _event(priority: int | None, message: str) -> tuple[Event, Event]:
    """An event with what the priority says, and its `log.syslog`."""
    syslog: Event = {}
    event: Event = {"message": message, "log": {"syslog": syslog}}
    if priority is not None:
        facility, severity = divmod(priority, 8)
        if facility >= len(_FACILITIES):
            raise ValueError(f"the priority {priority} is above 191")
        event["level"] = _SEVERITIES[severity]
        syslog["priority"] = priority
        syslog["facility"] = {"code": facility, "name": _FACILITIES[facility]}
        syslog["severity"] = {"code": severity, "name": _SEVERITIES[severity]}
    return event, syslog


def _origin(event: Event, syslog: Event, *, host: str, program: str, process: str) -> None:
    """Who speaks, in the fields of all logs and in those of syslog."""
    if host != "-":
        event["host"] = {"name": host}
        syslog["hostname"] = host
    known: Event = {}
    if program != "-":
        known["name"] = syslog["appname"] = program
    if process != "-":
        syslog["procid"] = process
        if process.isascii() and process.isdigit() and len(process) <= 10:
            known["pid"] = int(process)
    if known:
        event["process"] = known

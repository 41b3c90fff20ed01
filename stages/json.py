r"""Decodes JSON records, and parses JSON inside a field.

    inputs:
      app: {type: file, paths: [/var/log/app/*.log]}                      # decode: json is the default
      old: {type: file, paths: [/var/log/old.log], decode: {json: {malformed: keep}}}
    stages:
      - json: {field: message, when: 'message.startswith("{")'}

**As a decoder**: a record is one JSON object. What is none is set aside, or with `malformed: keep` becomes
`{"message": text, "tags": ["_malformed_json"]}`, which the stages behind see as any other event, redaction too.
Keys that aiologs reserves (`@index`, `@id`) are renamed to `index_original` and `id_original`.

**As a stage**: the text under `field` is parsed. Its keys go into the event (over those that are there) and the field
goes, or with `target` whatever it holds goes there and the field stays. A missing field, or one that is no text, is
left alone. What can't be parsed, and without `target` what is no object, is malformed.

| odd | what happens |
|---|---|
| bytes that are not UTF-8 | replaced by U+FFFD, tagged `_not_utf8` |
| half a surrogate pair (`"\ud83d"`, a text cut by JavaScript) | the same |
| a byte order mark in front | skipped |
| a key twice in an object | the last one counts, see below |
| an integer beyond 64 bits | the nearest floating-point number (RFC 8259, section 6) |
| NaN, Infinity, 1e999 | no JSON: malformed, see below |
| nested deeper than 1,024 levels | malformed; deeper than 254 can't be written and is set aside then |

Where all stages say what they read (those of aiologs do, but for `ecs`, `json`, `rename` and `syslog`), what none of
them looks at is stored byte by byte as it came: there, a key that stands twice stays twice and 1e999 stays 1e999.
What Elasticsearch refuses of such documents is set aside.
"""

import re
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from pipeline.contract import ID, INDEX, RESERVED, Event
from pipeline.fields import getter, pop, put, tag

_BOM = b"\xef\xbb\xbf"

# Any escape, and in group 1 half a surrogate pair; a whole pair is one escape here, and so is a backslash.
_ESCAPES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.DOTALL)


class Json:
    """Decodes JSON records, and parses JSON inside a field."""

    class Options(BaseModel, extra="forbid"):
        """What to parse, where to put it, and what to do with what is no JSON."""

        malformed: Literal["set_aside", "keep"] = Field(
            default="set_aside",
            description="What is no JSON: `set_aside` as a dead letter, or `keep` as text, tagged `_malformed_json`.",
        )
        field: str = Field(default="message", min_length=1, description="As a stage: the field with JSON text.")
        target: str | None = Field(
            default=None,
            min_length=1,
            pattern=r"^[^@]",
            description="As a stage: the field for what was parsed; without it, its keys go into the event.",
        )

    def __init__(self, options: Options) -> None:
        self._keep = options.malformed == "keep"
        self._field, self._target = options.field, options.target

    def decode(self, records: list[bytes]) -> list[Event]:
        """One event a record; raises `ValueError` on what is no JSON object."""
        try:
            events: list[Event] = list(map(orjson.loads, records))
        except orjson.JSONDecodeError:
            return [self._event(record) for record in records]
        for n, event in enumerate(events):
            if type(event) is not dict:
                events[n] = self._event(records[n])
            elif ID in event or INDEX in event:
                _free(event)
        return events

    def _event(self, record: bytes) -> Event:
        """The event of a record that may be anything."""
        event: Event
        try:
            event, repaired = _parsed(record, whole=True)
        except (ValueError, TypeError):
            if not self._keep:
                raise
            event, repaired = {"message": record.decode(errors="replace")}, not _is_utf8(record)
            tag(event, "_malformed_json")
        _free(event)
        if repaired:
            tag(event, "_not_utf8")
        return event

    def __call__(self, events: list[Event]) -> list[Event]:
        """Parse the field of every event; raises `ValueError` or `TypeError` on what can't be parsed or merged."""
        get = getter(self._field)
        for event in events:
            text = get(event)
            if isinstance(text, str):
                self._parse(event, text)
        return events

    def _parse(self, event: Event, text: str) -> None:
        try:
            value, repaired = _parsed(text.encode(errors="replace"), whole=self._target is None)
        except (ValueError, TypeError):
            if not self._keep:
                raise
            tag(event, "_malformed_json")
            return
        self._store(event, value)
        if repaired:
            tag(event, "_not_utf8")

    def _store(self, event: Event, value: Any) -> None:
        if self._target is not None:
            put(event, self._target, value)
            return
        _free(value)
        pop(event, self._field)
        event.update(value)


def _parsed(text: bytes, *, whole: bool) -> tuple[Any, bool]:
    """The value, and whether text in it had to be repaired.

    Raises `orjson.JSONDecodeError`, and `TypeError` on what is no object where it is to be a `whole` event.
    """
    text = text.removeprefix(_BOM)
    repaired = text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        repaired = _repaired(text)
        if repaired == text:
            raise
        value = orjson.loads(repaired)
    if whole and not isinstance(value, dict):
        raise TypeError(f"must be a JSON object, not {_kind(value)}")
    return value, repaired is not text


def _repaired(text: bytes) -> bytes:
    """The text with U+FFFD for what no text can hold: bytes that are not UTF-8, and half surrogate pairs."""
    whole_pairs = text
    if b"\\u" in text:  # to look for them costs 17 ms a MiB
        whole_pairs = _ESCAPES.sub(lambda match: rb"\ufffd" if match[1] else match[0], text)
    return whole_pairs.decode(errors="replace").encode()


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    return True


def _free(event: Event) -> None:
    """Rename the keys that aiologs reserves."""
    for key in RESERVED:
        if key in event:
            name = f"{key[1:]}_original"
            while name in event:
                name += "_original"
            event[name] = event.pop(key)


def _kind(value: Any) -> str:
    """What JSON calls the value."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "an array"}
    return kinds[type(value)]

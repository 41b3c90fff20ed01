"""Dead letters as JSON: what `aiologs dead show --json` and `aiologs dead export` write, and what a replay reads."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson

from pipeline.letters import Letter


def plain(letter: Letter) -> dict[str, Any]:
    """A letter as JSON holds it; a record that is no text goes by its Base64."""
    values = asdict(letter) | {"time": moment(letter.time)}
    del values["number"]
    document = values.pop("document")
    try:
        values["record"] = letter.record.decode()
    except UnicodeDecodeError:
        values["record"] = letter.record.decode(errors="backslashreplace")
        values["record_base64"] = b64encode(letter.record).decode()
    values["document"] = None if document is None else document.decode(errors="backslashreplace")
    return values


def exported(letter: Letter) -> bytes:
    """A letter as a line of JSON."""
    return orjson.dumps(plain(letter), option=orjson.OPT_APPEND_NEWLINE)


def imported(line: bytes) -> Letter:
    """The letter of such a line; raises `ValueError`, `LookupError` or `TypeError` where it is none."""
    values = orjson.loads(line)
    packed = values.pop("record_base64", None)
    values["record"] = values["record"].encode() if packed is None else b64decode(packed, validate=True)
    values["time"] = datetime.fromisoformat(values["time"]).timestamp()
    if values["document"] is not None:
        values["document"] = values["document"].encode()
    return Letter(**values)


def moment(seconds: float) -> str:
    """A time in seconds since 1970, for people and programs."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

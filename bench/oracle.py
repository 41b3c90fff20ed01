"""Checks a run's output against the reference job, document by document.

usage: python -m bench.oracle INPUT.ndjson DATABASE.mmdb BULK_BODY
BULK_BODY is what the sink kept: an action line, a document, and so on. Documents are joined with their records by
correlation id. Prints the first differences of each kind and the counts; exits 0 when there are none.
"""

import datetime as dt
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import maxminddb
import orjson

SEVERITY = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
KEYS = {"password", "token", "secret", "authorization", "apikey", "creditcard"}
CORRELATION = re.compile(rb'"correlationId":"([0-9a-f]{32})"')
SECRET = re.compile(r"[\w.]+@example\.com|eyJhbGciOi\.\S+|4111 1111 1111 1111")
SENTENCE = re.compile(r" for [\w.]+@example\.com| Authorization: Bearer \S+| card 4111 1111 1111 1111 declined")
CARD = re.compile(r"[2-6]\d{12,18}")
SHOWN = 2

Event = dict[str, Any]


def time(event: Event) -> dt.datetime:
    """When the record says that it happened."""
    value = event["timestamp"]
    stamp = (
        dt.datetime.fromisoformat(value) if isinstance(value, str) else dt.datetime.fromtimestamp(value / 1000, dt.UTC)
    )
    return stamp.astimezone(dt.UTC)


def index(event: Event) -> str:
    """Where its document belongs."""
    day = time(event).strftime("%Y.%m.%d")
    if event["category"] in {"security", "audit"}:
        return f"aio-security-{day}"
    return f"aio-errors-{day}" if event["level"] in {"error", "fatal"} else f"aio-logs-{day}"


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar in it, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


@dataclass
class Oracle:
    """What is expected, and what was found wrong."""

    records: dict[bytes, bytes]
    """Correlation id → record."""
    geo: maxminddb.Reader
    seen: Counter[bytes] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def complain(self, kind: str, *what: object) -> None:
        """Count a difference, and print the first ones of its kind."""
        self.wrong[kind] += 1
        if self.wrong[kind] <= SHOWN:
            print(f"{kind}:", *what)

    def check(self, place: str, line: bytes) -> None:
        """Look at one document."""
        found = CORRELATION.search(line)
        if not found or found[1] not in self.records:
            self.complain("unknown document", line[:200])
            return
        self.seen[found[1]] += 1
        record, document = orjson.loads(self.records[found[1]]), orjson.loads(line)
        if place != index(record):
            self.complain("index", place, index(record))
        self.enriched(record, document)
        self.located(record, document)
        self.redacted(record, document, line.decode())
        self.whole(record, document)

    def enriched(self, record: Event, document: Event) -> None:
        """Its time, severity and tags."""
        stamp = document.get("@timestamp")
        if not isinstance(stamp, str) or dt.datetime.fromisoformat(stamp) != time(record):
            self.complain("timestamp", stamp, record["timestamp"])
        if document.get("severity") != SEVERITY[record["level"]]:
            self.complain("severity", document.get("severity"), record["level"])
        if record["environment"] not in (document.get("tags") or ()):
            self.complain("tags", document.get("tags"), record["environment"])

    def located(self, record: Event, document: Event) -> None:
        """Where its client is; nothing where that is not known."""
        place, found = document.get("geo"), self.geo.get(record["clientIp"])
        if not isinstance(found, dict):
            if place is not None:
                self.complain("geo where none", place)
            return
        expected: Any = found
        at = expected["location"]
        got = dict(leaves(place))
        want = {
            ("country_iso_code",): expected["country"]["iso_code"],
            ("city_name",): expected["city"]["names"]["en"],
            ("location", "lat"): at["latitude"],
            ("location", "lon"): at["longitude"],
        }
        if not want.items() <= got.items():
            self.complain("geo", got, want)

    def redacted(self, record: Event, document: Event, text: str) -> None:
        """No secret of it is left, and the rest of its message is."""
        for path, value in leaves(record):
            if path[-1].lower() in KEYS and isinstance(value, str) and value in text:
                self.complain("leaked key", path, value)
        for secret in SECRET.findall(record["message"]):
            if secret in text:
                self.complain("leaked in message", secret)
        if not document["message"].startswith(SENTENCE.sub("", record["message"])):
            self.complain("message lost", record["message"], document["message"])

    def whole(self, record: Event, document: Event) -> None:
        """Every field that is not to change is as it was.

        A session id that happens to have the form of a card number may be hidden like one: three in 400,000.
        """
        got = dict(leaves(document))
        for path, value in leaves(record):
            may_change = path[-1].lower() in KEYS or path == ("message",) or CARD.fullmatch(str(value))
            if got.get(path) != value and not may_change:
                self.complain("field lost", path, value)

    def sum(self) -> bool:
        """Print the sum; whether all is well."""
        missing = len(self.records) - len(self.seen)
        twice = self.seen.total() - len(self.seen)
        print(
            f"oracle: {len(self.records)} records, {self.seen.total()} documents, {missing} missing, {twice} twice,",
            f"wrong: {dict(self.wrong) or 'none'}",
        )
        return not (missing or twice or self.wrong)


def pairs(body: Path) -> Iterator[tuple[str, bytes]]:
    """Each document with the index that it was sent to."""
    with body.open("rb") as lines:
        for action in lines:
            if action.strip():
                yield next(iter(orjson.loads(action).values()))["_index"], next(lines)


def check(records: Path, database: Path, body: Path) -> bool:
    """Whether the body holds exactly what the reference job makes of the records."""
    by_id = {}
    with records.open("rb") as lines:
        for line in lines:
            by_id[orjson.loads(line)["correlationId"].encode()] = line
    oracle = Oracle(by_id, maxminddb.open_database(database))
    for place, line in pairs(body):
        oracle.check(place, line)
    return oracle.sum()


if __name__ == "__main__":
    sys.exit(not check(*map(Path, sys.argv[1:])))

"""What only the short way could get wrong; that it gives what the full way gives is asked in test_chain.py."""

import json
from array import array
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import registry
from pipeline.chain import Chain, ChainSpec, Processed, StageSpec
from pipeline.contract import Batch

STAGES: list[tuple[str, dict[str, Any], str | None]] = [
    ("timestamp", {"field": "timestamp"}, None),
    ("severity", {"field": "level"}, None),
    ("tag", {"add": ["early-{service}"]}, 'service != "api"'),
    ("redact", {"keys": ["password", "token"], "patterns": ["email", "card"]}, None),
    ("drop", {}, 'level == "trace" and service == "api"'),
    ("correlation", {}, None),
    ("tag", {"add": ["{environment}", "{request.method}"]}, None),
    (
        "route",
        {
            "rules": [
                {"when": 'category == "audit"', "index": "audit-{day}"},
                {"when": "severity >= 17", "index": "errors-{service}-{day}"},
            ]
        },
        None,
    ),
]


def chain(*, splice: bool) -> Chain:
    specs = [
        StageSpec(name, name, registry.find("stage", name).Options.model_validate(options), when)
        for name, options, when in STAGES
    ]
    decoder = StageSpec("json", "json", registry.find("stage", "json").Options())
    return Chain(ChainSpec(specs, {"in": decoder}), splice=splice)


SHORT, FULL = chain(splice=True), chain(splice=False)
ORIGIN = {"host.name": "h", "log.file.path": str(Path("/var/log/x.log"))}


def documents(result: Processed) -> list[tuple[str, str, Any]]:
    return sorted(
        (part.index, id_, orjson.loads(document)) for part in result.documents for id_, document in part.pairs()
    )


VALUES: dict[str, list[Any]] = {
    "timestamp": ["2026-11-20T00:00:00.123Z", "2026-11-20T01:00:00+01:00", 1795132800123, "soon", None, {"a": 1}, 5],
    "level": ["info", "ERROR", "fatal", "trace", 30, None, ["x"], "ann@example.com"],
    "service": ["api", "web", 7, True, "ann@example.com"],
    "environment": ["production", "", None, "4111 1111 1111 1111"],
    "category": ["audit", "request", 1, 1.0, True],
    "message": ["fine", "to ann@example.com", "password=x", "4111111111111111", 'a "token": "y" b', "ü"],
    "password": ["hunter2", "[REDACTED]", "", None, {"a": "b"}, 1],
    "request": [{"method": "GET"}, {"method": "ann@example.com", "token": "x"}, "none"],
    "context": [{"token": "x", "password": "y"}, {"trace_id": "ab" * 16}, ["ann@example.com", {"token": "t"}]],
    "tags": [["x"], "y"],
    "host": [{"name": "own"}],
    "traceId": ["ab" * 16, ""],
    "@id": ["x"],
}
RECORDS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})
FORMS = st.sampled_from([(",", ":"), (", ", ": ")])


@given(st.lists(st.tuples(RECORDS, FORMS, st.booleans()), max_size=12))
def test_real_stages_give_the_same_both_ways(given_records):

    lines = [json.dumps(event, separators=form, ensure_ascii=plain).encode() for event, form, plain in given_records]
    batch = Batch("in", b"".join(line + b"\n" for line in lines), "source", origin=ORIGIN)
    short, full = SHORT.run(batch), FULL.run(batch)
    assert documents(short) == documents(full)
    assert sorted(failure[:3] for failure in short.failures) == sorted(failure[:3] for failure in full.failures)
    assert (short.counts, short.records) == (full.counts, full.records)


@pytest.mark.parametrize("odd", [b'{"tags":["x"],"level":"info"}', b'{"level":"b","password":"a\\"b"}'])
def test_records_that_take_the_full_way_keep_their_place(odd):
    lines = [b'{"level":"info","n":%d}' % n for n in range(5)]
    batch = Batch("in", b"\n".join([*lines, odd, *lines]), "source", base=1000)
    [part] = SHORT.run(batch).documents
    ids = [id_ for id_, _ in part.pairs()]
    assert ids == sorted(ids)
    assert len(ids) == 11


def test_a_record_of_several_lines_does_not_break_the_body():
    record = b'{"level":\n"info"}'
    batch = Batch("in", record * 2, "source", ends=ends(len(record), 2))
    assert len(documents(SHORT.run(batch))) == 2


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"a":{"x":1}', b',"b":2}{"c":3}'],
        [b'{"a":{"x":1}', b'}{"level":"info"}'],
        [b'{"level":"info"}{"level":"info"}', b'{"level":"info"}'],
        [b'{"a":[{"x":1}', b'{"level":"info"}]}'],
        [b'{"a":1}', b" ", b'{"b":2}{"c":3}'],
    ],
)
def test_lines_that_are_json_only_together_are_not_taken_for_records(lines):
    batch = Batch("in", b"\n".join([*lines, b""]), "source")
    short, full = SHORT.run(batch), FULL.run(batch)
    assert documents(short) == documents(full)
    assert [failure.record for failure in short.failures] == [failure.record for failure in full.failures]
    assert short.failures


def ends(length: int, count: int) -> Any:

    return array("Q", [length * (n + 1) for n in range(count)])

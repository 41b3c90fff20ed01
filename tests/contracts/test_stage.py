"""What every stage promises (`pipeline.contract.Stage`), asked of all that there are."""

import copy
import inspect
import json
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import netaddr
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter

import stages
from pipeline import registry
from pipeline.columns import MISSING, Columns
from pipeline.contract import ID, INDEX, RESERVED, Event

NAMES = [module.name for module in iter_modules(stages.__path__) if not module.name.startswith("_")]

MMDB = "a database that the suite makes"

# Options worth the whole suite, beside the defaults of a stage that needs none.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "correlation": [{"within": []}],
    "drop": [{"percent": 50}],
    "geoip": [{"field": "clientIp", "target": "geo", "database": MMDB}, {"field": "request.ip", "database": MMDB}],
    "json": [{"malformed": "keep"}, {"target": "parsed", "malformed": "keep"}],
    "redact": [{"keys": ["password", "note"], "patterns": ["email", "card", "ipv4"]}, {"action": "mask"}],
    "rename": [{"fields": {"level": "log.level", "a.b": "message", "user": "userId", "userId": "user"}}],
    "route": [
        {
            "rules": [
                {"when": 'category == "audit"', "index": "audit-{day}"},
                {"when": "severity >= 17", "index": "errors-{service.name}-{day}"},
            ],
            "default": "logs-{day}",
            "undated": "logs-undated",
        }
    ],
    "severity": [{"field": "log.level", "numbers": "syslog"}],
    "tag": [{"add": ["{environment}"]}, {"add": ["{environment}", "{a.b}-{day}", "x"], "remove": ["x", "y"]}],
    "timestamp": [
        {"field": ["when", "a.b"], "reference": "file.mtime", "zone": "Europe/Berlin"},
        {"formats": ["%d.%m.%Y"]},
    ],
}


def cases(*needs: str) -> list[Any]:
    """Stages with options, as parameters: those that have all the methods and attributes."""
    return [
        pytest.param((name, options), id=f"{name}{n}" if n else name)
        for name in NAMES
        for n, options in enumerate([*defaults(name), *OPTIONS.get(name, [])])
        if all(has(registry.find("stage", name), need) for need in needs)
    ]


def defaults(name: str) -> list[dict[str, Any]]:
    """No options, for a stage that needs none."""
    if any(field.is_required() for field in registry.options("stage", name).model_fields.values()):
        assert OPTIONS.get(name), f"{name} needs options: add some to this suite's table"
        return []
    return [{}]


def has(found: type, need: str) -> bool:
    """Whether a class has a method, or sets the attribute in its constructor."""
    return need in vars(found) or f"self.{need} " in inspect.getsource(found)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    writer = MMDBWriter(ip_version=4, database_type="GeoLite2-City", languages=["en"], description="test")
    place = {
        "country": {"iso_code": "DE"},
        "city": {"names": {"en": "Bonn"}},
        "location": {"latitude": 50.7, "longitude": 7.1},
    }
    writer.insert_network(netaddr.IPSet(["93.184.216.0/24"]), place)
    path = tmp_path_factory.mktemp("geoip") / "city.mmdb"
    writer.to_db_file(str(path))
    return path


@pytest.fixture(scope="module")
def stage(request, database):
    """The stage that the test is about: one instance for all its examples, as in a worker."""
    name, options = request.param
    found = registry.find("stage", name)
    options = {key: str(database) if value is MMDB else value for key, value in options.items()}
    return found(found.Options.model_validate(options))


def every_stage(*needs: str) -> Any:
    """Run the test for all stages that have this."""
    return pytest.mark.parametrize("stage", cases(*needs), indirect=True)


FIELDS = [
    *(
        "@timestamp",
        "timestamp",
        "time",
        "when",
        "file.mtime",
        "level",
        "log",
        "log.level",
        "severity",
        "message",
        "tags",
    ),
    *(
        "category",
        "environment",
        "service",
        "clientIp",
        "request",
        "host",
        "error",
        "user",
        "userId",
        "a",
        "a.b",
        "b",
        "x",
    ),
    *(
        "correlation",
        "correlationId",
        "trace",
        "trace.id",
        "traceId",
        "traceparent",
        "headers",
        "context",
        "geo",
        "note",
    ),
    *(
        "parsed",
        "timestamp_original",
        "password",
        "name",
        "stack",
        "err",
        "http",
        "ip",
        "labels",
        "ecs",
        "event",
        "pid",
    ),
]
TEXTS = [
    *(
        "",
        "info",
        "ERROR",
        "audit",
        "x",
        "log.level",
        "93.184.216.34",
        "10.0.0.1",
        "::1",
        "ann@example.com",
        "not an address",
    ),
    *("2026-11-20T00:00:00.123Z", "20.11.2026", "Nov 20 00:00:00", "1795132800", "2026-13-40T99:99:99.999Z", "c-1"),
    *(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        '{"a":1,"@id":"x"}',
        '{"password":"hunter2"}',
        "[1]",
        "{",
    ),
    *(
        "card 4111 1111 1111 1111",
        "Bearer abcdefghijklmnop.qrstuvwxyz",
        "Error: boom\n    at f (/srv/a.js:1:2)",
        "tab\tä😀\x00",
    ),
]
SCALARS = (
    st.sampled_from(TEXTS)
    | st.text(max_size=8)
    | st.sampled_from(
        [None, True, False, 0, 5, 17, 30, 1795132800123, -1, 2**64 - 1, -(2**63), 0.0, 1795132800.5, 1e308]
    )
)
KEYS = st.sampled_from([*FIELDS, "id", "ip", "x-correlation-id", "Authorization", "code", "type"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=4
)
# What a draw of any field with any value would seldom meet: a field with a value that it usually has.
OFTEN: dict[str, list[Any]] = {
    "tags": [["x"], ["production", "y"]],
    "timestamp": ["2026-11-20T00:00:00.123Z", 1795132800123, "20.11.2026", "soon"],
    "@timestamp": ["2026-11-20T00:00:00.123Z", "2026-11-20", "2026-11-20T00:00:00+01:00", 5],
    "category": ["audit", "request"],
    "severity": [9, 17],
    "environment": ["production", "a/b"],
    "message": TEXTS,
    "clientIp": ["93.184.216.34", "10.0.0.1"],
}
USUAL = st.fixed_dictionaries({}, optional={field: st.sampled_from(values) for field, values in OFTEN.items()})
ANY = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=5).filter(lambda key: key not in RESERVED), VALUES, max_size=6
)
EVENTS = st.builds(lambda usual, other: usual | other, USUAL, ANY)


def numbered(events: list[Event]) -> list[Event]:
    return [event | {ID: f"log-{n}"} for n, event in enumerate(events)]


BATCHES = st.lists(EVENTS, max_size=4).map(numbered)
# Any of these values before any other one: a stage that remembers what it should not meets both in one batch.
PAIRS = [
    numbered([{field: first}, {field: second}])
    for field, values in OFTEN.items()
    for first in values[:5]
    for second in values[:5]
]
RECORDS = st.lists(
    EVENTS.map(orjson.dumps) | st.binary(max_size=30) | st.sampled_from([text.encode() for text in TEXTS])
)

examples = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])

Made = list[Event] | str


def outcome(call: Any, argument: Any) -> Made:
    """What a stage or decoder makes of a copy of its argument, or the error that it raises."""
    try:
        made: list[Event] = call(copy.deepcopy(argument))
    except Exception as error:  # noqa: BLE001 - a stage's error API is to raise, whatever it likes
        return type(error).__name__
    return made


def counted(stage: Any) -> dict[str, int]:
    """What the stage counted since it was asked last."""
    counts: dict[str, int] = getattr(stage, "counts", {})
    taken = dict(counts)
    counts.clear()
    return taken


def plain(event: Event) -> bytes:
    """An event as it would be written."""
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS)


@every_stage("__call__")
@examples
@given(batch=BATCHES)
def test_a_batch_gives_the_same_as_record_by_record_and_can_be_written_or_raises(stage, batch):
    works_the_same(stage, batch)


@every_stage("__call__")
def test_an_event_does_not_change_what_becomes_of_the_next_one(stage):
    for pair in PAIRS:
        works_the_same(stage, pair)


def works_the_same(stage: Any, batch: list[Event]) -> None:
    counted(stage)
    alone = [(event, outcome(stage, [event]), counted(stage)) for event in batch]
    good = [event for event, made, _ in alone if not isinstance(made, str)]
    if len(good) < len(batch):
        assert isinstance(outcome(stage, batch), str)
        counted(stage)
    together = outcome(stage, good)
    one_by_one = [event for _, made, _ in alone if not isinstance(made, str) for event in made]
    assert [plain(event) for event in together] == [plain(event) for event in one_by_one]  # type: ignore[arg-type]
    assert {event[ID] for event in one_by_one} <= {event[ID] for event in batch}
    counts = [count for _, made, count in alone if not isinstance(made, str)]
    assert counted(stage) == dict(sum(map(Counter, counts), Counter()))


@every_stage("__call__")
@examples
@given(batch=BATCHES)
def test_equal_events_have_equal_results_whatever_came_between(stage, batch):
    first = outcome(stage, batch)
    outcome(stage, [event | {"level": "x"} for event in reversed(batch)])
    assert [*map(repr, outcome(stage, batch))] == [*map(repr, first)]


@every_stage("__call__", "reads", "adds")
@examples
@given(batch=BATCHES)
def test_a_stage_reads_and_changes_only_what_it_says(stage, batch):
    seen = stage.reads | stage.adds | {*RESERVED}
    whole = outcome(stage, batch)
    narrow = outcome(stage, [{key: value for key, value in event.items() if key in seen} for event in batch])
    if isinstance(whole, str) or isinstance(narrow, str):
        assert whole == narrow
        return
    before = {event[ID]: event for event in batch}
    changeable = stage.adds | {INDEX}
    assert [event[ID] for event in whole] == [event[ID] for event in narrow]
    for full, part in zip(whole, narrow, strict=True):
        own = before[full[ID]]
        assert {key: value for key, value in full.items() if key not in changeable} == {
            key: value for key, value in own.items() if key not in changeable
        }
        assert [(key, repr(full.get(key))) for key in changeable] == [(key, repr(part.get(key))) for key in changeable]


@every_stage("fill", "reads", "adds")
@examples
@given(batch=BATCHES)
def test_by_column_a_stage_adds_the_same(stage, batch):
    narrow = [{key: value for key, value in event.items() if key in {ID, *stage.reads} - stage.adds} for event in batch]
    columns = Columns(
        range(len(narrow)),
        lambda n: narrow[n][ID],
        {field: [event.get(field, MISSING) for event in narrow] for field in stage.reads - stage.adds},
    )
    made = outcome(stage, narrow)
    if isinstance(made, str):
        with pytest.raises(Exception):  # noqa: B017 - whatever the stage raises
            stage.fill(columns)
        return
    stage.fill(columns)
    for field in stage.adds:
        texts, values = columns.json.get(field, [b""] * len(narrow)), columns[field]
        expected = [event.get(field, MISSING) for event in made]
        assert [*map(repr, values)] == [*map(repr, expected)]
        assert [text and orjson.loads(text) for text in texts] == [
            b"" if value is MISSING else orjson.loads(orjson.dumps(value)) for value in expected
        ]
    assert [*columns[INDEX]] == [event.get(INDEX, MISSING) for event in made]


@every_stage("__call__", "reads", "adds")
@examples
@given(batch=BATCHES)
def test_a_stage_changes_no_value_that_others_may_share(stage, batch):
    shared, before = [dict(event) for event in batch], copy.deepcopy(batch)
    with suppress(Exception):
        stage(batch)
    assert shared == before


@every_stage("__call__", "touches")
@examples
@given(batch=BATCHES, ascii_only=st.booleans())
def test_what_a_stage_does_not_touch_it_leaves_alone(stage, batch, ascii_only):
    records = [json.dumps({**event, ID: None}, ensure_ascii=ascii_only).encode() for event in batch]
    block = b"\n".join(records)
    offsets = [at for at, _ in stage.touches(block)]
    assert offsets == sorted(offsets)
    assert all(0 <= offset < len(block) for offset in offsets)
    touched = {block.count(b"\n", 0, offset) for offset in offsets}
    made = outcome(stage, batch)
    if isinstance(made, str):
        assert touched
        return
    assert [event[ID] for event in made] == [event[ID] for event in batch]
    assert [event for n, event in enumerate(made) if n not in touched and event != batch[n]] == []


@every_stage("decode")
@examples
@given(records=RECORDS)
def test_a_decoder_gives_the_same_for_records_together_as_one_by_one(stage, records):
    together = outcome(stage.decode, records)
    one_by_one = [outcome(stage.decode, [record]) for record in records]
    if isinstance(together, str):
        assert together in one_by_one
        return
    assert together == [event for made in one_by_one for event in made]
    for event in together:
        assert plain(event)
        assert not {*RESERVED} & event.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_is_one_documented_class_with_options(name):
    found = registry.find("stage", name)
    assert len(inspect.getdoc(import_module(f"stages.{name}")) or "") > 100
    assert found.Options.model_config["extra"] == "forbid"
    assert [field for field, info in found.Options.model_fields.items() if not info.description] == []
    assert has(found, "__call__") or has(found, "decode")


@every_stage()
def test_what_a_stage_says_of_itself_is_consistent(stage):
    assert hasattr(stage, "reads") == hasattr(stage, "adds")
    if hasattr(stage, "reads"):
        assert isinstance(stage.reads, frozenset)
        assert isinstance(stage.adds, frozenset)
        assert not hasattr(stage, "touches")
        assert not (stage.reads | stage.adds) & {*RESERVED}


@every_stage("gauges")
def test_gauges_are_numbers(stage):
    assert all(isinstance(value, int | float) for value in stage.gauges().values())


@every_stage("refresh")
def test_a_stage_may_be_refreshed_at_any_time(stage):
    stage.refresh()
    stage.refresh()

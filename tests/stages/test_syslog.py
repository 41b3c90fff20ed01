"""Syslog in all the forms that real senders write."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.syslog import Syslog


def decode(*records):
    return Syslog(Syslog.Options()).decode(list(records))


def event(record):
    return decode(record)[0]


def test_a_message_of_rfc_5424():
    text = (
        b'<165>1 2026-11-20T00:00:00.003Z db1.example.com postgres 17 ID47 [origin@32473 ip="192.0.2.1"][meta a="1"] up'
    )
    assert event(text) == {
        "timestamp": "2026-11-20T00:00:00.003Z",
        "level": "notice",
        "message": "up",
        "host": {"name": "db1.example.com"},
        "process": {"name": "postgres", "pid": 17},
        "log": {
            "syslog": {
                "priority": 165,
                "facility": {"code": 20, "name": "local4"},
                "severity": {"code": 5, "name": "notice"},
                "version": "1",
                "hostname": "db1.example.com",
                "appname": "postgres",
                "procid": "17",
                "msgid": "ID47",
                "structured_data": {"origin@32473": {"ip": "192.0.2.1"}, "meta": {"a": "1"}},
            }
        },
    }


def test_a_message_of_rfc_3164():
    assert event(b"<34>Nov  2 00:00:00 db1 su[230]: failed for root: no") == {
        "timestamp": "Nov  2 00:00:00",
        "level": "crit",
        "message": "failed for root: no",
        "host": {"name": "db1"},
        "process": {"name": "su", "pid": 230},
        "log": {
            "syslog": {
                "priority": 34,
                "facility": {"code": 4, "name": "auth"},
                "severity": {"code": 2, "name": "crit"},
                "hostname": "db1",
                "appname": "su",
                "procid": "230",
            }
        },
    }


def test_what_a_message_of_rfc_5424_lacks_is_missing():
    syslog = {
        "priority": 0,
        "facility": {"code": 0, "name": "kern"},
        "severity": {"code": 0, "name": "emerg"},
        "version": "1",
    }
    for record in (b"<0>1 - - - - - -", b"<0>1 - - - - - - "):
        assert event(record) == {"level": "emerg", "message": "", "log": {"syslog": syslog}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"<13>1 - - - - - - text", "text"),
        (b"<13>1 - - - - - -  text ", " text "),
        (b"<13>1 - - - - - - \xef\xbb\xbfth\xc3\xa9", "thé"),
        (b"<13>1 - - - - - [a] text", "text"),
        (b"<13>1 - - - - - [a]", ""),
        (b"<13>1 - - - - - - [no] data", "[no] data"),
        (b"<13>1 - - - - - - one\ntwo", "one\ntwo"),
    ],
)
def test_the_text_of_rfc_5424_stands_behind_the_data(record, message):
    assert event(record)["message"] == message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (r'[a k="v"]', {"a": {"k": "v"}}),
        (r'[a k="v" l=""]', {"a": {"k": "v", "l": ""}}),
        (r'[a k="\"q\" \\ \] \n"]', {"a": {"k": '"q" \\ ] \\n'}}),
        (r'[a k="unescaped ]"]', {"a": {"k": "unescaped ]"}}),
        (r'[a ip="1" ip="2" ip="3"]', {"a": {"ip": ["1", "2", "3"]}}),
        (r'[a k="1"][b k="2"]', {"a": {"k": "1"}, "b": {"k": "2"}}),
        (r'[a  k="v" ]', {"a": {"k": "v"}}),
        ("[empty]", {"empty": {}}),
        ('[a k="one\ntwo"]', {"a": {"k": "one\ntwo"}}),
    ],
)
def test_structured_data(data, expected):
    record = f"<13>1 - - - - - {data} text".encode()
    assert event(record)["log"]["syslog"]["structured_data"] == expected
    assert event(record)["message"] == "text"


@pytest.mark.parametrize(
    ("record", "time", "host", "program", "pid", "message"),
    [
        (b"<13>Nov 20 00:00:00 h app: text", "Nov 20 00:00:00", "h", "app", None, "text"),
        (b"<13>Nov 20 00:00:00 h app[x1]: text", "Nov 20 00:00:00", "h", "app", None, "text"),
        (b"<13>Nov 20 00:00:00 h app[]: text", "Nov 20 00:00:00", "h", "app", None, "text"),
        (b"<13>Nov 20 00:00:00 h no tag at all", "Nov 20 00:00:00", "h", None, None, "no tag at all"),
        (b"<13>Nov 20 00:00:00 app[7]: no host", "Nov 20 00:00:00", None, "app", 7, "no host"),
        (b"<13>Nov 20 00:00:00 app: no host", "Nov 20 00:00:00", None, "app", None, "no host"),
        (b"<13>Nov 20 00:00:00 fe80::1 app: v6", "Nov 20 00:00:00", "fe80::1", "app", None, "v6"),
        (b"<13>Nov 20 00:00:00.123 h app: ms", "Nov 20 00:00:00.123", "h", "app", None, "ms"),
        (b"<13>Nov 20 2026 00:00:00 h app: year", "Nov 20 2026 00:00:00", "h", "app", None, "year"),
        (b"<13>Nov 20 2026 00:00:00: %ASA-6-1: x", "Nov 20 2026 00:00:00", None, "%ASA-6-1", None, "x"),
        (b"<13>2026-11-20T00:00:00.1+01:00 h a/b[1]: iso", "2026-11-20T00:00:00.1+01:00", "h", "a/b", 1, "iso"),
        (b"<13>2026-11-20T00:00:00Z h kernel: [1.2] x", "2026-11-20T00:00:00Z", "h", "kernel", None, "[1.2] x"),
        (b"Nov 20 00:00:00 h cron[9]: no priority", "Nov 20 00:00:00", "h", "cron", 9, "no priority"),
        (b"<13>text of Python's SysLogHandler", None, None, None, None, "text of Python's SysLogHandler"),
        (b"<13>29: *Nov 20 00:00:00: %SYS-5: x", None, None, None, None, "29: *Nov 20 00:00:00: %SYS-5: x"),
        (b"<13>Nov 20 00:00:00 h std::bad_alloc", "Nov 20 00:00:00", "h", None, None, "std::bad_alloc"),
        (b"<13>Nov 20 00:00:00 h app:", "Nov 20 00:00:00", "h", "app", None, ""),
        (b"<13>", None, None, None, None, ""),
        (b"<13>2 not of RFC 5424", None, None, None, None, "2 not of RFC 5424"),
    ],
)
def test_the_many_forms_of_rfc_3164(record, time, host, program, pid, message):
    found = event(record)
    assert found.get("timestamp") == time
    assert found.get("host", {}).get("name") == host
    assert found.get("process", {}).get("name") == program
    assert found.get("process", {}).get("pid") == pid
    assert found["message"] == message
    assert found.get("level") == ("notice" if record.startswith(b"<") else None)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "no syslog"),
        (b"just text", "no syslog"),
        (b'{"json":true}', "no syslog"),
        (b"<192>Nov 20 00:00:00 h a: x", "the priority 192 is above 191"),
        (b"<999>1 - - - - - - x", "the priority 999 is above 191"),
        (b"<13>1 - - - - - [a k=v] x", "broken structured data"),
        (b'<13>1 - - - - - [a k="v] x', "broken structured data"),
        (b'<13>1 - - - - - [a k="v"]x', "followed by 'x'"),
        (b"<13>1 - - - - - -x", "followed by 'x'"),
    ],
)
def test_what_is_no_syslog_raises(record, reason):
    with pytest.raises(ValueError, match=reason):
        decode(record)


@pytest.mark.parametrize("code", range(192))
def test_each_priority_is_a_facility_and_a_severity(code):
    found = event(b"<%d>x" % code)
    syslog = found["log"]["syslog"]
    assert syslog["facility"]["code"] * 8 + syslog["severity"]["code"] == code
    assert found["level"] == syslog["severity"]["name"]


def test_bytes_that_are_not_utf_8_are_replaced_and_tagged():
    found = event(b"<13>caf\xe9")
    assert found["message"] == "caf\ufffd"
    assert found["tags"] == ["_not_utf8"]


def test_a_long_attack_on_the_patterns_takes_no_longer_than_its_length():
    for text in ("[a " + 'k="\\' * 200_000, "[a" + " k" * 200_000, "[a" + ' k="v"' * 100_000 + " x"):
        with pytest.raises(ValueError, match="broken structured data"):
            decode(f"<13>1 - - - - - {text}".encode())
    assert event(b"<13>Nov 20 00:00:00 " + b"x" * 400_000)["message"] == "x" * 400_000


# --- as a stage ---


def stage(*events, **options):
    return Syslog(Syslog.Options(**options))(list(events))


def test_as_a_stage_it_takes_a_field_apart_and_keeps_the_others():
    (found,) = stage({"message": "<14>Nov 20 00:00:00 h a[1]: x", "host": {"ip": "::1"}, "log": {"offset": 3}, "n": 1})
    assert found["message"] == "x"
    assert found["host"] == {"ip": "::1", "name": "h"}
    assert found["log"]["offset"] == 3
    assert found["log"]["syslog"]["priority"] == 14
    assert found["process"] == {"name": "a", "pid": 1}
    assert found["n"] == 1


def test_as_a_stage_it_reads_any_field():
    (found,) = stage({"event": {"original": "<14>x"}}, field="event.original")
    assert found["message"] == "x"
    assert found["event"] == {"original": "<14>x"}


def test_as_a_stage_it_leaves_records_without_the_field_alone():
    assert stage({"n": 1}, {"message": None}) == [{"n": 1}, {"message": None}]


@pytest.mark.parametrize(
    "event", [{"message": 7}, {"message": "text"}, {"message": "<14>Nov 20 00:00:00 h a: x", "host": "scalar"}]
)
def test_as_a_stage_it_raises_on_what_it_can_not_take_apart(event):
    with pytest.raises((TypeError, ValueError)):
        stage(event)


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: f"<13>1 - - - - - [{text}".encode()))
def test_any_bytes_give_an_event_or_a_value_error(record):
    try:
        found = event(record)
    except ValueError:
        return
    assert orjson.loads(orjson.dumps(found)) == found


names = st.from_regex(r"[a-z@.0-9]{1,8}", fullmatch=True)
values = st.text(st.characters(codec="utf-8"), max_size=10)


@given(st.dictionaries(names, st.dictionaries(names, values, max_size=3), min_size=1, max_size=3), values)
def test_structured_data_comes_back_as_it_was_sent(data, message):
    def parameter(name, value):
        value = value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
        return f' {name}="{value}"'

    elements = [f"[{name}{''.join(parameter(*each) for each in values.items())}]" for name, values in data.items()]
    found = event(f"<13>1 - - - - - {''.join(elements)} \ufeff{message}".encode())
    assert found["log"]["syslog"]["structured_data"] == data
    assert found["message"] == message

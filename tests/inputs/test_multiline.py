"""Which lines become one record."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.inputs._multiline import Assembler, Multiline, Rules, line_of, spans

JAVA = [
    "2026-11-20 10:00:00 INFO starting",
    """2026-11-20 10:00:01 ERROR it failed
java.lang.IllegalStateException: no room
\tat com.example.App.run(App.java:10)
\tat com.example.App.main(App.java:5)
\tSuppressed: java.io.IOException: closed
\t\tat com.example.Res.close(Res.java:3)
\t\t... 2 more
Caused by: java.sql.SQLException: gone
  after a second line
\tat com.example.Db.get(Db.java:7)
\t... 2 common frames omitted""",
    '{"message":"going on"}',
    """java.lang.NullPointerException
\tat com.example.App.run(App.java:11)""",
    'Exception in thread "main" java.lang.Error: x\n\tat A.main(A.java:1)',
    '{"level":"error","message":"JSON is a record a line"}',
    "10.0.0.1: not a class",
    "\tan indented line of text",
    "app.log: neither",
]
PYTHON = [
    "INFO:root:starting",
    """ERROR:root:it failed
Traceback (most recent call last):
  File "app.py", line 1, in <module>
    1 / 0
    ~~^~~
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "app.py", line 3, in <module>
    raise my.Error("x") from None
my.Error: x
  on a second line""",
    '{"message":"going on"}',
    'Traceback (most recent call last):\n  File "x", line 1\nKeyboardInterrupt',
    '{"message":"going on"}',
    """  + Exception Group Traceback (most recent call last):
  |   File "x.py", line 1, in <module>
  | ExceptionGroup: both (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------""",
    '{"level":"info"}',
    "WARNING:root:done",
]
NODE = [
    "server listening on 8080",
    """request failed
TypeError [ERR_X]: bad
    at f (/app/a.js:1:2) {
  code: 'ERR_X',
  [cause]: Error: inner
      at g (/app/b.js:3:4)
}""",
    """/app/a.js:10
throw new Error("x");
^

Error: x
    at Object.<anonymous> (/app/a.js:10:7)

Node.js v22.1.0""",
    '{"level":30}',
    "Error: alone\n    at h (/app/c.js:5:6)",
    "going on",
    '{"level":30}',
    "    at the beginning of a line that is text",
]
GO = [
    "2026/11/20 10:00:00 starting",
    """panic: runtime error: index out of range [5] with length 3
\tpanic: again
[signal SIGSEGV: segmentation violation code=0x1]

goroutine 1 [running]:
main.(*T).get(0xc000012345, 0x5)
\t/app/main.go:8 +0x1d
main.main()
\t/app/main.go:4 +0x1d
created by main.start in goroutine 1
\t/app/main.go:2 +0x1d
...additional frames elided...

goroutine 2 [chan receive]:
main.wait(...)
\t/app/main.go:20
exit status 2""",
    "2026/11/20 10:00:01 http: panic serving 10.0.0.1:5: boom\ngoroutine 34 [running]:\nnet/http.serve()\n\t/go/x.go:1",
    "2026/11/20 10:00:02 going on (really)",
]
PRESETS = {"java": JAVA, "python": PYTHON, "nodejs": NODE, "go": GO}


def rules(**options):
    return Multiline(**options).rules()


def grouped(text, **options):
    data = text.encode()
    return [line_of(data, *span[:2]).decode() for span in spans(rules(**options), data, 0, len(data))]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stack_trace_is_one_record_with_the_line_that_reports_it(preset):
    records = PRESETS[preset]
    found = grouped("\n".join(records) + "\n", preset=preset)
    assert [record.rstrip("\n") for record in found] == records


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_finds_the_same_with_the_line_ends_of_windows(preset):
    text = "\r\n".join("\n".join(PRESETS[preset]).split("\n")) + "\r\n"
    found = grouped(text, preset=preset)
    assert [record.replace("\r\n", "\n").rstrip("\n") for record in found] == PRESETS[preset]


def test_a_line_that_matches_start_begins_a_record():
    assert grouped("0\n> a\nb\n\n> c\n", start="^>") == ["0", "> a\nb\n", "> c"]


def test_a_line_that_matches_continuation_goes_on_the_one_before():
    assert grouped(" 0\na\n b\n c\nd", continuation=r"^\s") == [" 0", "a\n b\n c", "d"]


def test_bytes_that_are_not_utf_8_match_what_they_can():
    data = b"> a\n\xff\xfe> b\n> \xff\n"
    assert [data[a:b] for a, b, _ in spans(rules(start="^>"), data, 0, len(data))] == [
        b"> a\n\xff\xfe> b\n",
        b"> \xff\n",
    ]


def test_a_record_ends_at_the_most_lines_and_the_rest_begins_another():
    data = b"> a\nb\nc\nd\ne\n> f\n"
    found = [(data[a:b], cut) for a, b, cut in spans(rules(start="^>", max_lines=2), data, 0, len(data))]
    assert found == [(b"> a\nb\n", True), (b"c\nd\n", True), (b"e\n", False), (b"> f\n", False)]


def test_a_record_ends_at_the_most_bytes_but_a_line_stays_whole():
    data = b"> a\nb\nc\n> long enough\nd\n"
    found = [(data[a:b], cut) for a, b, cut in spans(rules(start="^>", max_bytes=6), data, 0, len(data))]
    assert found == [(b"> a\nb\n", True), (b"c\n", False), (b"> long enough\n", True), (b"d\n", False)]


def test_a_record_begins_where_one_was_ended_before():
    data = b"> a\nb\nc\n"
    assert [span[:2] for span in spans(rules(start="^>"), data, 0, len(data), breaks=[6, 999])] == [(0, 6), (6, 8)]


def test_nothing_gives_no_record():
    assert not list(spans(rules(start="x"), b"abc", 3, 3))
    assert not Assembler(rules(start="x")).flush()


@pytest.mark.parametrize(
    "options",
    [{}, {"preset": "java", "start": "x"}, {"start": "x", "continuation": "y"}, {"preset": "cobol"}, {"start": "("},
     {"start": r"(a)\1"}, {"preset": "go", "max_lines": 1}],
)  # fmt: skip
def test_options_that_say_nothing_or_too_much_are_refused(options):
    with pytest.raises(ValidationError):
        Multiline(**options)


def test_a_pattern_is_linear():
    data = (b"a" * 100_000 + b"b\n") * 5
    started = time.process_time()
    assert len(list(spans(rules(continuation="^(a+)+$"), data, 0, len(data)))) == 5
    assert time.process_time() - started < 2


def test_a_stream_gives_a_record_when_the_next_begins_and_the_last_when_flushed():
    assembler = Assembler(rules(start="^>", max_lines=3))
    assert assembler.add([b"0", b"> a", b"b"]) == [b"0"]
    assert assembler.held == 6
    assert assembler.add([b"c", b"d", b"> e"]) == [b"> a\nb\nc", b"d"]
    assert assembler.cut == 1
    assert assembler.flush() == [b"> e"]
    assert assembler.held == 0
    assert assembler.add([b"f"]) == []
    assert assembler.flush() == [b"f"]


LINES = st.lists(
    st.one_of(
        st.sampled_from([line for records in PRESETS.values() for record in records for line in record.split("\n")]),
        st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=40,
)
OPTIONS = st.one_of(
    st.sampled_from([{"preset": preset} for preset in PRESETS]),
    st.sampled_from([{"start": "^[>2]"}, {"continuation": r"^\s|^at"}]),
)
_RULES: dict[tuple[object, ...], Rules] = {}


def limited(options, max_lines, max_bytes):
    key = (*options.items(), max_lines, max_bytes)
    if key not in _RULES:  # patterns take their time to be compiled
        _RULES[key] = rules(**options, max_lines=max_lines, max_bytes=max_bytes)
    return _RULES[key]


LIMITED = st.builds(limited, OPTIONS, st.sampled_from([2, 5, 500]), st.sampled_from([1, 60, 1 << 20]))


@given(LINES, LIMITED)
def test_the_records_are_the_lines(lines, rules):
    data = "".join(f"{line}\n" for line in lines).encode()
    found = list(spans(rules, data, 0, len(data)))
    assert b"".join(data[a:b] for a, b, _ in found) == data
    for start, stop, cut in found:
        held = data[start:stop]
        count = held.count(b"\n")
        assert count <= rules.options.max_lines
        assert count == 1 or len(held) <= rules.options.max_bytes
        assert not cut or stop < len(data)


@given(LINES, LIMITED)
def test_from_the_beginning_of_any_record_the_same_records_follow(lines, rules):
    data = "".join(f"{line}\n" for line in lines).encode()
    found = list(spans(rules, data, 0, len(data)))
    for n, span in enumerate(found):
        assert list(spans(rules, data, span.start, len(data))) == found[n:]


@given(LINES, LIMITED, st.data())
def test_any_chunks_of_a_text_give_the_same_records(lines, rules, draw):
    """The last record of what is there may go on, so it is looked at again with what comes next, as readers do."""
    data = "".join(f"{line}\n" for line in lines).encode()
    ends = [n + 1 for n, byte in enumerate(data) if byte == 0x0A]
    cuts = draw.draw(st.lists(st.sampled_from(ends), max_size=5).map(sorted)) if ends else []
    found, start = [], 0
    for cut in cuts:
        complete = list(spans(rules, data, start, cut))[:-1]
        found += complete
        start = complete[-1].stop if complete else start
    found += spans(rules, data, start, len(data))
    assert found == list(spans(rules, data, 0, len(data)))


@given(LINES, LIMITED, st.data())
def test_a_stream_gives_the_records_of_the_text(lines, rules, draw):
    data = "".join(f"{line}\n" for line in lines).encode()
    expected = [line_of(data, a, b) for a, b, _ in spans(rules, data, 0, len(data))]
    assembler, found, rest = Assembler(rules), [], [line.encode() for line in lines]
    while rest:
        size = draw.draw(st.integers(1, len(rest)))
        found += assembler.add(rest[:size])
        rest = rest[size:]
    assert [*found, *assembler.flush()] == [record for record in expected if record]

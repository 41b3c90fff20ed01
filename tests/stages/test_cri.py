import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.cri import Cri

decode = Cri(Cri.Options()).decode
TIME = "2026-11-20T10:00:00.123456789+01:00"


@pytest.mark.parametrize("message", ["hello", "", " two  blanks ", '{"a": 1}', "größer \ufffd ✓", "a\tb\rc"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_line_is_taken_apart(message, stream):
    assert decode([f"{TIME} {stream} F {message}".encode()]) == [
        {"timestamp": TIME, "stream": stream, "message": message}
    ]


def test_a_line_that_the_runtime_has_cut_is_marked():
    (event,) = decode([f"{TIME} stdout P first half".encode()])
    assert event["log.flags"] == "partial"


def test_tags_behind_the_flag_do_not_count():
    (event,) = decode([f"{TIME} stdout P:more text".encode()])
    assert (event["message"], event["log.flags"]) == ("text", "partial")


def test_what_is_not_utf_8_is_replaced_and_tagged():
    (event,) = decode([TIME.encode() + b" stdout F caf\xe9"])
    assert (event["message"], event["tags"]) == ("caf\ufffd", ["_not_utf8"])


@given(st.binary())
def test_anything_else_raises(record):
    with pytest.raises(ValueError, match="no line of a container's log"):
        decode([record])

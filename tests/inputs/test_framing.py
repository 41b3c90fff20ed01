"""Cutting streams into messages: newlines, NULs, counted octets, any bytes at any boundary."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs._framing import Framing


def cut(data, mode="auto", limit=1000, cuts=(), end=True):
    """The messages, and why the stream could not be followed."""
    framing, messages = Framing(mode, limit), []
    for start, stop in pairwise([0, *sorted(cuts), len(data)]):
        messages += framing.receive(data[start:stop])
    if end:
        messages += framing.end()
    return messages, framing.error


@pytest.mark.parametrize(
    ("mode", "data", "messages"),
    [
        ("newline", b"a\nb\n", [b"a", b"b"]),
        ("newline", b"a\r\n\r\n\nb", [b"a", b"b"]),
        ("newline", b"a\0b\0", [b"a", b"b"]),
        ("newline", b"5 <13>\n", [b"5 <13>"]),
        ("newline", b"\n\0\r\n", []),
        ("auto", b"<13>a\n<13>b", [b"<13>a", b"<13>b"]),
        ("auto", b"5 <13>a5 <13>b", [b"<13>a", b"<13>b"]),
        ("auto", b"6 <1>\na\n<2>b\n5 <3>c\n<4>d", [b"<1>\na", b"<2>b", b"<3>c", b"<4>d"]),
        ("auto", b"5 <1>a\0<2>b\0", [b"<1>a", b"<2>b"]),
        ("auto", b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        ("auto", b"2026-11-20 start\n12 apples\n7\n", [b"2026-11-20 start", b"12 apples", b"7"]),
        ("auto", b"0 <13>x\n", [b"0 <13>x"]),
        ("auto", b"1234567890 <13>x\n", [b"1234567890 <13>x"]),
        ("auto", b"12", [b"12"]),
        ("octet_counting", b"1 a3 b\nc", [b"a", b"b\nc"]),
        ("octet_counting", b"1 a\n1 b\r\n\0", [b"a", b"b"]),
        ("octet_counting", b"3 a\r\n1 \n1 b", [b"a", b"b"]),
        ("octet_counting", b"9 abc", [b"abc"]),
    ],
)
def test_messages_end_where_their_kind_says(mode, data, messages):
    assert cut(data, mode) == (messages, None)
    assert cut(data, mode, cuts=range(len(data))) == (messages, None)


def test_an_incomplete_message_is_held_until_its_end_is_there():
    framing = Framing("auto", 1000)
    assert framing.receive(b"<13>hel") == []
    assert framing.held == 7
    assert framing.receive(b"lo\n") == [b"<13>hello"]
    assert framing.held == 0
    assert framing.end() == []


def test_what_is_longer_than_the_limit_comes_in_pieces():
    assert cut(b"abcdefgh\nij\n", limit=3) == ([b"abc", b"def", b"gh", b"ij"], None)
    assert cut(b"abcdef\nij\n", limit=3) == ([b"abc", b"def", b"ij"], None)
    assert cut(b"8 <1>cdefg2 <x", limit=3) == ([b"<1>", b"cde", b"fg", b"<x"], None)


def test_pieces_that_look_like_counts_are_none():
    assert cut(b"abc5 <1>a\n5 <1>bc", limit=3, mode="auto") == ([b"abc", b"5 <", b"1>a", b"<1>", b"bc"], None)


def test_a_message_given_up_half_way_goes_on_where_it_was():
    framing = Framing("auto", 1000)
    assert framing.receive(b"<1>ab") + framing.end() == [b"<1>ab"]
    assert framing.receive(b"5 <x\n9 <2>abcd") + framing.end() == [b"5 <x", b"<2>abcd"]
    assert framing.receive(b"ef5 <3>ab7") + framing.end() == [b"ef", b"<3>ab", b"7"]
    assert framing.receive(b" <1>\n<4>\n") == [b" <1>", b"<4>"]


def test_what_is_no_count_ends_a_counted_stream():
    framing = Framing("octet_counting", 1000)
    assert framing.receive(b"1 aGET / HTTP/1.1\r\n") == [b"a"]
    assert framing.receive(b"1 a") == []
    assert framing.error == "a message begins with b'GET / HTTP/1', which is no count of octets"


@pytest.mark.parametrize("mode", ["auto", "newline"])
def test_many_small_pieces_cost_no_more_than_their_bytes(mode):
    framing, data = Framing(mode, 1 << 20), b"x" * 100_000 + b"\n"
    assert [message for n in range(len(data)) for message in framing.receive(data[n : n + 1])] == [data[:-1]]


@pytest.mark.parametrize("end", [b"\n", b"\0", b"\r\n"])
def test_lines_cost_no_more_than_their_bytes_whatever_ends_them(end):
    """Were the rest searched in vain for the other end with every line, this would take minutes."""
    framing = Framing("auto", 1 << 20)
    assert framing.receive(b"a".join([end] * 300_000)) == [b"a"] * 299_999
    assert not framing.receive(end * 3_000_000)


bytes_of_syslog = st.lists(st.sampled_from([b"<13>", b"5 ", b"12 <", b"\n", b"\r", b"\0", b"x" * 5, b"3", b" "])).map(
    b"".join
)


@given(bytes_of_syslog, st.sampled_from(["auto", "newline", "octet_counting"]), st.integers(12, 20), st.data())
def test_any_bytes_in_any_pieces_give_the_same(data, mode, limit, draw):
    cuts = draw.draw(st.lists(st.integers(0, len(data))))
    whole = cut(data, mode, limit)
    assert cut(data, mode, limit, cuts)[0] == whole[0]
    assert all(0 < len(message) <= limit for message in whole[0])


@given(st.binary(), st.sampled_from(["auto", "newline"]))
def test_lines_lose_nothing_but_their_ends(data, mode):
    joined = b"".join(cut(data, mode)[0])
    strip = bytes.maketrans(b"", b"")
    if mode == "newline":
        assert joined.translate(strip, b"\r\n\0") == data.translate(strip, b"\r\n\0")
    assert len(joined) <= len(data)

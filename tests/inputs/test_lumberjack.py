"""The Lumberjack parser: every frame, every limit, any bytes at any boundary."""

import os
import struct
import zlib
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.lumberjack import Limits, Protocol, ProtocolError, Window, acknowledgement

LIMITS = Limits()


def window(count, version=b"2"):
    return version + b"W" + struct.pack(">I", count)


def record(text, sequence, version=b"2"):
    return version + b"J" + struct.pack(">II", sequence, len(text)) + text


def pairs(sequence, *strings):
    body = b"".join(struct.pack(">I", len(each)) + each for each in strings)
    return b"1D" + struct.pack(">II", sequence, len(strings) // 2) + body


def packed(frames, version=b"2"):
    body = zlib.compress(frames)
    return version + b"C" + struct.pack(">I", len(body)) + body


def batch(*texts, first=1):
    return b"".join(record(text, first + n) for n, text in enumerate(texts))


def parse(data, limits=LIMITS, cuts=()):
    """The windows in the data, cut at these places, and the error that ends them."""
    protocol, windows = Protocol(limits), []
    edges = [0, *sorted(cuts), len(data)]
    try:
        for start, end in pairwise(edges):
            protocol.receive(data[start:end])
            while (each := protocol.next_window()) is not None:
                windows.append(each)
    except ProtocolError as error:
        return windows, str(error)
    return windows, None


def contents(data, limits=LIMITS, cuts=()):
    windows, error = parse(data, limits, cuts)
    assert error is None
    return [each.records for each in windows]


def test_a_window_of_bare_records_is_given_when_its_last_record_is_there():
    protocol = Protocol(Limits())
    data = window(2) + batch(b'{"a":1}', b'{"b":2}')
    protocol.receive(data[:-1])
    assert protocol.next_window() is None
    assert protocol.unfinished
    protocol.receive(data[-1:])
    assert protocol.next_window() == Window(2, 2, [b'{"a":1}', b'{"b":2}'], [1, 2], 14)
    assert protocol.next_window() is None
    assert not protocol.unfinished
    assert protocol.buffered == 0


def test_a_compressed_window_holds_the_same():
    assert contents(window(2) + packed(batch(b"{}", b"[]"))) == [[b"{}", b"[]"]]


def test_a_window_may_come_in_several_frames_of_both_kinds():
    data = window(5) + packed(batch(b"1", b"2")) + record(b"3", 3) + packed(batch(b"4", first=4)) + record(b"5", 5)
    assert parse(data) == ([Window(2, 5, [b"1", b"2", b"3", b"4", b"5"], [1, 2, 3, 4, 5], 5)], None)


def test_pipelined_windows_come_one_by_one():
    data = (window(1) + packed(batch(b"1")) + window(2) + batch(b"2", b"3")) * 3
    assert contents(data) == [[b"1"], [b"2", b"3"]] * 3


def test_sequence_numbers_may_run_through_the_connection():
    windows, _ = parse(window(2) + batch(b"1", b"2", first=8) + window(1) + batch(b"3", first=10))
    assert [each.sequences for each in windows] == [[8, 9], [10]]


def test_an_empty_window_is_given_at_once():
    assert parse(window(0)) == ([Window(2, 0)], None)


def test_an_empty_compressed_frame_is_skipped_also_outside_of_a_window():
    assert contents(window(0) + packed(b"") + window(1) + packed(b"") + record(b"1", 1)) == [[], [b"1"]]


def test_a_new_window_before_the_last_is_complete_cuts_it_short():
    windows, error = parse(window(3) + batch(b"1", b"2") + window(1) + batch(b"3"))
    assert error is None
    assert [(each.announced, each.records) for each in windows] == [(3, [b"1", b"2"]), (1, [b"3"])]


def test_a_new_window_in_place_of_one_without_a_record_yet_replaces_it():
    assert contents(window(3) + window(1) + batch(b"1")) == [[b"1"]]


def test_an_empty_window_after_one_cut_short_gives_both():
    assert contents(window(3) + batch(b"1") + window(0)) == [[b"1"], []]


def test_pairs_of_version_1_become_an_object():
    data = window(2, b"1") + packed(pairs(1, b"file", b"/x", b"line", b"hi") + pairs(2, b"a", b""), b"1")
    ((only,), error) = parse(data)
    assert error is None
    assert only.version == 1
    assert [orjson.loads(each) for each in only.records] == [{"file": "/x", "message": "hi"}, {"a": ""}]
    assert only.sequences == [1, 2]


def test_bare_pairs_are_read_in_any_pieces():
    data = window(2, b"1") + pairs(1, b"a", b"b") + pairs(2, b"c", b"d") + window(1, b"1") + record(b"{}", 3, b"1")
    expected = [[b'{"a":"b"}', b'{"c":"d"}'], [b"{}"]]
    assert contents(data, cuts=range(1, len(data))) == expected


def test_a_message_beside_a_line_is_kept_as_it_is():
    assert contents(window(1, b"1") + pairs(1, b"line", b"x", b"message", b"y")) == [[b'{"line":"x","message":"y"}']]


def test_a_pair_that_is_no_utf_8_is_replaced_rather_than_refused():
    ((records,),) = contents(window(1, b"1") + pairs(1, b"k", b"\xff"))
    assert orjson.loads(records) == {"k": "\ufffd"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "begins with b'GE'"),
        (b"3W\0\0\0\1", "begins with b'3W'"),
        (b"2A\0\0\0\1", "begins with b'2A'"),
        (record(b"{}", 1), "outside of a window"),
        (packed(record(b"{}", 1)), "outside of a window"),
        (window(1) + batch(b"1", b"2"), "outside of a window"),
        (window(1) + packed(batch(b"1", b"2")), "something else than whole records"),
        (window(1) + packed(packed(batch(b"1"))), "something else than whole records"),
        (window(1) + packed(window(1) + batch(b"1")), "something else than whole records"),
        (window(1) + packed(batch(b"1")[:-1]), "something else than whole records"),
        (window(1) + packed(batch(b"1")[:7]), "something else than whole records"),
        (window(1) + packed(pairs(1, b"a", b"b")[:-1]), "something else than whole records"),
        (window(1) + packed(pairs(1, b"a", b"b")[:9]), "something else than whole records"),
        (window(1) + record(b"", 1), "a record of 0 bytes"),
        (window(1) + pairs(1), "a record of 0 pairs"),
        (window(1) + b"1D\0\0\0\1\xff\xff\xff\xff", "a record of 4294967295 pairs"),
        (window(1) + b"2C\0\0\0\4abcd", "can't be inflated"),
        (window(1) + b"2C\0\0\0\0", "does not end"),
        (window(1) + packed(batch(b"1"))[:-1] + b"\0", "can't be inflated"),
        (window(1) + b"2C" + struct.pack(">I", 6) + zlib.compress(batch(b"1"))[:6], "does not end"),
        (b"2W\xff\xff\xff\xff", "a window of 4294967295 records; at most 65536"),
    ],
)
def test_what_no_client_sends_is_an_error_with_its_reason(data, reason):
    _, error = parse(data)
    assert error is not None
    assert reason in error


def test_trailing_bytes_in_a_compressed_frame_are_an_error():
    body = zlib.compress(batch(b"1")) + b"x"
    _, error = parse(window(1) + b"2C" + struct.pack(">I", len(body)) + body)
    assert error == "a compressed frame does not end where its zlib stream does"


def test_windows_before_an_error_are_given_and_the_error_stays():
    protocol = Protocol(Limits())
    protocol.receive(window(1) + record(b"1", 1) + b"rubbish")
    assert protocol.next_window() is not None
    for _ in range(2):
        with pytest.raises(ProtocolError):
            protocol.next_window()


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (window(3), Limits(window=2), "at most 2 are taken"),
        (window(1) + record(b"12345", 1), Limits(frame=4), "a record of 5 bytes"),
        (window(1) + record(b"12345", 1)[:10], Limits(frame=4), "a record of 5 bytes"),
        (window(1) + packed(record(b"x" * 200, 1)), Limits(frame=100), "a record of 200 bytes"),
        (window(1) + b"2C\0\0\0\x65", Limits(frame=100), "a frame of 101 bytes; at most 100"),
        (window(1) + pairs(1, b"abc", b"de"), Limits(frame=4), "a frame of 5 bytes; at most 4"),
        (window(1) + packed(record(b"x" * 500, 1)), Limits(inflated=100), "inflates to more than 100 bytes"),
        (window(3) + batch(b"aaa", b"bbb"), Limits(buffered=5), "more than 5 bytes of records"),
    ],
)
def test_limits_hold(data, limits, reason):
    _, error = parse(data, limits)
    assert error is not None
    assert reason in error


def test_a_ratio_beyond_the_limit_is_refused_only_above_a_mebibyte():
    small, large = record(b"x" * 1_000_000, 1), record(b"x" * 2_000_000, 1)
    assert len(contents(window(1) + packed(small), Limits(ratio=1))) == 1
    _, error = parse(window(1) + packed(large), Limits(ratio=1))
    assert error is not None
    assert "inflates to more than 1048576 bytes" in error


def test_a_large_compressed_frame_must_begin_with_a_record():
    for begin in (b"\0", b"2W", b"2C"):
        _, error = parse(window(1) + packed(begin + os.urandom(40_000)))
        assert error is not None
        assert "begins with" in error
    long = packed(struct.pack(">2sII", b"2J", 1, 1 << 30) + os.urandom(40_000))
    assert parse(window(1) + long) == ([], f"a frame of {1 << 30} bytes; at most {LIMITS.frame} are taken")
    text = os.urandom(40_000)
    assert contents(window(1) + packed(record(text, 1))) == [[text]]


def test_an_error_keeps_nothing_of_what_was_inflated():
    protocol = Protocol(Limits(inflated=1 << 20))
    protocol.receive(window(1) + packed(record(bytes(2 << 20), 1)))
    for _ in range(2):
        with pytest.raises(ProtocolError, match="inflates to more") as raised:
            protocol.next_window()
    assert not any(value is raised.value for value in vars(protocol).values())
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_a_window_exactly_as_large_as_it_may_be_is_taken():
    limits = Limits(window=2, frame=25, inflated=22, buffered=2)
    assert contents(window(2) + packed(batch(b"1", b"2")), limits) == [[b"1", b"2"]]


def test_tiny_records_count_for_what_they_take_in_memory():
    protocol = Protocol(Limits())
    protocol.receive(window(1000) + b"".join(record(b"1", n) for n in range(999)))
    assert protocol.next_window() is None
    assert protocol.buffered == 999 * 256


def test_what_is_held_is_told_until_the_window_is_given():
    protocol = Protocol(Limits())
    protocol.receive(window(2) + record(b"1" * 500, 1) + pairs(2, b"ab", b"cd")[:-3])
    assert protocol.next_window() is None
    assert protocol.buffered == 500 + 2 + 3


def test_many_small_pieces_cost_no_more_than_their_bytes():
    """Were each piece to copy what came before, this would take minutes."""
    body = b"x" * 300_000
    data = window(1) + record(body, 1) + window(1, b"1") + pairs(1, *([b""] * 8000))
    protocol, windows = Protocol(Limits()), []
    for n in range(len(data)):
        protocol.receive(data[n : n + 1])
        if each := protocol.next_window():
            windows.append(each)
    assert [each.records for each in windows] == [[body], [b'{"":""}']]


def test_acknowledgements_have_the_version_of_the_window():
    assert acknowledgement(2, 258) == b"2A\0\0\1\2"
    assert acknowledgement(1, 0xFFFFFFFF) == b"1A\xff\xff\xff\xff"


texts = st.binary(min_size=1, max_size=30)
strings = st.lists(st.binary(max_size=6), min_size=2, max_size=6).map(lambda each: each[: len(each) // 2 * 2])


@st.composite
def streams(draw):
    """Well-formed windows one after the other, sometimes with something odd in between."""
    frames = []
    for _ in range(draw(st.integers(0, 4))):
        records = draw(st.lists(texts.map(lambda each: record(each, 7)) | strings.map(lambda each: pairs(9, *each))))
        body = b"".join(records)
        frames += [window(len(records)), packed(body) if draw(st.booleans()) else body]
        if draw(st.integers(0, 5)) == 0:
            frames.append(draw(st.sampled_from([window(3), b"2C\0\0\0\1x", b"zz", record(b"1", 1), b"2"])))
    return b"".join(frames)


@given(streams(), st.data())
def test_any_cut_of_a_stream_gives_the_same(data, draw):
    cuts = draw.draw(st.lists(st.integers(0, len(data))))
    assert parse(data, cuts=cuts) == parse(data) == parse(data, cuts=range(len(data)))


@given(st.binary() | streams().flatmap(lambda data: st.tuples(st.just(data), st.binary())).map(b"".join))
def test_any_bytes_give_windows_or_a_protocol_error(data):
    windows, _ = parse(data)
    assert all(len(each.records) == len(each.sequences) <= each.announced for each in windows)


@given(streams(), st.integers(0), st.integers(0, 255))
def test_a_changed_byte_gives_windows_or_a_protocol_error(data, place, byte):
    if data:
        changed = bytearray(data)
        changed[place % len(data)] = byte
        parse(bytes(changed), Limits(inflated=1000))

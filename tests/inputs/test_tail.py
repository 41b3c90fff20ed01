"""What to make of a file: the decisions, without files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch
from pipeline.inputs.tail import (
    HEAD,
    START,
    TAIL,
    Change,
    Claim,
    Look,
    Piece,
    Place,
    Reader,
    Step,
    Verdict,
    change,
    compare,
    decide,
    first_line,
    is_wide,
    mark,
    nuls,
    pieces,
)


class Memory:
    """A text in memory."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def read(self, at: int, size: int) -> bytes:
        return self.text[at : at + size]

    def reaches(self, end: int) -> bool:
        return len(self.text) >= end


def place(text: bytes, offset: int) -> Place:
    head = min(HEAD, offset)
    return Place(offset, mark(head, text[:head]), mark(offset, text[max(0, offset - TAIL) : offset]))


def lines(begin: int, end: int) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(begin, end))


LONG = lines(0, 3000)

# How a file compares with a log


@pytest.mark.parametrize("text", [LONG, LONG + b"more\n"])
def test_a_file_that_holds_what_was_read_is_the_log(text):
    assert compare(Memory(text), place(LONG, len(LONG)), copy=False) is Verdict.SAME


def test_before_anything_was_read_every_file_that_begins_alike_may_be_the_log():
    assert compare(Memory(b""), START, copy=False) is Verdict.SAME


def test_a_file_that_grew_again_after_a_truncation_is_another_log():
    assert compare(Memory(lines(5000, 9000)), place(LONG, len(LONG)), copy=False) is Verdict.OTHER


def test_a_file_that_differs_only_before_the_place_is_another_log():
    changed = LONG[:-20] + b"x" * 20
    assert compare(Memory(changed + b"more\n"), place(LONG, len(LONG)), copy=False) is Verdict.OTHER


def test_a_file_that_differs_only_at_its_beginning_is_another_log():
    assert compare(Memory(b"X" + LONG[1:]), place(LONG, len(LONG)), copy=False) is Verdict.OTHER


def test_a_copy_that_lacks_the_end_is_behind():
    assert compare(Memory(LONG[:9000]), place(LONG, len(LONG)), copy=True) is Verdict.BEHIND


def test_a_log_that_lacks_its_end_was_truncated_and_is_another():
    assert compare(Memory(LONG[:9000]), place(LONG, len(LONG)), copy=False) is Verdict.OTHER


def test_too_short_a_text_does_not_prove_a_copy():
    assert compare(Memory(LONG[: HEAD - 1]), place(LONG, len(LONG)), copy=True) is Verdict.OTHER
    assert compare(Memory(b"line 0\n"), place(LONG, 70), copy=True) is Verdict.OTHER


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_a_file_is_the_log_exactly_when_it_begins_with_what_was_read(log, text, offset):
    offset = min(offset, len(log))
    same = text[:offset] == log[:offset]
    assert compare(Memory(text), place(log, offset), copy=True) is (Verdict.SAME if same else Verdict.OTHER)


# What to do with it

READING, AT_END = Reader(exhausted=False, succeeded=False), Reader(exhausted=True, succeeded=False)
SUCCEEDED = Reader(exhausted=True, succeeded=True)
OTHER = Claim(Verdict.OTHER, longer=False, ahead=False, reader=None)


def same(reader: Reader | None, *, longer: bool = False, ahead: bool = False) -> Claim:
    return Claim(Verdict.SAME, longer, ahead, reader)


def behind(reader: Reader | None) -> Claim:
    return Claim(Verdict.BEHIND, longer=False, ahead=False, reader=reader)


@pytest.mark.parametrize(
    ("claims", "step"),
    [
        ([], (Step.NEW, -1)),
        ([OTHER], (Step.NEW, -1)),
        ([same(None)], (Step.READ, 0)),
        ([OTHER, same(None, longer=True)], (Step.READ, 1)),
        # a copy of what is being read
        ([same(AT_END)], (Step.NOTHING, 0)),
        ([same(READING, longer=True)], (Step.WAIT, 0)),
        ([same(AT_END, longer=True)], (Step.WAIT, 0)),
        # the log goes on here
        ([same(AT_END, longer=True, ahead=True)], (Step.READ, 0)),
        ([same(READING, longer=True, ahead=True)], (Step.WAIT, 0)),
        # deleted, made again, and so far the same
        ([same(SUCCEEDED)], (Step.NEW, -1)),
        ([same(SUCCEEDED, longer=True, ahead=True)], (Step.READ, 0)),
        # copies that lack the end
        ([behind(None)], (Step.NOTHING, 0)),
        ([behind(READING)], (Step.NOTHING, 0)),
        ([behind(READING), same(None)], (Step.READ, 1)),
    ],
)
def test_what_to_do_with_a_file(claims, step):
    assert decide(claims) == step


# What happened since


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Look(100, 1), Change.NONE),
        (Look(101, 2), Change.GROWN),
        (Look(101, 1), Change.GROWN),
        (Look(100, 2), Change.TOUCHED),
        (Look(99, 1), Change.SHRUNK),
        (Look(0, 2), Change.SHRUNK),
    ],
)
def test_what_happened_to_a_file_read_to_its_end(now, expected):
    assert change(100, Look(100, 1), now) is expected


def test_a_file_that_shrank_to_where_it_was_read_is_looked_at():
    assert change(90, Look(100, 1), Look(90, 2)) is Change.TOUCHED


# The first line


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", None),
        (b"half", None),
        (b"first\nsecond\n", b"first"),
        (b"\nsecond\n", b""),
        (b"\xef\xbb\xbffirst\n", b"first"),
        (b"\0\0\0first\n", b"first"),
        (b"\0\0\0", None),
        (b"x" * 4095, None),
        (b"x" * 4096, b"x" * 4096),
        (b"x" * 5000 + b"\n", b"x" * 4096),
    ],
)
def test_the_first_line_is_known_when_it_is_complete_or_long_enough(data, line):
    assert first_line(data, final=False) == line


def test_an_unfinished_first_line_counts_when_nothing_follows():
    assert first_line(b"half", final=True) == b"half"
    assert first_line(b"", final=True) is None


@given(st.binary(), st.binary())
def test_once_known_the_first_line_never_changes(data, more):
    line = first_line(data, final=False)
    if line is not None:
        assert first_line(data + more, final=False) == line


def test_utf_16_is_known_by_its_byte_order_mark():
    assert is_wide("x\n".encode("utf-16"))
    assert not is_wide(b"x\n")


# Cutting lines


def test_complete_lines_are_one_piece_and_the_rest_is_left():
    assert pieces(b"one\ntwo\nthr", 0, 100) == ([Piece(0, 8)], 8)


@pytest.mark.parametrize("data", [b"", b"half"])
def test_without_a_newline_there_is_nothing_to_deliver(data):
    assert pieces(data, 0, 100) == ([], 0)


def test_a_newline_before_the_start_does_not_count():
    assert pieces(b"old\nhalf", 4, 100) == ([], 4)


def test_a_long_line_is_cut_and_its_neighbours_are_not():
    assert pieces(b"ab\nlong line\ncd\nef\n", 0, 4) == ([Piece(0, 3), Piece(3, 7, cut=True), Piece(13, 19)], 19)


def test_a_line_of_exactly_the_limit_is_whole():
    assert pieces(b"abcd\nefgh\n", 0, 4) == ([Piece(0, 10)], 10)


def test_nul_bytes_before_a_line_are_left_out():
    assert pieces(b"\0\0ab\n\0cd\ne\0f\n", 0, 100) == ([Piece(2, 5), Piece(6, 13)], 13)


def test_nul_bytes_count_from_where_asked():
    assert nuls(b"a\0\0b", 1) == 2
    assert nuls(b"a\0\0b", 0) == 0


LINE = st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"."))
TEXT = st.lists(LINE).map(lambda found: b"".join(line + b"\n" for line in found))


def expected(text: bytes, limit: int) -> list[tuple[int, bytes]]:
    """Where each line stands and what of it is to be delivered, the slow and obvious way."""
    found, at = [], 0
    for line in text.split(b"\n")[:-1]:
        bare = line.lstrip(b"\0")
        found.append((at + len(line) - len(bare), bare[:limit]))
        at += len(line) + 1
    return found


def deliver(text: bytes, cuts: list[int], limit: int) -> list[tuple[int, bytes]]:
    """Hand a text over in chunks, as a file that grows, and take the records with their places."""
    found: list[tuple[int, bytes]] = []
    done = 0
    for cut in [*sorted({min(cut, len(text)) for cut in cuts}), len(text)]:
        data = text[done:cut]
        parts, end = pieces(data, 0, limit)
        for part in parts:
            batch = Batch("in", data[part.start : part.stop], "identity", base=done + part.start)
            found += zip(batch.places(), [record[:limit] for record in _lines(batch.block)], strict=True)
        done += end
    assert text[done:] == b""
    return found


def _lines(block: bytes) -> list[bytes]:
    return block.split(b"\n")[:-1] if block.endswith(b"\n") else [block]


@given(TEXT, st.lists(st.integers(0, 200)), st.integers(1, 20))
def test_records_and_their_places_do_not_depend_on_where_the_text_was_cut(text, cuts, limit):
    assert deliver(text, cuts, limit) == expected(text, limit)


@given(st.text(alphabet="aé€😀\n"), st.lists(st.integers(0, 200)))
def test_characters_of_many_bytes_come_through_whole_wherever_they_were_cut(text, cuts):
    data = (text + "\n").encode()
    assert "\n".join([line.decode() for _, line in deliver(data, cuts, 1000)] + [""]) == text + "\n"


@given(st.binary(max_size=60), st.integers(1, 20))
def test_every_line_is_in_one_piece_and_no_piece_holds_half_a_line(data, limit):
    parts, end = pieces(data, 0, limit)
    assert end == data.rfind(b"\n") + 1
    for part in parts:
        assert part.start == 0 or data[part.start - 1 : part.start] in {b"\n", b"\0"}
        assert part.stop - part.start == limit if part.cut else data[part.stop - 1 : part.stop] == b"\n"

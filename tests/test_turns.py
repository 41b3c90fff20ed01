from array import array
from dataclasses import dataclass
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch
from pipeline.turns import Turns, pieces, weight


@dataclass
class Work:
    name: str
    weight: int = 1


def works(text: str) -> list[Work]:
    return [Work(name) for name in text]


def names(taken: list[Work]) -> str:
    return "".join(work.name for work in taken)


def test_each_source_has_its_turn_however_much_waits_of_another():
    turns = Turns[Work]()
    for name in "abcd":
        turns.add("flood", works(name))
    turns.add("other", works("x"))
    turns.add("third", works("y"))
    assert [names(turns.take(1)) for _ in range(6)] == ["a", "x", "y", "b", "c", "d"]
    assert not turns


def test_what_comes_of_a_source_does_not_wait_for_one_that_was_served_since():
    turns = Turns[Work]()
    turns.add("other", works("x"))
    turns.add("flood", works("abcd"))
    assert [names(turns.take(1)) for _ in range(2)] == ["x", "a"]
    turns.add("other", works("y"))
    turns.add("new", works("z"))
    assert [names(turns.take(1)) for _ in range(5)] == ["y", "b", "z", "c", "d"]
    assert not turns


def test_of_a_source_each_batch_has_its_turn_however_many_pieces_another_has():
    turns = Turns[Work]()
    turns.add("one", works("abcd"))
    turns.add("one", works("x"))
    turns.add("one", works("y"))
    assert names(turns.take(100)) == "axybcd"


def test_only_so_much_is_taken_together_and_one_that_is_heavier_alone():
    turns = Turns[Work]()
    turns.add("in", [Work("a", 3), Work("b", 4), Work("c", 20), Work("d", 1)])
    assert [names(turns.take(7)) for _ in range(3)] == ["ab", "c", "d"]


def test_tiny_records_weigh_more_than_their_bytes():
    assert weight(Batch("in", b"x\n" * 10, "i")) == 2560
    assert weight(Batch("in", b"x" * 10, "i", ends=array("Q", range(1, 11)))) == 2560
    assert weight(Batch("in", b"x" * 5000 + b"\n", "i")) == 5001


def batch_of(records: list[bytes], kind: str) -> Batch:
    """A batch at newlines, with ends, with positions, or with ids."""
    records = [record.replace(b"\n", b"") for record in records]
    if kind == "n":
        return Batch("in", b"\n".join([*records, b""]), "i", base=7)
    ends = array("Q", accumulate(map(len, records)))
    batch = Batch("in", b"".join(records), "i", base=7, ends=ends)
    batch.positions = [n * 3 for n in range(len(records))] if kind == "p" else None
    batch.ids = [f"id{n}" for n in range(len(records))] if kind == "i" else None
    return batch


def assert_same(batch: Batch, parts: list[Batch]) -> None:
    for each in (Batch.records, Batch.places, Batch.document_ids):
        assert [value for part in parts for value in each(part)] == list(each(batch))


RECORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=50)
KINDS = st.sampled_from("nepi")


@given(RECORDS, st.integers(1, 3000), KINDS)
def test_pieces_are_the_batch(records, most, kind):
    batch = batch_of(records, kind)
    found = pieces(batch, most)
    together = [piece for _, piece in found]
    assert_same(batch, together)
    assert [first for first, _ in found] == [0, *accumulate(len(piece.records()) for piece in together)][:-1]
    assert len(found) == 1 or all(weight(piece) <= most or len(piece.records()) == 1 for piece in together)


@given(RECORDS, st.integers(0), KINDS)
def test_what_is_split_is_the_batch(records, first, kind):
    batch = batch_of([b"first", *records], kind)
    first = 1 + first % len(records)
    head, tail = batch.slice(0, first), batch.slice(first, len(batch))
    assert_same(batch, [head, tail])
    assert len(head) == first

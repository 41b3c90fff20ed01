"""Small batches of the same kind as one."""

from array import array
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Batch
from pipeline.together import together


def counted(*records: bytes, ids=True, **more) -> Batch:
    ends = array("Q", accumulate(map(len, records)))
    names = [f"id{n}-{len(records)}" for n in range(len(records))] if ids else None
    return Batch("in", b"".join(records), "x", ends=ends, ids=names, **more)


def lines(block: bytes) -> Batch:
    batch = Batch("in", block, "x")
    batch.ids = [f"id{n}" for n in range(len(batch))]
    return batch


def test_small_batches_of_an_input_become_one():
    [one] = together([counted(b"1", b"23"), counted(b"4")])
    assert one.batch.records() == [b"1", b"23", b"4"]
    assert one.batch.document_ids() == ["id0-2", "id1-2", "id0-1"]
    assert [one.where(n) for n in range(3)] == [(0, 0), (0, 1), (1, 0)]


def test_what_differs_in_more_than_its_records_stays_apart():
    batches = [
        counted(b"1"), counted(b"2", refuse=True), counted(b"3", origin={"a": 1}), counted(b"4", ids=False),
        counted(b"5", ids=False), lines(b"6\n"), counted(b"7" * 40_000), counted(b"8" * 40_000),
    ]  # fmt: skip
    found = together(batches)
    assert [each.batch for each in found] == batches
    assert [each.where(0) for each in found] == [(n, 0) for n in range(len(batches))]


one_batch = st.lists(st.binary(max_size=9), min_size=1, max_size=5).map(lambda records: counted(*records))
some_lines = (
    st.lists(st.sampled_from([b"{}", b"\n", b"\r\n", b"a", b" "]), min_size=1, max_size=9).map(b"".join).map(lines)
)


@given(st.lists(one_batch | some_lines, min_size=1, max_size=9))
def test_every_record_is_found_again_where_it_came_from(batches):
    found = [
        (*each.where(n), record, id_)
        for each in together(batches)
        for n, (record, id_) in enumerate(zip(each.batch.records(), each.batch.document_ids(), strict=True))
    ]
    assert sorted(found) == [
        (n, number, record, id_)
        for n, batch in enumerate(batches)
        for number, (record, id_) in enumerate(zip(batch.records(), batch.document_ids(), strict=True))
    ]
    assert sum(len(each.batch) for each in together(batches)) == sum(map(len, batches))

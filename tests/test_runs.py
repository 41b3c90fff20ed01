import asyncio

import pytest

from pipeline.contract import Batch
from pipeline.ledger import Account, Ledger
from pipeline.metrics import Metrics
from pipeline.runs import Piece, Run, Whole
from pipeline.together import together


def batch(*names: str) -> Batch:
    return Batch("in", "\n".join([*names, ""]).encode(), "x", ids=names)


@pytest.fixture
async def piece():
    given = batch(*"abcdef")
    return Piece(Whole(given, 0, asyncio.get_running_loop().create_future(), left=1), given, 10)


def records(pieces: list[Piece]) -> list[tuple[int, bytes]]:
    return [(each.first, b"".join(each.batch.records())) for each in pieces]


async def test_what_is_cut_away_is_a_piece_of_its_own_that_must_end_too(piece):
    rest = piece.cut(4)
    assert records([piece, rest]) == [(10, b"abcd"), (14, b"ef")]
    assert (piece.records, rest.records) == (4, 2)
    assert piece.whole is rest.whole
    assert piece.whole.left == 2


async def test_the_parts_of_a_piece_stand_for_it(piece):
    parts = piece.parts(512)  # a tiny record counts for 256
    assert records(parts) == [(10, b"ab"), (12, b"cd"), (14, b"ef")]
    assert piece.whole.left == 3


@pytest.mark.parametrize(
    ("rest", "left"), [(1, ["bc", "d", "ef"]), (3, ["d", "ef"]), (5, ["f"])], ids=["cut", "between", "the last"]
)
async def test_what_is_left_begins_with_the_first_record_that_was_not_taken(piece, rest, left):
    batches = [batch(*"abc"), batch("d"), batch(*"ef")]
    given = [Piece(piece.whole, each, 0) for each in batches]
    run = Run(given, Account(Ledger(Metrics(), {}), 6))
    [joined] = together(batches)
    assert [b"".join(each.batch.records()).decode() for each in run.left(joined, rest)] == left

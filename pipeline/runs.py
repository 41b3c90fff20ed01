"""What delivery works on: whole batches, pieces of them, and runs of pieces that go together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.contract import Batch, Outcome, Refusal
from pipeline.ledger import Account
from pipeline.letters import Letter
from pipeline.together import Together
from pipeline.turns import pieces, weight

if TYPE_CHECKING:
    from pipeline.chain import Processed


@dataclass(slots=True)
class Whole:
    """A batch, which is released when every piece of it has ended."""

    batch: Batch
    held: int
    """For how many bytes it counts."""
    done: asyncio.Future[Outcome]
    left: int = 0
    """Pieces that have not ended."""
    refused: list[Refusal] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Piece:
    """Some records of a batch, or all of them."""

    whole: Whole
    batch: Batch
    first: int
    """Where its first record stands in the whole batch."""
    refused: list[Refusal] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    """For the records that the chain could not process."""
    ended: bool = False
    weight: int = 0
    records: int = 0

    def __post_init__(self) -> None:
        self.weight, self.records = weight(self.batch), len(self.batch)

    def cut(self, first: int) -> Piece:
        """Take the records from `first` on away, as a piece of their own."""
        rest = self.batch.slice(first, self.records)
        self.batch, self.records = self.batch.slice(0, first), first
        self.whole.left += 1
        return Piece(self.whole, rest, self.first + first)

    def parts(self, most: int) -> list[Piece]:
        """The piece in smaller ones of this weight, which stand for it."""
        parts = [Piece(self.whole, part, self.first + first) for first, part in pieces(self.batch, most)]
        self.whole.left += len(parts) - 1
        return parts


@dataclass(slots=True)
class Run:
    """Pieces that are processed and written together."""

    pieces: list[Piece]
    account: Account
    processed: list[Processed] = field(default_factory=list)

    def left(self, together: Together, rest: int) -> list[Piece]:
        """What the chain has left of batches that went together, from the record `rest` on."""
        n, first = together.where(rest)
        piece, others = self.pieces[n], [self.pieces[m] for m in together.members if m > n]
        return [piece.cut(first) if first else piece, *others]

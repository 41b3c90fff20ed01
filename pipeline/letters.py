"""Dead letters: what is kept of a record that the chain can't process, or whose document an output refuses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.contract import Batch, Refused

if TYPE_CHECKING:
    from pipeline.failure import Failure

Key = tuple[str, str]
"""Output and document id: there is one letter of each."""


@dataclass(slots=True)
class Letter:
    """A record that was set aside, or a document that an output refused."""

    id: str
    """The document id."""
    input: str
    record: bytes
    """The record as the input read it; empty where it was no longer at hand."""
    origin: Mapping[str, str | int]
    """What is true of every record of its batch."""
    time: float
    """When it was set aside, in seconds since 1970."""
    output: str = ""
    """The output that refused the document; empty: the chain could not process the record."""
    stage: str = ""
    reason: str = ""
    traceback: str = ""
    index: str = ""
    identity: str = ""
    """Its batch's identity, which with the place gives the same id again."""
    place: int = 0
    document: bytes | None = None
    """What the output refused."""
    number: int = 0
    """Its place among the letters, rising; given by `put`."""
    repeats: int = 0
    """How often it was set aside again; counted by `put`."""

    @property
    def key(self) -> Key:
        """What there is one letter of."""
        return self.output, self.id


def _letter(batch: Batch, number: int, records: list[bytes], ids: list[str], places: Sequence[int]) -> Letter:
    """A dead letter with all that is known of a record's origin."""
    return Letter(
        id=ids[number],
        input=batch.input,
        record=records[number],
        origin=dict(batch.origin),
        time=time.time(),
        identity=batch.identity,
        place=places[number],
    )


def failed(batch: Batch, failures: Sequence[Failure]) -> list[Letter]:
    """Dead letters for the records that the chain could not process."""
    records, ids, places = batch.records(), batch.document_ids(), batch.places()
    letters = []
    for failure in failures:
        letter = _letter(batch, failure.record, records, ids, places)
        letter.stage, letter.reason, letter.traceback = failure.stage, failure.reason, failure.traceback
        letters.append(letter)
    return letters


def refused(output: str, documents: list[Refused], batches: Sequence[Batch]) -> list[Letter]:
    """Dead letters for the documents that an output will never take, each with its original record."""
    of_id: dict[str, Letter] = {}
    wanted = {each.id for each in documents} | {record_id(each.id) for each in documents}
    for batch in batches:
        records, ids, places = batch.records(), batch.document_ids(), batch.places()
        of_id |= {id_: _letter(batch, n, records, ids, places) for n, id_ in enumerate(ids) if id_ in wanted}
    return [_for_document(of_id.get(each.id) or of_id[record_id(each.id)], output, each) for each in documents]


def parked(output: str, document: Refused) -> Letter:
    """A dead letter for a document that waited on disk, whose record is no longer at hand."""
    letter = Letter(id=document.id, input="", record=b"", origin={}, time=time.time())
    return _for_document(letter, output, document)


def record_id(document_id: str) -> str:
    """The id of the record of which an event with `.1`, `.2` … behind its id was made."""
    return document_id.rpartition(".")[0] or document_id


def _for_document(letter: Letter, output: str, document: Refused) -> Letter:
    return replace(
        letter,
        id=document.id,
        output=output,
        index=document.index,
        document=document.document,
        reason=document.reason,
    )

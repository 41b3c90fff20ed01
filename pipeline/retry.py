"""Dead letters once more through the chain and to the outputs, as they are configured now, under the same ids."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from pipeline.contract import Batch, Documents, Output, bulk
from pipeline.dead import DeadLetters
from pipeline.letters import Key, Letter, record_id
from pipeline.storing import merge
from pipeline.workers import Processor

_TOGETHER = 200
"""Letters taken at once."""


class Retry:
    """Takes dead letters again; those that end well are forgotten, those that fail again stay as they were."""

    def __init__(
        self, processor: Processor, inputs: Iterable[str], outputs: Mapping[str, Output], dead: DeadLetters
    ) -> None:
        self._processor, self._inputs, self._outputs, self._dead = processor, {*inputs}, outputs, dead

    async def run(self, letters: Iterable[Letter]) -> dict[str, int]:
        """Try all these letters; returns the counts: tried, stored, already (there), dropped, set_aside (again)."""
        counts = Counter(tried=0, stored=0, already=0, dropped=0, set_aside=0)
        rest = iter(letters)
        while some := [*islice(rest, _TOGETHER)]:
            failed = await self._try(some, counts)
            counts["tried"] += len(some)
            counts["set_aside"] += len(failed)
            await self._dead.remove([letter.key for letter in some if letter.key not in failed])
        return dict(counts)

    async def _try(self, letters: list[Letter], counts: Counter[str]) -> set[Key]:
        """Process and write letters; returns the keys of those that fail again."""
        failed: set[Key] = set()
        batches = {letter.key: batch_of(letter) for letter in letters if letter.input in self._inputs}
        results = dict(zip(batches, await self._processor.process([*batches.values()]), strict=True))
        for letter in letters:
            key, documents = letter.key, _parked(letter)
            if key in results:
                documents = results[key].documents
                if results[key].failures:
                    failed.add(key)
                elif not documents:
                    counts["dropped"] += 1
            elif not documents:
                failed.add(key)  # its input is not configured any more
            targets = self._targets(letter)
            if not targets:
                failed.add(key)  # its output is not configured any more
            for output in targets:
                if documents and not await self._write(output, documents, counts):
                    failed.add(key)
        return failed

    def _targets(self, letter: Letter) -> list[Output]:
        """The outputs that lack the letter's documents: the one that refused them, or all."""
        return [output for name, output in self._outputs.items() if letter.output in {"", name}]

    async def _write(self, output: Output, documents: list[Documents], counts: Counter[str]) -> bool:
        written = await output.write(merge(documents))
        counts["stored"] += written.stored
        counts["already"] += written.already
        return not written.refused and not written.late


def batch_of(letter: Letter) -> Batch:
    """The letter's record as its input delivered it, under the same id."""
    return Batch(
        input=letter.input,
        block=letter.record,
        identity=letter.identity,
        ends=array("Q", [len(letter.record)]),
        positions=[letter.place],
        ids=[record_id(letter.id) if letter.output else letter.id],
        origin=letter.origin,
    )


def _parked(letter: Letter) -> list[Documents]:
    """The document of a letter whose record is no longer at hand, since it had been parked."""
    if letter.record or letter.document is None:
        return []
    return [bulk(letter.index, [(letter.id, letter.document)])]

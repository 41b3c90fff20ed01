"""Reads dead letters: those of a daemon's `data_dir`, or those that `aiologs dead export` wrote.

They stay where they are: `aiologs dead retry` is what forgets those that are stored. All are read each time, in the
order in which they were set aside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipeline.contract import Context, Deliver, Unusable
from pipeline.dead import reading
from pipeline.letter_json import imported
from pipeline.letters import Letter
from pipeline.replay.job import Job
from pipeline.retry import batch_of

log = logging.getLogger("aiologs.replay")

_TOGETHER = 200


class LetterReader:
    """Delivers the records of dead letters as their inputs did, under the same ids."""

    def __init__(self, job: Job, file: str | None, _: Context) -> None:
        self._data_dir, self._file, self._inputs = job.config.data_dir, file, {*job.config.inputs}

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Deliver the record of every letter; raises `Unusable` where they can't be read."""
        letters = self._letters()
        while not stop.is_set() and (some := await asyncio.to_thread(_some, letters)):
            wanted = []
            for each in some:
                if not each.record or each.input not in self._inputs:
                    reason = "no record, only a document" if not each.record else f"no input {each.input!r} any more"
                    log.error("dead letter %s is left out: there is %s", each.id, reason)
                else:
                    wanted.append(batch_of(each))
            await asyncio.gather(*map(deliver, wanted))

    def _letters(self) -> Iterator[Letter]:
        if self._file is None:
            with reading(self._data_dir) as reader:
                yield from reader.each()
            return
        try:
            with Path(self._file).open("rb") as lines:
                yield from map(imported, lines)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unusable(f"dead:{self._file}: can't be read as exported dead letters: {error}") from error


def _some(letters: Iterator[Letter]) -> list[Letter]:
    return [*islice(letters, _TOGETHER)]

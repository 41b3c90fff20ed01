"""A record that the chain could not process, and why."""

from __future__ import annotations

import sys
import traceback
from typing import NamedTuple


class Failure(NamedTuple):
    """A record that the chain could not process: its place in the batch, the stage, why."""

    record: int
    stage: str
    reason: str
    traceback: str


def failure(number: int, stage: str, error: Exception) -> Failure:
    """The failure of a record."""
    # Where a whole batch fails for the same reason, that goes to the daemon once.
    return Failure(number, stage, sys.intern(f"{type(error).__name__}: {error}"), sys.intern(_trace(error)))


def _trace(error: BaseException) -> str:
    """Where an error came from, without the source lines: looking those up costs a millisecond a record."""
    frames = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    cause = f"{_trace(error.__cause__)}\nThat led to:\n" if error.__cause__ else ""
    return "\n".join([f"{cause}Traceback (most recent call last):", *frames, f"{type(error).__name__}: {error}"])

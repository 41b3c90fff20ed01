"""Dead letters by cause: which of them are meant, and what those of one cause have in common."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class Filters:
    """Which letters are meant: those to which all of these apply. What is empty applies to every letter."""

    id: str = ""
    """The beginning of the document id."""
    input: str = ""
    stage: str = ""
    reason: str = ""
    """A part of the reason, in any letter case."""
    index: str = ""
    output: str = ""


ALL = Filters()
"""Every letter is meant."""
MEANT = """
    (:id = '' OR substr(id, 1, length(:id)) = :id) AND (:reason = '' OR instr(lower(reason), lower(:reason)) > 0)
    AND :input IN ('', input) AND :stage IN ('', stage) AND :index IN ('', index_name) AND :output IN ('', output)
"""
"""`Filters` as a condition of SQL."""


@dataclass(slots=True)
class Group:
    """Letters with the same cause."""

    reason: str
    """With N for every number, and without what is quoted from a record."""
    stage: str
    input: str
    index: str
    output: str
    count: int
    first: float
    last: float
    sample: str
    """The id of the first of them."""


def grouped(filters: Filters, connection: sqlite3.Connection) -> list[Group]:
    """The letters that are meant, grouped by cause, the most frequent first."""
    rows = connection.execute(
        f"""SELECT reason, stage, input, index_name, output, count(*), min(time), max(time), id, min(n) FROM letters
        WHERE {MEANT} GROUP BY 1, 2, 3, 4, 5 ORDER BY min(n)""",  # noqa: S608 - a constant
        asdict(filters),
    )
    groups: dict[tuple[str, ...], Group] = {}
    for reason, stage, input_, index, output, count, first, last, sample, _ in rows:
        cause = _cause(reason), stage, input_, index, output
        group = groups.setdefault(cause, Group(*cause, 0, first, last, sample))
        group.count += count
        group.first, group.last = min(group.first, first), max(group.last, last)
    return sorted(groups.values(), key=lambda group: -group.count)


# What Elasticsearch, and Python's errors, quote from a record.
_QUOTED = re.compile(r"( in document with id |\.? ?Preview of field's value|; caused by |[\"'`]).*", re.DOTALL)


def _cause(reason: str) -> str:
    """What reasons of the same kind have in common, without contents of a record."""
    shown = reason if reason.startswith("KeyError: ") else _QUOTED.sub(lambda found: "…" * (len(found[1]) == 1), reason)
    return re.sub(r"\d+", "N", shown)

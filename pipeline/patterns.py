"""Regular expressions that take time linear in the text: no pattern and no record makes the daemon hang."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def finder(patterns: Sequence[str]) -> Callable[[bytes], int]:
    """Which of the patterns is found anywhere in a UTF-8 text, the first of several by its number; -1: none.

    Look-around and back-references, which can't be had in linear time, raise `ValueError`; so does a bad pattern.
    """
    if not patterns:
        return lambda _: -1
    import hyperscan  # noqa: PLC0415 - 25 ms, for the configurations that have a pattern

    flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_ALLOWEMPTY
    database = hyperscan.Database()
    try:
        database.compile(
            expressions=[pattern.encode() for pattern in patterns],
            ids=list(range(len(patterns))),
            flags=[flags] * len(patterns),
        )
    except hyperscan.error as error:
        raise ValueError(str(error)) from error
    found: list[int] = []

    def note(number: int, *_: object) -> None:
        found.append(number)

    def find(text: bytes) -> int:
        found.clear()
        database.scan(text, match_event_handler=note)
        return min(found, default=-1)

    return find

r"""A number for how bad it is: OpenTelemetry's severity, 1 (trace) to 24 (fatal), 0 where it is not known.

    - severity: {field: level}
    - severity: {field: log.level, numbers: python}

| severity | words |
|---|---|
| 1 trace | trace, silly (winston), finest, t |
| 5 debug | debug, debugging, fine, d; 6: verbose, http (winston) |
| 9 info | info, information, informational, log, i; 10: notice |
| 13 warn | warn, warning, w |
| 17 error | error, err, severe, e; 18: crit (syslog); 19: alert (syslog) |
| 21 fatal | fatal, critical (Python), emerg, emergency, panic, f |

The short names of OpenTelemetry (`INFO2`, `ERROR3`) have their own numbers. Letter case, blanks around a word and
the colours of a terminal around it do not matter.

Numbers, also those in texts, are what `numbers` says: `pino` (and bunyan: 10 trace to 60 fatal), `python` (10 debug
to 50 critical), `syslog` (7 debug to 0 emergency) or `otel` (1 to 24, taken over). A number between two levels counts
as the lower one. The same number means different things in pino and in Python, so it can't be found out.

Where the level is missing or unknown, a number from 1 to 24 that the record already has under the target stays; else
it is 0. The mapping of syslog's levels is OpenTelemetry's own (Logs Data Model, appendix B); the others follow it in
that a source with one level for a range has the smallest number of that range.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, Field

from pipeline.columns import Columns
from pipeline.contract import Event
from pipeline.fields import getter, tops

_RANGES = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}

_WORDS = {
    **{f"{word}{n + 1}": first + n for word, first in _RANGES.items() for n in range(4)},
    **_RANGES,
    **dict.fromkeys(["silly", "finest", "t"], 1),
    **dict.fromkeys(["debugging", "fine", "d"], 5),
    **dict.fromkeys(["verbose", "http"], 6),
    **dict.fromkeys(["information", "informational", "log", "i"], 9),
    "notice": 10,
    **dict.fromkeys(["warning", "w"], 13),
    **dict.fromkeys(["err", "severe", "e"], 17),
    "crit": 18,
    "alert": 19,
    **dict.fromkeys(["critical", "emerg", "emergency", "panic", "f"], 21),
}
# The letter cases that loggers write, found without making a new text.
_KNOWN = {form: number for word, number in _WORDS.items() for form in (word, word.upper(), word.capitalize())}

_NUMBERS = {
    "pino": {n: (1, 5, 9, 13, 17, 21)[n // 10 - 1] for n in range(10, 70)},
    "python": {n: (5, 9, 13, 17, 21)[n // 10 - 1] for n in range(10, 60)},
    "syslog": dict(enumerate((21, 19, 18, 17, 13, 10, 9, 5))),
    "otel": {n: n for n in range(1, 25)},
}

_JSON = [str(number).encode() for number in range(25)]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Severity:
    """Sets OpenTelemetry's severity number."""

    class Options(BaseModel, extra="forbid"):
        """Where the level is and what its numbers mean."""

        field: str = Field(default="level", min_length=1, description="Where the level is: a word or a number.")
        target: str = Field(default="severity", pattern=r"^[^.@]+$", description="The top-level field for the number.")
        numbers: Literal["pino", "python", "syslog", "otel"] = Field(
            default="pino", description="What a level that is a number means; `pino` is also bunyan's way."
        )

    def __init__(self, options: Options) -> None:
        self._field, self._target = options.field, options.target
        self._numbers = _NUMBERS[options.numbers]
        self.adds = frozenset({options.target})
        self.reads = tops(options.field) | self.adds

    def __call__(self, events: list[Event]) -> list[Event]:
        """Set the target of every event."""
        get, known, target = getter(self._field), _KNOWN, self._target
        for event in events:
            level = get(event)
            try:
                event[target] = known[level]
            except (KeyError, TypeError):  # TypeError: an object or a list
                event[target] = self._number(level) or _own(event.get(target))
        return events

    def fill(self, columns: Columns) -> None:
        """The same by column."""
        if self._target in columns.json:
            columns.through(self)
            return
        known, numbers = _KNOWN, []
        for level in columns[self._field]:
            try:
                numbers.append(known[level])
            except (KeyError, TypeError):
                numbers.append(self._number(level))
        columns.add(self._target, numbers, [_JSON[number] for number in numbers])

    def _number(self, level: Any) -> int:
        """The number of what is not simply a known word; 0 where it is not known."""
        if isinstance(level, str):
            word = _COLOUR.sub("", level).strip().lower()
            if word in _WORDS:
                return _WORDS[word]
            level = int(word) if word.isascii() and word.isdigit() and len(word) <= 3 else None
        # Not a boolean, which Python takes for 0 or 1.
        return self._numbers.get(level, 0) if type(level) is int else 0


def _own(number: Any) -> int:
    return number if type(number) is int and 1 <= number <= 24 else 0

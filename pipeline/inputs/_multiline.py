"""Which lines are one record: stack traces and other records of several lines. Decisions only, no I/O.

Whether a line belongs to the record before it depends on the lines of that record alone, never on how the text came
in pieces or where reading began: from the beginning of any record the same records follow.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.inputs.tail import Piece
from pipeline.patterns import finder

DESCRIPTION = (
    "Put lines together into records: `{preset: java}`, `{start: '^\\d{4}-'}` or `{continuation: '^\\s'}`. The lines "
    "keep their newlines in the record, so it is mostly read with `decode: text`."
)

# A preset is a table of states: in a state (the first column) a line that matches one of the patterns goes on the
# record, which is then in the state named; any other line begins the next record. The first line of a record is
# looked up under "first", and puts it into the state "text" where nothing matches. A line of JSON is a record.
_BLANK = r"^\s*$"
_JSON = {r"^\{": "whole"}

_JAVA_ERROR = r"^([a-z_$][\w$]*\.)+[A-Z][\w$.]*(:\s|$)"
_JAVA_FRAME = r"^\s+(at\s|\.\.\. \d+ |- (locked|waiting|parking)|Suppressed: |Caused by: )"
_JAVA_CAUSE = r"^(Caused by: |Wrapped by: |\[CIRCULAR REFERENCE)"
_JAVA = {
    "first": {**_JSON, r"^Exception in thread ": "trace", _JAVA_ERROR: "trace", _JAVA_FRAME: "trace"},
    "text": {_JAVA_ERROR: "trace", _JAVA_FRAME: "trace", _JAVA_CAUSE: "trace"},
    "trace": {r"^\s+\S": "trace", _JAVA_CAUSE: "trace"},
}

_PYTHON_TRACEBACK = r"^\s*(\+ Exception Group )?Traceback \(most recent call last\):"
_PYTHON_CHAIN = r"^(During handling of the above exception, another|The above exception was the direct cause of)"
_PYTHON = {
    "first": {**_JSON, _PYTHON_TRACEBACK: "frames"},
    "text": {_PYTHON_TRACEBACK: "frames"},
    "frames": {r"^\s+\S": "frames", r"^[A-Za-z_][\w.<>]*(: |:?$)": "raised"},
    "raised": {r"^\s+\S": "raised", _BLANK: "gap", _PYTHON_CHAIN: "chained"},
    "gap": {_PYTHON_CHAIN: "chained", r"^\s+\| ": "raised"},
    "chained": {_BLANK: "chained", _PYTHON_TRACEBACK: "frames"},
}

_NODE_ERROR = r"^(Uncaught )?[\w$.]*(Error|Exception)( \[\w+\])?(: |$)"
_NODE_FRAME = r"^\s+at "
_NODE = {
    "first": {**_JSON, _NODE_ERROR: "trace", r"^((file://)?/\S|node:|[A-Za-z]:\\).*:\d+$": "source"},
    "text": {_NODE_ERROR: "trace", _NODE_FRAME: "trace"},
    "source": {"": "code"},
    "code": {r"^\s*\^+\s*$": "caret"},
    "caret": {_BLANK: "caret", _NODE_ERROR: "trace", _NODE_FRAME: "trace"},
    "trace": {r"^\s+\S": "trace", r"^\}": "trace", _BLANK: "end"},
    "end": {r"^Node\.js v\d": "whole"},
}

_GO_ROUTINE = r"^(goroutine \d+ .*\[|runtime stack:)"
_GO = {
    "first": {**_JSON, r"^(panic|fatal error): ": "panic", _GO_ROUTINE: "frames"},
    "text": {_GO_ROUTINE: "frames"},
    "panic": {r"^(\s+\S|panic: |\[)": "panic", _BLANK: "gap", _GO_ROUTINE: "frames"},
    "gap": {_BLANK: "gap", r"^\[signal ": "panic", _GO_ROUTINE: "frames", r"^exit status \d": "whole"},
    "frames": {
        r"^\s+\S": "frames",
        r"^\S+\(.*\)$": "frames",
        r"^(created by |\.\.\.\S* frames elided)": "frames",
        _BLANK: "gap",
        _GO_ROUTINE: "frames",
        r"^exit status \d": "whole",
    },
}

_Preset = Literal["go", "java", "nodejs", "python"]
_PRESETS: dict[_Preset, Mapping[str, Mapping[str, str]]] = {
    "go": _GO,
    "java": _JAVA,
    "nodejs": _NODE,
    "python": _PYTHON,
}


class _State(NamedTuple):
    """What a line does to a record in this state: the state after it, None where it begins another record."""

    patterns: list[str]
    after: list[str | None]
    otherwise: str | None = None


class Multiline(BaseModel, extra="forbid"):
    """How lines become records. A record that reaches a limit ends there, and the next line begins another one."""

    preset: _Preset | None = Field(
        default=None,
        description="Stack traces of this language, with the line that reports them. What else is in the log stays a "
        "record a line.",
    )
    start: str | None = Field(
        default=None, description="A pattern that is found in the first line of every record, like `^\\d{4}-\\d\\d-`."
    )
    continuation: str | None = Field(
        default=None, description="A pattern that is found in every line that belongs to the one before, like `^\\s`."
    )
    flush_seconds: float = Field(
        default=5, gt=0, description="Seconds without another line until a record counts as complete."
    )
    max_lines: int = Field(default=500, ge=2, description="Lines of a record.")
    max_bytes: int = Field(default=1 << 20, ge=1, description="Bytes of a record of several lines.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(each is not None for each in (self.preset, self.start, self.continuation)) != 1:
            raise ValueError("give one of preset, start and continuation")
        for state in self._table().values():
            finder(state.patterns)
        return self

    def _table(self) -> dict[str, _State]:
        if self.preset:
            table = {name: _State([*row], [*row.values()]) for name, row in _PRESETS[self.preset].items()}
            return table | {"first": table["first"]._replace(otherwise="text"), "whole": _State([], [])}
        if self.start is not None:
            text = _State([self.start], [None], "text")
        else:
            text = _State([self.continuation or ""], ["text"])
        return {"first": _State([], [], "text"), "text": text}

    def rules(self) -> Rules:
        """What decides by these options."""
        return Rules(self, self._table())


class Rules:
    """The compiled options of an input, for all its sources."""

    def __init__(self, options: Multiline, table: Mapping[str, _State]) -> None:
        self.options = options
        self._states = {
            name: (finder(state.patterns), [*state.after, state.otherwise]) for name, state in table.items()
        }

    def after(self, state: str, line: bytes) -> str | None:
        """The state of a record after a line; None: the line begins another one."""
        find, after = self._states[state]
        # Patterns are for UTF-8, and their engine relies on it.
        return after[find(line if line.isascii() else line.decode(errors="replace").encode())]


class Joiner:
    """Asked about one line after another: does it go on the record before?"""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._options = rules, rules.options
        self._state: str | None = None
        self._lines = self._bytes = 0
        self.cut = False
        """The record before ended at a limit: the line that was asked about last would have gone on it."""

    def joins(self, line: bytes) -> bool:
        """Whether a line (without its end) goes on the record before it; else it begins one."""
        after = self._rules.after(self._state, line) if self._state else None
        fits = self._lines < self._options.max_lines and self._bytes + len(line) < self._options.max_bytes
        self.cut = after is not None and not fits
        if after is None or self.cut:
            after, self._lines, self._bytes = self._rules.after("first", line), 0, 0
            joined = False
        else:
            joined = True
        self._state = after
        self._lines += 1
        self._bytes += len(line) + 1
        return joined

    def reset(self) -> None:
        """The next line begins a record whatever it is."""
        self._state = None


class Span(NamedTuple):
    """A record in a text: from the beginning of its first line to the end of its last one."""

    start: int
    stop: int
    cut: bool = False
    """It ended at a limit."""


def spans(rules: Rules, data: bytes, start: int, stop: int, breaks: Iterable[int] = ()) -> Iterator[Span]:
    """The records of the lines in `data[start:stop]`; the last one may go on behind `stop`.

    A record begins at `start`, and at each of `breaks` where a line begins.
    """
    joiner, begin, at = Joiner(rules), start, start
    known = frozenset(breaks)
    while at < stop:
        end = data.find(b"\n", at, stop) + 1 or stop
        if at in known:
            joiner.reset()
        if not joiner.joins(line_of(data, at, end)) and begin < at:
            yield Span(begin, at, joiner.cut)
            begin = at
        at = end
    if begin < stop:
        yield Span(begin, stop)


class Group(NamedTuple):
    """Records that go into one batch."""

    spans: list[Span]
    cut: bool = False
    """It is one record that ended at a limit."""
    line: bool = False
    """It is the beginning of a line that is longer than a line may be."""


def grouped(
    rules: Rules, data: bytes, pieces: Sequence[Piece], breaks: Iterable[int], *, complete: bool
) -> tuple[list[Group], int | None]:
    """The records of the lines in these pieces of a text, and where the last one begins if it may go on.

    `complete`: it does not. No record goes beyond a piece, so what lies between two, like a line that is cut, ends one.
    """
    groups: list[Group] = []
    left = None
    for n, piece in enumerate(pieces):
        if piece.cut:
            groups.append(Group([Span(piece.start, piece.stop)], line=True))
            continue
        found = list(spans(rules, data, piece.start, piece.stop, breaks))
        if n == len(pieces) - 1 and not complete:
            left = found.pop().start
        for cut, same in groupby(found, lambda span: span.cut):
            alike = [*same]
            groups += [Group([span], cut=True) for span in alike] if cut else [Group(alike)]
    return groups, left


def with_rest(pieces: Sequence[Piece], end: int, stop: int) -> list[Piece]:
    """The pieces, which go up to `end`, with an unfinished line behind them."""
    if not pieces or pieces[-1].cut or pieces[-1].stop < end:
        return [*pieces, Piece(end, stop)]
    return [*pieces[:-1], Piece(pieces[-1].start, stop)]


def batch_of(data: bytes, begin: int, spans: Iterable[Span]) -> tuple[bytes, array[int], list[int]]:
    """The block of a batch, where its records end, and their places in the text, in which `data` stands at `begin`.

    An empty line that is a record of its own is left out.
    """
    records = [(span.start, record) for span in spans if (record := line_of(data, span.start, span.stop))]
    ends = array("Q", accumulate(len(record) for _, record in records))
    return b"".join(record for _, record in records), ends, [begin + start for start, _ in records]


def line_of(data: bytes, start: int, stop: int) -> bytes:
    """The line, or the record, without its end."""
    return data[start:stop].removesuffix(b"\n").removesuffix(b"\r")


class Assembler:
    """Puts the lines of one source together that come as a stream."""

    def __init__(self, rules: Rules) -> None:
        self._joiner = Joiner(rules)
        self._lines: list[bytes] = []
        self.held = 0
        """Bytes of the record that may go on."""
        self.cut = 0
        """How many records ended at a limit."""

    def add(self, lines: Iterable[bytes]) -> list[bytes]:
        """Take lines without their ends; the records that are complete with them."""
        records = []
        for line in lines:
            if not self._joiner.joins(line):
                records += self._taken()
                self.cut += self._joiner.cut
            self._lines.append(line)
            self.held += len(line) + 1
        return records

    def flush(self) -> list[bytes]:
        """The record that might have gone on, if there is one."""
        self._joiner.reset()
        return self._taken()

    def _taken(self) -> list[bytes]:
        record = b"\n".join(self._lines)
        self._lines.clear()
        self.held = 0
        return [record] if record else []

"""Says which index an event goes to: that of the first rule that holds.

    - route:
        rules:
          - {when: 'category == "security"', index: "aio-security-{day}"}
          - {when: 'severity >= 17', index: "aio-errors-{day}"}
          - {when: 'service in ["api", "auth"]', index: "aio-logs-{service}-{day}"}
        default: "aio-logs-{day}"

`{day}` is the day of `@timestamp` in UTC (2026.11.20), `{service}` the value of a field (`{labels.team}`: one inside).
A record without a usable time goes to `undated` where its index is named by the day: today's index would not be the
same at a replay, which would store it twice. Where another field is missing or is no text, number or boolean, or the
name gets longer than Elasticsearch allows (255 bytes), the record goes to `fallback`.

Values are lower-cased and what no index may have in its name becomes `_`. A name begins with a letter or digit of the
rule's own, so that no value can choose an index outside of its family; whoever may write any value can still make any
number of indices, so list the values in the rule's condition, as above, where clients can't be trusted.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field, field_validator

from pipeline.columns import ByValues, Columns
from pipeline.condition import Condition
from pipeline.contract import INDEX, Event
from pipeline.fields import Template

# Elasticsearch, "Create an index": also lower case, 255 bytes at most, and not beginning with `-`, `_`, `+` or `.`.
_FORBIDDEN = re.compile(r'[\\/*?"<>|,#:\s\x00-\x1f\x7f]')
_LONGEST = 255
_MOST_NAMES = 10_000  # remembered


def _check_template(text: str) -> str:
    """The text itself; raises `ValueError` where it can't name an index."""
    Template(text)
    if not re.match(r"[a-z0-9]", text):
        raise ValueError(f"{text!r} must begin with a lower-case letter or a digit, not with a field or anything else")
    literal = re.sub(r"\{[^{}]*\}", "", text)
    if wrong := _FORBIDDEN.search(literal):
        raise ValueError(f"{text!r}: an index can't have {wrong[0]!r} in its name")
    if literal != literal.lower():
        raise ValueError(f"{text!r}: the name of an index is lower-case")
    if len(literal.encode()) > _LONGEST:
        raise ValueError(f"{text[:40]!r}…: the name of an index has {_LONGEST} bytes at most")
    return text


def _check_name(text: str) -> str:
    if Template(_check_template(text)).names:
        raise ValueError(f"{text!r} must be a name without fields: it is where records without them go")
    return text


class Route:
    """Sets the index of each event."""

    class Options(BaseModel, extra="forbid"):
        """The options of the stage."""

        class Rule(BaseModel, extra="forbid"):
            """A condition and the index of the events for which it holds."""

            when: str = Field(description="A condition over fields, as of a stage's `when`.")
            index: str = Field(description="The index, with fields in braces.")

            @field_validator("when")
            @classmethod
            def _compiles(cls, when: str) -> str:
                Condition(when)
                return when

            _index = field_validator("index")(_check_template)

        rules: list[Rule] = Field(default=[], description="Tried in this order; the first that holds decides.")
        default: str = Field(default="aio-logs-{day}", description="The index where no rule holds.")
        undated: str = Field(
            default="aio-logs-undated", description="Instead of an index named by the day, without a usable time."
        )
        fallback: str = Field(
            default="aio-logs-unrouted",
            description="Where a field of the index's name is missing, or it gets too long.",
        )

        _default = field_validator("default")(_check_template)
        _names = field_validator("undated", "fallback")(_check_name)

    def __init__(self, options: Options) -> None:
        self._rules = [(Condition(rule.when), self._target(rule.index, options)) for rule in options.rules]
        self._default = self._target(options.default, options)
        targets = [self._default, *(target for _, target in self._rules)]
        self.reads = frozenset[str]().union(
            *(condition.fields for condition, _ in self._rules), *(target.fields for target in targets)
        )
        self.adds = frozenset[str]()
        read = frozenset[str]().union(*(condition.fields for condition, _ in self._rules))
        # What the conditions read says which of them holds.
        self._chosen = ByValues(self._choose, read, int)
        self._known: dict[tuple[_Target, str, str], str] = {}

    @staticmethod
    def _target(text: str, options: Options) -> _Target:
        return _Target(Template(text), options.undated, options.fallback)

    def __call__(self, events: list[Event]) -> list[Event]:
        """Set the index of each event."""
        for event in events:
            event[INDEX] = self._chosen.of(event)(event)
        return events

    def fill(self, columns: Columns) -> None:
        """The same by column."""
        chosen, stamps, known = self._chosen(columns), columns["@timestamp"], self._known
        try:
            # A time of the usual form ends with its 24th character: the key has its day and "Z".
            names = [known[target, time[:10], time[23:]] for target, time in zip(chosen, stamps, strict=True)]
        except (KeyError, TypeError):  # TypeError: a time that is no text
            names = [self._named(columns, place, target) for place, target in enumerate(chosen)]
        columns.add(INDEX, names)

    def _named(self, columns: Columns, place: int, target: _Target) -> str:
        """The index of the record at a place, remembered where it is named by nothing but the day."""
        [event] = columns.events(self.reads, [place])
        name = target(event)
        time = event.get("@timestamp")
        if isinstance(time, str) and target.of_day(time) == name:
            if len(self._known) >= _MOST_NAMES:
                self._known.clear()
            self._known[target, time[:10], "Z"] = name
        return name

    def _choose(self, event: Event) -> _Target:
        return next((target for holds, target in self._rules if holds(event)), self._default)


class _Target:
    """An index by template, and where events go that lack what it needs."""

    _day = Template("{day}")

    def __init__(self, template: Template, undated: str, fallback: str) -> None:
        self.fields = template.fields
        self._template, self._undated, self._fallback = template, undated, fallback
        self._dated, self._daily = "day" in template.names, {*template.names} == {"day"}
        self._names: dict[str | None, str] = {}
        self._days: dict[str, str] = {}

    def __call__(self, event: Event) -> str:
        if name := self.of_day(event.get("@timestamp")):
            return name
        if self._dated and self._day(event) is None:
            return self._undated
        text = self._template(event)
        name = self._names.get(text)
        return self._remember(text, event) if name is None else name

    def of_day(self, stamp: Any) -> str | None:
        """The name, where it depends on nothing but a day that is known, and on a time as the timestamp stage writes
        it: 2026-11-20T10:11:12.123Z. None: it takes more.
        """
        usual = stamp.__class__ is str and len(stamp) == 24 and stamp[-1] == "Z"
        return self._days.get(stamp[:10]) if usual else None

    def _remember(self, text: str | None, event: Event) -> str:
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
            self._days.clear()
        name = self._names[text] = self._name(text)
        if self._daily:
            self._days[event["@timestamp"][:10]] = name
        return name

    def _name(self, text: str | None) -> str:
        if text is None:
            return self._fallback
        name = _FORBIDDEN.sub("_", text.lower())
        return name if len(name.encode(errors="replace")) <= _LONGEST else self._fallback

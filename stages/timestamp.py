"""`@timestamp`, in UTC, from the time that a record has in whatever form.

    - timestamp: {field: timestamp}
    - timestamp: {field: [time, date], zone: Europe/Berlin}
    - timestamp: {field: when, formats: [epoch, "%d.%m.%Y %H:%M:%S"]}

The fields are tried in order, then `@timestamp` itself; the first that holds a time counts. It is written as
`2026-11-20T00:00:00.123Z`; finer digits are cut off, never rounded up.

| format | forms |
|---|---|
| `iso8601` | ISO 8601 and RFC 3339, see below |
| `epoch` | seconds, milliseconds, microseconds or nanoseconds since 1970, as a number or in a text |
| `rfc2822` | `Fri, 20 Nov 2026 00:00:00 +0100`, also HTTP's and RFC 850's |
| `apache` | `20/Nov/2026:00:00:00 +0100`: the access logs of Apache and nginx |
| `nginx` | `2026/11/20 00:00:00`: nginx's error log, Go's `log` |
| `asctime` | `Fri Nov 20 00:00:00.123 2026`: Apache's error log, C, `date` |
| `syslog` | `Nov 20 00:00:00`, with or without a year behind the day |

Any other format is one for Python's `strptime`.

- ISO 8601: basic or extended, week and ordinal dates; `T`, blank or `_` before the time; hours, minutes or seconds with
  a fraction after a point or comma, of any length; zone `Z`, `+01`, `+0100`, `+01:00`, ` UTC`; small letters. A date
  alone is its midnight, 24:00 that of the next day, and second 60 (in the last minute of a day in UTC) the last
  millisecond of its day.
- The units of `epoch` are told apart by size, which works from March 1973 on; a smaller number is no time.
- Where a time has no zone, `zone` counts; an hour that the clocks repeat in autumn is taken for its first round.
- Where it has no year, the latest is taken in which it is no more than 30 days after the time under `reference`:
  `event.created` with the inputs tcp, udp and kafka, `file.mtime` with file (if these are told to add it). Without that
  it is wrong: a replay must not depend on the day of the replay.

A time that can't be read, or is not in the years 1970 to 2100, is wrong: the record is tagged `_bad_timestamp`, also
where a later field has a time. Where all fields are missing (or null), it is tagged `_no_timestamp`. `@timestamp` is
then not invented: a wrong one moves to `timestamp_original`, and `route` sends the record to its undated index.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, BaseModel, Field, model_validator

from pipeline.columns import MISSING, Columns
from pipeline.contract import Event
from pipeline.fields import getter, tag, tops
from pipeline.times import FIRST, FORMATS, LAST, Times, check_format, epoch

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_USUAL = b"0000-00-00T00:00:00.000Z"


def _checked(text: str) -> str:
    if text not in FORMATS:
        check_format(text)
    return text


class Timestamp:
    """Sets `@timestamp` from the time that a record has."""

    class Options(BaseModel, extra="forbid"):
        """Where the time is and how it is written."""

        field: str | list[str] = Field(
            default=["@timestamp", "timestamp", "time", "ts"],
            min_length=1,
            description="Where the time is; of several fields, the first that holds one counts.",
        )
        target: str = Field(
            default="@timestamp", pattern=r"^(@timestamp|[^.@]+)$", description="The top-level field to set."
        )
        formats: list[Annotated[str, AfterValidator(_checked)]] = Field(
            default=[*FORMATS], min_length=1, description="The formats to try, in order."
        )
        zone: str = Field(default="UTC", description="The zone of times that name none, as in `Europe/Berlin`.")
        reference: str | None = Field(
            default=None, description="A field with the time of arrival or of the file, for times without a year."
        )

        @model_validator(mode="after")
        def _known_zone(self) -> Self:
            Times(self.formats, self.zone)
            return self

    def __init__(self, options: Options) -> None:
        fields = [options.field] if isinstance(options.field, str) else options.field
        self._target, self._original = options.target, f"{options.target.removeprefix('@')}_original"
        self._first = fields[0]
        self._getters = [getter(path) for path in dict.fromkeys([*fields, options.target])]
        self._read = Times(options.formats, options.zone)
        # Whether a canonical text is a time as it stands: no format of the user's could read it otherwise.
        before = options.formats[: options.formats.index("iso8601")] if "iso8601" in options.formats else ["%"]
        self._canonical = all(text in FORMATS for text in before)
        self._numbers = "epoch" in options.formats
        self._reference = getter(options.reference) if options.reference else None
        self.adds = frozenset({self._target, self._original, "tags"})
        self.reads = self.adds.union(*map(tops, fields), tops(options.reference) if options.reference else ())

    def __call__(self, events: list[Event]) -> list[Event]:
        """Set the target in every event, or tag it."""
        times = self._at_once([*map(self._getters[0], events)])
        for event, time in zip(events, times, strict=True):
            if time:
                event[self._target] = time
            else:
                self._date(event)
        return events

    def fill(self, columns: Columns) -> None:
        """The same by column."""
        if self._target in columns.json:
            columns.through(self)
            return
        times = self._at_once(columns[self._first])
        others = [place for place, time in enumerate(times) if not time]
        if others:
            columns.add(self._target, [time or MISSING for time in times])
            columns.through(self, others)
        else:
            # Neither quotation marks nor commas are in the times themselves.
            columns.add(self._target, times, orjson.dumps(times)[1:-1].split(b",") if times else [])

    def _at_once(self, values: Sequence[Any]) -> list[str | None]:
        """The time of each value that is a text of the usual form or a number, None where it takes a closer look."""
        usual = self._canonical and _usual([value for value in values if value.__class__ is str])
        alone, numbers = self._canonical, self._numbers
        return [
            (value if usual or (alone and _usual([value])) else None)
            if value.__class__ is str
            else (epoch(value) if value.__class__ is int and numbers else None)
            for value in values
        ]

    def _date(self, event: Event) -> None:
        """Set the target from the first field that holds a time."""
        wrong = False
        for get in self._getters:
            value = get(event)
            if value is None:
                continue
            if time := self._read(value, self._near(event)):
                event[self._target] = time
                break
            wrong = True
        else:
            if (own := event.pop(self._target, None)) is not None:
                event[self._original] = own
        if wrong or self._target not in event:
            tag(event, "_bad_timestamp" if wrong else "_no_timestamp")

    def _near(self, event: Event) -> datetime | None:
        """The time for those without a year."""
        time = self._read(self._reference(event)) if self._reference else None
        return datetime.fromisoformat(time) if time else None


def _usual(texts: list[str]) -> bool:
    """Whether all texts are times as this stage writes them. A look at each by itself costs more."""
    form = "\n".join(texts).encode(errors="replace").translate(_ZEROS)
    if form != b"\n".join([_USUAL] * len(texts)):
        return False
    try:
        # Up to the tens of seconds, of which a slice has few.
        times = [datetime.fromisoformat(f"{start}0") for start in {text[:18] for text in texts}]
    except ValueError:
        return False
    return all(FIRST <= time.year <= LAST for time in times)

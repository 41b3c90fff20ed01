"""Times in the forms that logs have them → `2026-11-20T00:00:00.123Z`: a helper for authors of stages.

Sources: ISO 8601:2004 and RFC 3339; RFC 2822 sections 3.3 and 4.3 (zone names, years of two digits), RFC 850 and
RFC 9110 section 5.6.7 (HTTP's dates); Apache's `mod_log_config` and `ErrorLogFormat`; RFC 3164 section 4.1.2 (syslog).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_ZONES = {"z": 0, "utc": 0, "gmt": 0, "ut": 0}
# The only other names that RFC 2822 gives a meaning.
_ZONES |= {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}

_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +)?"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?"
_OFFSET = r"[+\-\u2212]\d\d(?::?\d\d)?"
_ISO = (
    r"(?P<year>\d{4})(?:-?W(?P<week>\d\d)-?(?P<weekday>\d)|-?(?P<ordinal>\d{3})|-?(?P<month>\d\d)-?(?P<day>\d\d))"
    r"(?:[T _]+(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d))?)?(?:[.,](?P<fraction>\d+))?"
    rf" ?(?P<zone>Z|UTC|GMT|{_OFFSET})?)?"
)
_RFC2822 = (
    rf"{_WEEKDAY}(?P<day>\d\d?)[ -]{_MONTH}[ -](?P<year>\d\d(?:\d\d)?) (?P<hour>\d\d):(?P<minute>\d\d)"
    rf"(?::(?P<second>\d\d))?(?: (?P<zone>{_OFFSET}|[a-z]{{1,3}})(?: \([^()]*\))?)?"
)
_PATTERNS = {
    "iso8601": _ISO,
    "rfc2822": _RFC2822,
    "apache": rf"\[?(?P<day>\d\d)/{_MONTH}/(?P<year>\d{{4}}):{_CLOCK} (?P<zone>{_OFFSET})\]?",
    "nginx": rf"(?P<year>\d{{4}})/(?P<month>\d\d)/(?P<day>\d\d) {_CLOCK}",
    "asctime": rf"\[?{_WEEKDAY}{_MONTH} +(?P<day>\d\d?) {_CLOCK}(?: (?P<zone>[a-z]{{1,3}}))? (?P<year>\d{{4}})\]?",
    "syslog": rf"{_MONTH} +(?P<day>\d\d?)(?: (?P<year>\d{{4}}))? {_CLOCK}",
}
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)

FORMATS = ("iso8601", "epoch", "rfc2822", "apache", "nginx", "asctime", "syslog")
"""The names of the built-in formats, in the order in which they are tried."""

# What Python's own reader is right about; it takes 10.5 for half a second past ten, and +01:60 for an offset.
_USUAL = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?[0-5]\d)?", re.ASCII)

LONGEST = 128
"""Characters of a text that may be a time."""

FIRST, LAST = 1970, 2100
"""The years that a time may have: another one is a wrong clock, a wrong unit or another field."""

_END = int(datetime(LAST + 1, 1, 1, tzinfo=UTC).timestamp()) * 1000

AHEAD = timedelta(days=30)
"""A time without a year is one before it was received or its file was last written, up to eleven months: quiet logs
are kept that long. So much may the clock that wrote it be ahead."""

_Find = Callable[[str, datetime | None], datetime | None]
"""Finds the time in a text that has the format; None or a `ValueError` for another text."""


class Times:
    """Reads times in some formats: names out of `FORMATS`, or formats of `strptime`. `zone` is for those without one.

    Raises `ValueError` for an unknown format or zone.
    """

    def __init__(self, formats: Sequence[str] = FORMATS, zone: str = "UTC") -> None:
        self._zone = _zone(zone)
        self._numbers = "epoch" in formats
        self._finds = [self._find(text) for text in formats]

    def __call__(self, value: Any, near: datetime | None = None) -> str | None:
        """The time in UTC, cut off at the millisecond; None for what is no time.

        `near` decides about the year of one that has none; without it, that is no time.
        """
        if isinstance(value, str):
            return self._text(value.strip(), near)
        if type(value) is float and value < 10**20:  # neither infinite nor NaN
            value = Decimal(repr(value))  # its shortest digits: a product of floats may be a millisecond less
        elif type(value) is not int:  # a boolean neither
            return None
        return epoch(value) if self._numbers else None

    def _text(self, text: str, near: datetime | None) -> str | None:
        if len(text) > LONGEST:
            return None
        for find in self._finds:
            try:
                moment = find(text, near)
            except (ValueError, OverflowError):
                continue
            if moment and FIRST <= moment.year <= LAST:
                return written(moment)
        return None

    def _find(self, text: str) -> _Find:
        if text == "epoch":
            return _find_epoch
        if text not in _PATTERNS:
            return self._find_custom(text)
        find = self._find_pattern(re.compile(_PATTERNS[text], re.ASCII | re.IGNORECASE))
        return self._find_iso(find) if text == "iso8601" else find

    def _find_iso(self, otherwise: _Find) -> _Find:
        """Python reads the usual forms, many times faster."""

        def find(text: str, near: datetime | None) -> datetime | None:
            if not _USUAL.fullmatch(text):
                return otherwise(text, near)
            try:
                return self._placed(datetime.fromisoformat(text))
            except ValueError:
                return otherwise(text, near)

        return find

    def _placed(self, moment: datetime) -> datetime:
        return (moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).astimezone(UTC)

    def _find_pattern(self, pattern: re.Pattern[str]) -> _Find:
        def find(text: str, near: datetime | None) -> datetime | None:
            match = pattern.fullmatch(text)
            if match is None:
                return None
            found = {name: part.lower() for name, part in match.groupdict().items() if part is not None}
            zone = _offset(found["zone"]) if "zone" in found else self._zone
            if "year" in found:
                return _moment(found, _year(found["year"]), zone)
            return _latest(lambda year: _moment(found, year, zone), near)

        return find

    def _find_custom(self, text: str) -> _Find:
        dated = check_format(text)

        def moment(value: str, pattern: str) -> datetime:
            return self._placed(datetime.strptime(value, pattern))  # noqa: DTZ007 - it gets its zone here

        def find(value: str, near: datetime | None) -> datetime:
            if dated:
                return moment(value, text)
            return _latest(lambda year: moment(f"{year} {value}", f"%Y {text}"), near)

        return find


def check_format(text: str) -> bool:
    """Whether a format for `strptime` has a year; raises `ValueError` where it is none or has no day."""
    if "%" not in text:
        raise ValueError(f"unknown format {text!r}; there is {', '.join(FORMATS)}, or one as '%d.%m.%Y %H:%M:%S'")
    day = datetime(2026, 11, 20, tzinfo=UTC)
    parsed = datetime.strptime(day.strftime(text), text)  # noqa: DTZ007 - only its day matters
    if (parsed.month, parsed.day) != (day.month, day.day):
        raise ValueError(f"{text!r} has no day")
    return parsed.year == day.year


def written(moment: datetime) -> str:
    """A time in UTC as `2026-11-20T00:00:00.123Z`; what is finer is cut off, lest it become the next day."""
    return f"{moment.isoformat(timespec='milliseconds')[:23]}Z"


def epoch(number: int | Decimal) -> str | None:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970 → text; None for what is none of them.

    From 1973 on, their sizes tell them apart. What is smaller is an uptime, or a 0 for want of a time.
    """
    if number < 10**8:
        return None
    if number < 10**11:
        milliseconds = int(number * 1000)
    elif number < 10**14:
        milliseconds = int(number)
    else:
        milliseconds = int(number // (1000 if number < 10**17 else 10**6))
    if milliseconds >= _END:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_minute(seconds // 60)}{seconds % 60:02d}.{rest:03d}Z"


@lru_cache(1024)
def _minute(number: int) -> str:
    return datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:")


def _find_epoch(text: str, _: datetime | None) -> datetime | None:
    found = epoch(Decimal(text)) if _NUMBER.fullmatch(text) else None
    return datetime.fromisoformat(found) if found else None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # without the system's time zones, which a small container lacks
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {name!r}; names are like 'Europe/Berlin'") from error


def _offset(text: str) -> tzinfo:
    """The zone `z`, `+01`, `+0100`, `+01:00` or a name in small letters."""
    if text[0].isalpha():
        if text not in _ZONES:
            raise ValueError(f"unknown zone {text}")
        return timezone(timedelta(hours=_ZONES[text]))
    minutes = int(text[3:].removeprefix(":") or 0)
    if minutes > 59:
        raise ValueError(f"no such zone: {text}")
    offset = timedelta(hours=int(text[1:3]), minutes=minutes)
    return timezone(offset if text[0] == "+" else -offset)


def _year(text: str) -> int:
    number = int(text)
    if len(text) == 4:
        return number
    return number + (2000 if number < 50 else 1900)


def _latest(moment: Callable[[int], datetime], near: datetime | None) -> datetime:
    """The moment in the latest year in which it is not `AHEAD` of the other time."""
    if near is None:
        raise ValueError("no year")
    for year in (near.year + 1, near.year, near.year - 1):
        with suppress(ValueError):  # the 29th of February
            if (found := moment(year)) <= near + AHEAD:
                return found
    raise ValueError("no such day near that time")


def _moment(found: dict[str, str], year: int, zone: tzinfo) -> datetime:
    """The time of the named parts, in UTC."""
    day = _date(found, year)
    hour, minute, second = (int(found.get(name, 0)) for name in ("hour", "minute", "second"))
    unit = 1 if "second" in found else 60 if "minute" in found else 3600
    digits = found.get("fraction", "0")[:9]
    fraction = timedelta(microseconds=unit * 10**6 * int(digits) // 10 ** len(digits))
    if (hour, minute, second, fraction) == (24, 0, 0, timedelta(0)):
        day, hour = day + timedelta(days=1), 0
    leap = second == 60
    local = datetime(day.year, day.month, day.day, hour, minute, 59 if leap else second, tzinfo=zone) + fraction
    moment = local.astimezone(UTC)
    if not leap:
        return moment
    if (moment.hour, moment.minute) != (23, 59):
        raise ValueError("a leap second is the last one of a day in UTC")
    return moment.replace(microsecond=999999)


def _date(found: dict[str, str], year: int) -> date:
    if "week" in found:
        return date.fromisocalendar(year, int(found["week"]), int(found["weekday"]))
    if "ordinal" in found:
        day = date(year, 1, 1) + timedelta(days=int(found["ordinal"]) - 1)
        if day.year != year:
            raise ValueError(f"{year} has no day {found['ordinal']}")
        return day
    month = found["month"]
    return date(year, _MONTHS.index(month) + 1 if month in _MONTHS else int(month), int(found["day"]))

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.times import FORMATS, LONGEST, Times, check_format, epoch, written

read = Times()

MIDNIGHT = "2026-11-20T00:00:00.000Z"
HALF = "2026-11-20T10:30:00.000Z"

GOOD = [
    # ISO 8601 and RFC 3339
    ("2026-11-20T00:00:00.123Z", "2026-11-20T00:00:00.123Z"),
    ("2026-11-20T00:00:00Z", MIDNIGHT),
    ("2026-11-20t00:00:00z", MIDNIGHT),
    ("2026-11-20 00:00:00Z", MIDNIGHT),
    ("2026-11-20_00:00:00Z", MIDNIGHT),
    ("2026-11-20   00:00:00", MIDNIGHT),
    ("  2026-11-20T00:00:00Z\n", MIDNIGHT),
    ("2026-11-20T00:00:00", MIDNIGHT),
    ("2026-11-20T00:00:00+00:00", MIDNIGHT),
    ("2026-11-20T00:00:00-00:00", MIDNIGHT),
    ("2026-11-20T01:00:00+01", MIDNIGHT),
    ("2026-11-20T01:00:00+0100", MIDNIGHT),
    ("2026-11-20T01:00:00 +01:00", MIDNIGHT),
    ("2026-11-19T18:30:00-05:30", MIDNIGHT),
    ("2026-11-19T19:00:00\u22120500", MIDNIGHT),
    ("2026-11-20 00:00:00 UTC", MIDNIGHT),
    ("2026-11-20 00:00:00 gmt", MIDNIGHT),
    ("20261120T000000Z", MIDNIGHT),
    ("20261120T0000Z", MIDNIGHT),
    ("2026-11-20T00Z", MIDNIGHT),
    ("2026-11-20", MIDNIGHT),
    ("20261120", MIDNIGHT),
    ("2026-W47-5T00:00:00Z", MIDNIGHT),
    ("2026W475", MIDNIGHT),
    ("2026-324T00:00:00Z", MIDNIGHT),
    ("2026324", MIDNIGHT),
    ("2024-366", "2024-12-31T00:00:00.000Z"),
    ("2026-11-20T00:00:00,123Z", "2026-11-20T00:00:00.123Z"),
    ("2026-11-20 00:00:00,123", "2026-11-20T00:00:00.123Z"),
    ("20261120T000000.5Z", "2026-11-20T00:00:00.500Z"),
    ("2026-11-20T00:00:00.123456789Z", "2026-11-20T00:00:00.123Z"),
    ("2026-11-20T00:00:00." + "9" * 90, "2026-11-20T00:00:00.999Z"),
    ("2026-11-20T23:59:59.999999Z", "2026-11-20T23:59:59.999Z"),
    ("2026-11-20T10:30.0Z", HALF),
    ("2026-11-20T10.5Z", HALF),
    ("2026-11-20T10:29.99999Z", "2026-11-20T10:29:59.999Z"),
    ("2026-11-19T24:00:00Z", MIDNIGHT),
    ("2026-11-19T24:00Z", MIDNIGHT),
    ("2026-11-19T24:00:00.000Z", MIDNIGHT),
    ("2026-12-31T24:00:00", "2027-01-01T00:00:00.000Z"),
    ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999Z"),
    ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:59.999Z"),
    ("2017-01-01T05:29:60+05:30", "2016-12-31T23:59:59.999Z"),
    ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ("2100-12-31T23:59:59.999Z", "2100-12-31T23:59:59.999Z"),
    # epoch
    (1795132800, MIDNIGHT),
    (1795132800123, "2026-11-20T00:00:00.123Z"),
    (1795132800123999, "2026-11-20T00:00:00.123Z"),
    (1795132800123999999, "2026-11-20T00:00:00.123Z"),
    (1795132800.123, "2026-11-20T00:00:00.123Z"),
    (1700000000.123, "2023-11-14T22:13:20.123Z"),
    (1795132800123.999, "2026-11-20T00:00:00.123Z"),
    ("1795132800", MIDNIGHT),
    ("1795132800.123999", "2026-11-20T00:00:00.123Z"),
    ("1795132800123", "2026-11-20T00:00:00.123Z"),
    (10**8, "1973-03-03T09:46:40.000Z"),
    (10**11, "1973-03-03T09:46:40.000Z"),
    (10**14, "1973-03-03T09:46:40.000Z"),
    (10**17, "1973-03-03T09:46:40.000Z"),
    (4133980799, "2100-12-31T23:59:59.000Z"),
    # RFC 2822, HTTP, RFC 850
    ("Fri, 20 Nov 2026 00:00:00 +0000", MIDNIGHT),
    ("Fri, 20 Nov 2026 01:00 +0100 (CET)", MIDNIGHT),
    ("20 nov 2026 00:00:00 GMT", MIDNIGHT),
    ("20 Nov 26 00:00:00 UT", MIDNIGHT),
    ("19 Nov 2026 16:00:00 PST", MIDNIGHT),
    ("Friday, 20-Nov-26 00:00:00 GMT", MIDNIGHT),
    ("5 Nov 99 00:00:00", "1999-11-05T00:00:00.000Z"),
    # Apache, nginx, C
    ("20/Nov/2026:01:00:00 +0100", MIDNIGHT),
    ("[20/Nov/2026:00:00:00 +0000]", MIDNIGHT),
    ("2026/11/20 00:00:00", MIDNIGHT),
    ("2026/11/20 00:00:00.123456", "2026-11-20T00:00:00.123Z"),
    ("[Fri Nov 20 00:00:00.123456 2026]", "2026-11-20T00:00:00.123Z"),
    ("Thu Nov  5 00:00:00 2026", "2026-11-05T00:00:00.000Z"),
    ("Fri Nov 20 00:00:00 UTC 2026", MIDNIGHT),
    # syslog
    ("Nov 20 2026 00:00:00", MIDNIGHT),
    ("Nov  5 2026 00:00:00.5", "2026-11-05T00:00:00.500Z"),
]

BAD = [
    "",
    "nonsense",
    "2026-13-40T99:00:00.000Z",
    "2026-13-01T00:00:00.000Z",
    "2026-02-30T00:00:00.000Z",
    "2026-11-20T24:00:01Z",
    "2026-11-20T24:00:00.001Z",
    "2026-11-20T25:00:00Z",
    "2026-11-20T00:60:00Z",
    "2026-11-20T00:00:61Z",
    "2026-11-20T00:00:60Z",
    "2026-12-31T23:59:60+01:00",
    "2026-11-20T00:00:00+24:00",
    "2026-11-20T00:00:00+01:60",
    "2026-11-20T00:00:00X",
    "2026-11-20x00:00:00Z",
    "2026-11-20T",
    "2026-W54-1",
    "2026-W47-8",
    "2026-366",
    "2026-000",
    "2026-11",
    "2026",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:00:00-05:00",
    "1969-12-31T23:59:59.999Z",
    "2101-01-01T00:00:00.000Z",
    "2100-12-31T23:59:59-01:00",
    "٢٠٢٦-11-20T00:00:00Z",
    "Nov 20 00:00:00",
    "Fri, 20 Nov 2026 00:00:00 XYZ",
    "31 Nov 2026 00:00:00 GMT",
    "31/Nov/2026:00:00:00 +0000",
    "0",
    "12345678901234567890",
    "1e10",
    "-1795132800",
    "1795132800 ms",
    " " * LONGEST + "2026-11-20T00:00:00Z" + "0" * LONGEST,
    0,
    5,
    -1795132800,
    99999999,
    99999999.9,
    4133980800,
    99999999999,
    10**19,
    10**30,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    None,
    [1795132800],
    {"seconds": 1795132800},
]


@pytest.mark.parametrize(("value", "time"), GOOD)
def test_a_time_is_read_in_every_form(value, time):
    assert read(value) == time


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_time_is_none(value):
    assert read(value) is None


def test_a_time_without_a_zone_is_in_the_one_that_is_given():
    berlin = Times(zone="Europe/Berlin")
    assert berlin("2026-11-20 01:00:00") == MIDNIGHT
    assert berlin("2026/07/20 02:00:00") == "2026-07-20T00:00:00.000Z"
    assert berlin("2026-11-20T00:00:00Z") == MIDNIGHT
    assert berlin("20 Nov 2026 01:00") == MIDNIGHT
    # The clocks go back at 3 o'clock: half past two comes twice, and the first round is in summer time.
    assert berlin("2026-10-25 02:30:00") == "2026-10-25T00:30:00.000Z"


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../../etc/passwd", "/etc/passwd", "Europe"])
def test_an_unknown_zone_is_an_error(zone):
    with pytest.raises(ValueError, match="unknown time zone"):
        Times(zone=zone)


@pytest.mark.parametrize(
    ("near", "text", "time"),
    [
        ("2026-11-20", "Nov 20 00:00:00", MIDNIGHT),
        ("2027-01-02", "Dec 31 23:59:59", "2026-12-31T23:59:59.000Z"),
        ("2026-12-31", "Jan  1 00:00:00", "2027-01-01T00:00:00.000Z"),
        ("2026-11-20", "Dec 20 00:00:00", "2026-12-20T00:00:00.000Z"),
        ("2026-11-20", "Dec 20 00:00:01", "2025-12-20T00:00:01.000Z"),
        ("2026-11-20", "Feb  1 00:00:00", "2026-02-01T00:00:00.000Z"),
        ("2024-07-01", "Feb 29 12:00:00", "2024-02-29T12:00:00.000Z"),
        ("2025-01-01", "Feb 29 12:00:00", "2024-02-29T12:00:00.000Z"),
        ("2026-07-01", "Feb 29 12:00:00", None),
        ("2026-07-01", "Nov 31 12:00:00", None),
    ],
)
def test_a_time_without_a_year_gets_the_latest_in_which_it_is_at_most_30_days_ahead(near, text, time):
    assert read(text, datetime.fromisoformat(near).replace(tzinfo=UTC)) == time


@pytest.mark.parametrize(
    ("text", "value", "time"),
    [
        ("%d.%m.%Y %H:%M:%S", "20.11.2026 00:00:00", MIDNIGHT),
        ("%d.%m.%Y %H:%M:%S,%f", "20.11.2026 00:00:00,123456", "2026-11-20T00:00:00.123Z"),
        ("%Y%m%d%H%M%S%z", "20261120010000+0100", MIDNIGHT),
        ("%d.%m.%Y", "20.11.2026", MIDNIGHT),
        ("%d.%m.%Y", "20.13.2026", None),
        ("%d.%m.%Y", MIDNIGHT, None),
        ("%m-%d %H:%M", "11-20 00:00", MIDNIGHT),
        ("%m-%d %H:%M", "02-29 00:00", None),
    ],
)
def test_a_format_of_ones_own_is_read_and_no_other(text, value, time):
    assert Times([text])(value, datetime(2026, 12, 1, tzinfo=UTC)) == time


def test_a_format_without_a_year_needs_a_time_nearby():
    assert Times(["%m-%d %H:%M"])("11-20 00:00") is None


def test_only_the_formats_that_are_given_are_read():
    assert Times(["iso8601"])(1795132800) is None
    assert Times(["iso8601"])("1795132800") is None
    assert Times(["epoch"])(MIDNIGHT) is None
    assert Times(["epoch"])(1795132800) == MIDNIGHT
    assert Times(["%d.%m.%Y", "epoch"])("1795132800") == MIDNIGHT


@pytest.mark.parametrize("text", ["iso", "", "%q", "%H:%M", "%", "%Y", "%Y-%j-%"])
def test_a_format_that_is_none_or_has_no_day_is_an_error(text):
    with pytest.raises(ValueError):
        check_format(text)


def test_a_format_is_known_to_have_a_year_or_not():
    assert check_format("%d.%m.%y") is True
    assert check_format("%H:%M %G-W%V-%u") is True
    assert check_format("%b %d %H:%M %%Y") is False


CANONICAL = re.compile(r"(?:19[7-9]\d|20\d\d|2100)-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MOMENTS = st.datetimes(datetime(1974, 1, 1), datetime(2100, 12, 30), timezones=st.timezones())  # noqa: DTZ001


@given(
    st.text(alphabet="0123456789-:.,TZ+ WNovFri/[]", max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.{0,9}")
)
def test_any_text_is_a_canonical_time_or_none(text):
    time = read(text)
    assert time is None or (CANONICAL.fullmatch(time) and read(time) == time)


@given(MOMENTS)
def test_pythons_own_text_of_a_time_is_read_as_that_time(moment):
    # Historical zones have offsets with seconds, which ISO 8601 lacks.
    moment = moment.astimezone(UTC)
    assert read(moment.isoformat()) == written(moment)
    assert read(moment.strftime("%Y%m%dT%H%M%S.%fZ")) == written(moment)
    assert read(moment.strftime("%G-W%V-%uT%H:%M:%S.%f")) == written(moment)
    assert read(moment.strftime("%Y-%jT%H:%M:%S.%f")) == written(moment)


@given(st.integers(10**11, 4133980799999), st.sampled_from([1, 1000, 10**6]), st.integers(0, 999))
def test_the_units_of_a_number_are_told_apart_by_size(milliseconds, unit, finer):
    time = written(datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000))
    assert epoch(milliseconds * unit + min(finer, unit - 1)) == time
    assert epoch(Decimal(milliseconds) / 1000) == time
    assert read(milliseconds / 1000) == time
    assert read(f"{milliseconds // 1000}.{milliseconds % 1000:03d}{finer:03d}") == time


def test_the_formats_are_all_that_there_is():
    assert all(Times([name]) for name in FORMATS)
    with pytest.raises(ValueError, match="unknown format 'xml'; there is iso8601, epoch,"):
        Times(["xml"])

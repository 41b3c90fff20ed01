"""Where an IP address is, from a GeoIP database (`.mmdb`): MaxMind's, DB-IP's or ip-location-db's.

    - geoip: {field: clientIp, database: /usr/share/GeoIP/GeoLite2-City.mmdb}
    - geoip:
        field: source.ip
        target: source.geo
        database: /usr/share/GeoIP/GeoLite2-City.mmdb
        asn: /usr/share/GeoIP/GeoLite2-ASN.mmdb
        properties: [country_iso_code, city_name, location, timezone]

The target gets what the database knows of the properties wanted, under ECS names; `asn` gives `as` beside it, with
`number` and `organization.name`. An address may have a port, brackets or a zone (`[2001:db8::1%eth0]:443`); of a list,
as in X-Forwarded-For, the first address that is known counts. Private, invalid and unknown addresses and missing fields
are no error: nothing is added.

A database that is replaced (by renaming the new one over it) is taken up while running; one that can't be read then
leaves the old one in use. One that is missing or broken at start is an error; an old one is a warning and shows in the
metric `geoip_database_age_seconds`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import reduce
from math import floor
from operator import getitem
from pathlib import Path
from typing import Any, Literal

import maxminddb
import orjson
from pydantic import BaseModel, Field

from pipeline.columns import Columns
from pipeline.contract import Event, Unusable
from pipeline.fields import getter, put, tops

Property = Literal[
    "country_iso_code",
    "city_name",
    "location",
    "continent_code",
    "country_name",
    "region_name",
    "region_iso_code",
    "postal_code",
    "timezone",
]

# An address with what may stand around it: brackets, a port, a zone; `::ffff:` before one of IPv4.
_ADDRESS = re.compile(
    r"\s*(?:(?:::ffff:)?([0-9]+(?:\.[0-9]+){3})(?::[0-9]+)?|\[?([0-9a-f:.]+)(?:%[^]\s]*)?(?:\](?::[0-9]+)?)?)\s*",
    re.IGNORECASE,
)
_LONGEST_TEXT = 512


class Geoip:
    """Adds the place of an address."""

    class Options(BaseModel, extra="forbid"):
        """The options of the stage."""

        field: str = Field(default="clientIp", min_length=1, description="The field with the address.")
        target: str = Field(default="geo", min_length=1, description="The field that gets the place.")
        database: Path = Field(description="The path of a City or Country database.")
        asn: Path | None = Field(default=None, description="The path of an ASN database; its `as` stands beside `geo`.")
        properties: list[Property] = Field(
            default=["country_iso_code", "city_name", "location"], description="What to take over, by its ECS name."
        )
        cache: int = Field(default=65536, ge=1, description="How many addresses are remembered.")
        warn_after_days: float = Field(default=30, gt=0, description="From which age on a database is called old.")

    def __init__(self, options: Options) -> None:
        self._field, self._target = options.field, options.target
        self._get = getter(options.field)
        self._properties = [(str(name), _PROPERTIES[name]) for name in options.properties]
        self._city, self._asn = _Database(options.database), _Database(options.asn) if options.asn else None
        # Beside `source.geo` stands `source.as`.
        self._asn_target = ".".join([*options.target.split(".")[:-1], "as"])
        self._most = options.cache
        self._places, self._systems = _Known(self._look_up), dict[Any, bytes]()
        self.warnings = [
            f"the GeoIP database {database.path} is {database.age() / 86400:.0f} days old: get a newer one"
            for database in self._databases()
            if database.age() > options.warn_after_days * 86400
        ]
        targets = [options.target, self._asn_target] if self._asn else [options.target]
        if not any("." in target for target in targets):
            # Only fields at the top can be added to a record's own bytes.
            self.reads, self.adds = tops(options.field), frozenset(targets)

    def _databases(self) -> list[_Database]:
        return [self._city, self._asn] if self._asn else [self._city]

    def __call__(self, events: list[Event]) -> list[Event]:
        """Add the place to the events that have an address of which one is known."""
        self._make_room()
        for event in events:
            address = self._get(event)
            if address.__class__ is not str:
                continue
            # Each event has its own objects: later stages may change them.
            if place := self._places[address]:
                put(event, self._target, orjson.loads(place))
            if system := self._systems.get(address):
                put(event, self._asn_target, orjson.loads(system))
        return events

    def fill(self, columns: Columns) -> None:
        """The same by column."""
        self._make_room()
        column = columns[self._field]
        try:
            places = [*map(self._places.__getitem__, column)]
        except TypeError:  # an object or an array among them
            column = [address if address.__class__ is str else None for address in column]
            places = [*map(self._places.__getitem__, column)]
        columns.add(self._target, None, places)
        if self._asn:
            columns.add(self._asn_target, None, [self._systems.get(address, b"") for address in column])

    def _make_room(self) -> None:
        """Forget all addresses once there are too many: between calls, so that each call finds all that it needs."""
        if len(self._places) >= self._most:
            self._forget()

    def _forget(self) -> None:
        self._places.clear()
        self._systems.clear()

    def _look_up(self, text: Any) -> bytes:
        """The JSON of the place, empty where it is unknown; that of the system is among `_systems` then."""
        if text.__class__ is not str or len(text) > _LONGEST_TEXT:
            return b""
        place = system = b""
        for part in text.split(","):
            if match := _ADDRESS.fullmatch(part):
                place, system = self._place(match[1] or match[2])
                if place or system:
                    break
        self._places[text] = place
        if system:
            self._systems[text] = system
        return place

    def _place(self, address: str) -> tuple[bytes, bytes]:
        """The JSON of the place and that of the system, empty where they are unknown."""
        record = self._city.get(address)
        geo = {name: value for name, find in self._properties if (value := find(record))} if record else None
        system = _system(self._asn.get(address)) if self._asn else None
        # orjson's own bytes keep the kilobyte or more that they were written into.
        return b"%b" % orjson.dumps(geo) if geo else b"", b"%b" % orjson.dumps(system) if system else b""

    def refresh(self) -> None:
        """Take up a database that was replaced; where the new one can't be read, the old one stays in use."""
        renewed = [database.refresh() for database in self._databases()]
        if any(renewed):
            self._forget()

    def gauges(self) -> dict[str, float]:
        """The age of the older database."""
        return {"geoip_database_age_seconds": max(database.age() for database in self._databases())}


class _Known(dict[Any, bytes]):
    """JSON by address; where it is not known, it is looked up."""

    def __init__(self, look_up: Callable[[Any], bytes]) -> None:
        self._look_up = look_up

    def __missing__(self, address: Any) -> bytes:
        return self._look_up(address)


class _Database:
    """A database file, opened anew when it is another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._version = _version(path)
            self._reader = _open(path)
        except FileNotFoundError as error:
            raise Unusable(f"there is no GeoIP database {path}: put one there, or correct the stage's path") from error
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise Unusable(
                f"the GeoIP database {path} can't be read: {error}; replace it with an intact one"
            ) from error
        self._built = self._reader.metadata().build_epoch

    def get(self, address: str) -> dict[str, Any]:
        """The record of an address, empty where there is none or the text is no address."""
        try:
            record = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            # No address, one of IPv6 in a database of IPv4, or a record damaged on disk.
            return {}
        return record if isinstance(record, dict) else {}

    def age(self) -> float:
        """Seconds since it was made."""
        return max(0.0, time.time() - self._built)

    def refresh(self) -> bool:
        """Open the file anew if it is another, and say whether that was done."""
        try:
            version = _version(self.path)
            if version == self._version:
                return False
            # One that can't be read is tried again when it has changed.
            self._version = version
            reader = _open(self.path)
        except (OSError, maxminddb.InvalidDatabaseError):
            return False
        self._reader, self._built = reader, reader.metadata().build_epoch
        return True


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _open(path: Path) -> maxminddb.Reader:
    return maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT)


def _text(*ways: str) -> Callable[[dict[str, Any]], Any]:
    """The text that is found first: MaxMind's nested fields, then the flat ones of others."""
    paths = [way.split(".") for way in ways]

    def find(record: dict[str, Any]) -> Any:
        for path in paths:
            try:
                value: Any = reduce(getitem, path, record)
            except (KeyError, TypeError):  # TypeError: no object on the way
                continue
            if value.__class__ is str and value:
                return value
        return None

    return find


def _region(way: str, *flat: str) -> Callable[[dict[str, Any]], Any]:
    """The same of the largest subdivision, of which MaxMind has a list."""
    nested, plain = _text(way), _text(*flat)

    def find(record: dict[str, Any]) -> Any:
        divisions = record.get("subdivisions")
        return nested(divisions[0]) if isinstance(divisions, list) and divisions else plain(record)

    return find


def _location(record: dict[str, Any]) -> dict[str, float] | None:
    place: Any = record.get("location", record)
    if place.__class__ is not dict:
        return None
    latitude: Any = place.get("latitude")
    longitude: Any = place.get("longitude")
    try:
        if abs(latitude) <= 90 and abs(longitude) <= 180:
            # Four decimals are eleven metres; single precision would print seventeen digits. `round` takes thrice this.
            return {"lat": floor(latitude * 1e4 + 0.5) / 1e4, "lon": floor(longitude * 1e4 + 0.5) / 1e4}
    except TypeError:  # missing, or no numbers
        pass
    return None


def _system(record: dict[str, Any]) -> dict[str, Any] | None:
    """ECS's `as` of a record, whose fields are named alike everywhere."""
    number, organization = record.get("autonomous_system_number"), record.get("autonomous_system_organization")
    system: dict[str, Any] = {}
    if isinstance(number, int):
        system["number"] = number
    if isinstance(organization, str) and organization:
        system["organization"] = {"name": organization}
    return system or None


_PROPERTIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "country_iso_code": _text("country.iso_code", "country_code"),
    "city_name": _text("city.names.en", "city"),
    "location": _location,
    "continent_code": _text("continent.code", "continent_code"),
    "country_name": _text("country.names.en", "country_name"),
    "region_name": _region("names.en", "state1", "region"),
    "region_iso_code": _region("iso_code", "region_code"),
    "postal_code": _text("postal.code", "postcode"),
    "timezone": _text("location.time_zone", "timezone"),
}

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from pydantic import ValidationError

from pipeline.contract import Unusable
from stages.geoip import Geoip

MAXMIND = {
    "city": {"names": {"de": "Lissabon", "en": "Lisbon"}},
    "continent": {"code": "EU"},
    "country": {"iso_code": "PT", "names": {"en": "Portugal"}},
    "location": {"latitude": 38.72230148, "longitude": Decimal("-9.1393"), "time_zone": "Europe/Lisbon"},
    "postal": {"code": "1100"},
    "subdivisions": [{"iso_code": "11", "names": {"en": "Lisbon District"}}, {"iso_code": "x", "names": {"en": "x"}}],
}
FLAT = {
    "city": "Graz",
    "country_code": "AT",
    "latitude": 47.0707,
    "longitude": 15.4395,
    "postcode": "",
    "state1": "Styria",
    "timezone": "",
}
ASN = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"}
ALL = [
    *("country_iso_code", "city_name", "location", "continent_code", "country_name"),
    *("region_name", "region_iso_code", "postal_code", "timezone"),
]
LISBON = {"country_iso_code": "PT", "city_name": "Lisbon", "location": {"lat": 38.7223, "lon": -9.1393}}


def write(path: Path, records: dict[str, Any], version: int = 6) -> Path:
    writer = MMDBWriter(version, "Test-City", ipv4_compatible=version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    made = path.with_suffix(".new")
    writer.to_db_file(str(made))
    made.replace(path)
    return path


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("geo") / "city.mmdb",
        {
            "192.0.2.0/25": MAXMIND,
            "192.0.2.128/25": FLAT,
            "2001:db8::/32": MAXMIND,
            "198.51.100.0/26": {"country": {"iso_code": "IS"}, "subdivisions": [], "location": {"latitude": 1.5}},
            "198.51.100.64/26": {"city": {"names": "odd"}, "country": "odd", "location": 7, "subdivisions": [{}]},
            "198.51.100.128/26": {"location": {"latitude": 1, "longitude": 2}},
            "198.51.100.192/26": "odd",
        },
    )


@pytest.fixture(scope="module")
def asn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("asn") / "asn.mmdb",
        {
            "192.0.2.0/25": ASN,
            "203.0.113.0/25": {"autonomous_system_number": 64501},
            "203.0.113.128/25": {"autonomous_system_number": "odd", "autonomous_system_organization": ""},
        },
    )


def make(database: Path, **options: Any) -> Geoip:
    return Geoip(Geoip.Options(database=database, **options))


def located(stage: Geoip, address: Any) -> Any:
    return stage([{"clientIp": address}])[0].get("geo")


@pytest.mark.parametrize(
    "address",
    [
        *("192.0.2.1", " 192.0.2.1 ", "192.0.2.1:443", "::ffff:192.0.2.1", "::FFFF:192.0.2.1"),
        *("2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", "2001:db8::7%eth0", "[2001:db8::7%25eth0]:443"),
        *("192.0.2.1, 10.0.0.1", "10.0.0.1, unknown, 192.0.2.1:80, 192.0.2.200"),
    ],
)
def test_an_address_is_found_however_it_is_written(city, address):
    assert located(make(city), address) == LISBON


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.0.0.1", "::1", "8.8.8.8", "", "-", "unknown", "192.0.2.256", "192.0.2", "1.2.3.4.5"),
        *("host.example", "a" * 10_000, "192.0.2.1 and more", None, 5, True, ["192.0.2.1"], {"ip": "192.0.2.1"}),
        *("192.0.2.1\x00", "\ud800", "198.51.100.65", "198.51.100.193"),
    ],
)
def test_what_is_not_found_is_no_error_and_adds_nothing(city, asn, address):
    event = {"clientIp": address}
    assert make(city, asn=asn)([event]) == [{"clientIp": address}]
    assert make(city)([{}]) == [{}]


def test_all_properties_of_maxminds_layout(city):
    assert located(make(city, properties=ALL), "192.0.2.1") == LISBON | {
        "continent_code": "EU",
        "country_name": "Portugal",
        "region_name": "Lisbon District",
        "region_iso_code": "11",
        "postal_code": "1100",
        "timezone": "Europe/Lisbon",
    }


def test_all_properties_of_the_flat_layout(city):
    assert located(make(city, properties=ALL), "192.0.2.200") == {
        "country_iso_code": "AT",
        "city_name": "Graz",
        "location": {"lat": 47.0707, "lon": 15.4395},
        "region_name": "Styria",
    }


def test_what_a_database_does_not_know_is_left_out(city):
    assert located(make(city), "198.51.100.1") == {"country_iso_code": "IS"}
    assert located(make(city), "198.51.100.129") == {"location": {"lat": 1, "lon": 2}}
    assert located(make(city, properties=["city_name"]), "198.51.100.1") is None


def test_the_autonomous_system_stands_beside_the_place(city, asn):
    stage = make(city, asn=asn)
    events = stage([{"clientIp": address} for address in ("192.0.2.1", "203.0.113.1", "203.0.113.200", "192.0.2.200")])
    assert [event.get("as") for event in events] == [
        {"number": 64500, "organization": {"name": "Example Net"}},
        {"number": 64501},
        None,
        None,
    ]
    assert [bool(event.get("geo")) for event in events] == [True, False, False, True]
    assert stage.reads == {"clientIp"}
    assert stage.adds == {"geo", "as"}


def test_fields_and_targets_may_be_inside_of_objects(city, asn):
    stage = make(city, asn=asn, field="source.ip", target="source.geo")
    (event,) = stage([{"source": {"ip": "192.0.2.1"}}])
    assert event == {
        "source": {"ip": "192.0.2.1", "geo": LISBON, "as": {"number": 64500, "organization": {"name": "Example Net"}}}
    }
    assert not hasattr(stage, "reads")
    assert not hasattr(stage, "adds")


def test_it_reads_the_field_and_adds_the_target_alone(city):
    stage = make(city, field="request.ip", target="where")
    assert stage.reads == {"request", "request.ip"}
    assert stage.adds == {"where"}


def test_events_with_the_same_address_share_nothing(city, asn):
    stage = make(city, asn=asn)
    first, second = stage([{"clientIp": "192.0.2.1"}, {"clientIp": "192.0.2.1"}])
    del first["geo"]["city_name"], first["geo"]["location"]["lat"], first["as"]["organization"]["name"]
    assert second["geo"] == LISBON
    assert stage([{"clientIp": "192.0.2.1"}])[0] == second


def test_the_cache_is_bounded(city):
    stage = make(city, cache=2)
    assert [located(stage, f"192.0.2.{n}") for n in range(5)] == [LISBON] * 5
    located(stage, "x" * 1000)
    assert len(stage._places) <= 2


def test_an_ipv6_address_in_a_database_of_ipv4_is_no_error(tmp_path):
    stage = make(write(tmp_path / "four.mmdb", {"192.0.2.0/24": MAXMIND}, version=4))
    assert located(stage, "2001:db8::7") is None
    assert located(stage, "::ffff:192.0.2.1") == LISBON


def test_a_replaced_database_is_taken_up(tmp_path):
    path = write(tmp_path / "city.mmdb", {"192.0.2.0/24": MAXMIND})
    stage = make(path)
    assert located(stage, "192.0.2.1") == LISBON
    stage.refresh()
    assert stage._places
    write(path, {"192.0.2.0/24": FLAT})
    assert located(stage, "192.0.2.1") == LISBON
    stage.refresh()
    assert located(stage, "192.0.2.1")["city_name"] == "Graz"


def test_a_replacement_that_can_not_be_read_leaves_the_old_one_in_use(tmp_path):
    path = write(tmp_path / "city.mmdb", {"192.0.2.0/24": MAXMIND})
    stage = make(path)
    broken = tmp_path / "broken"
    broken.write_bytes(b"broken")
    broken.replace(path)
    stage.refresh()
    assert located(stage, "192.0.2.2") == LISBON
    path.unlink()
    stage.refresh()
    assert located(stage, "192.0.2.3") == LISBON
    write(path, {"192.0.2.0/24": FLAT})
    stage.refresh()
    assert located(stage, "192.0.2.1")["city_name"] == "Graz"


def test_a_missing_database_says_so_with_its_path(tmp_path, city):
    with pytest.raises(Unusable, match=r"no GeoIP database .*nowhere\.mmdb.*put one there"):
        make(tmp_path / "nowhere.mmdb")
    with pytest.raises(Unusable, match="nowhere"):
        make(city, asn=tmp_path / "nowhere.mmdb")


def test_a_broken_database_says_so_with_its_path(tmp_path, city):
    broken = tmp_path / "broken.mmdb"
    for data in (b"", b"x" * 5000, city.read_bytes()[: city.stat().st_size // 2]):
        broken.write_bytes(data)
        with pytest.raises(Unusable, match=r"broken\.mmdb can't be read"):
            make(broken)
    with pytest.raises(Unusable, match="can't be read"):
        make(tmp_path)


def test_a_record_that_is_damaged_on_disk_is_not_found(tmp_path, city):
    data = bytearray(city.read_bytes())
    at = data.index(b"Lissabon") - 60
    data[at : at + 200] = b"\xff" * 200
    damaged = tmp_path / "damaged.mmdb"
    damaged.write_bytes(data)
    assert located(make(damaged), "192.0.2.1") is None


def test_an_old_database_is_a_warning_and_shows_its_age(city, asn, monkeypatch):
    stage = make(city, asn=asn)
    assert stage.warnings == []
    assert stage.gauges()["geoip_database_age_seconds"] < 100
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31 * 86400)
    assert stage.gauges()["geoip_database_age_seconds"] == pytest.approx(31 * 86400, abs=100)
    old = make(city, asn=asn).warnings
    assert len(old) == 2
    assert f"{city} is 31 days old" in old[0]
    assert make(city, warn_after_days=32).warnings == []


@pytest.mark.parametrize(
    "options", [{}, {"database": "x", "properties": ["town"]}, {"database": "x", "cache": 0}, {"database": "x", "a": 1}]
)
def test_options_that_can_not_work_are_refused(options):
    with pytest.raises(ValidationError):
        Geoip.Options(**options)


@given(st.text() | st.ip_addresses().map(str) | st.from_regex(r"[\[\]0-9a-f:.%, ]{1,40}"))
def test_no_text_is_an_error(city, text):
    geo = located(make(city, properties=ALL), text)
    assert geo is None or orjson.dumps(geo)


def test_the_demo_has_its_database():
    stage = make(Path("config/demo/geo.mmdb"), warn_after_days=10**6)
    assert [located(stage, address)["city_name"] for address in ("192.0.2.1", "2001:db8::7")] == ["Lisbon", "Leipzig"]
    assert Path("config/demo/geo.mmdb").stat().st_size < 100_000

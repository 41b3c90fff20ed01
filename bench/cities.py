"""The GeoIP database of the reference job: made-up cities on made-up networks, in the shape of GeoLite2-City.

usage: python -m bench.cities OUT.mmdb OUT_IPS.txt
It has some 200,000 networks, and nothing of it is true. The list of addresses
has 45,000 that are in the database and 5,000 private ones.
"""

import ipaddress
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

NETWORKS = 200_000
CITIES = 20_000
_COUNTRIES = "AR AT AU BE BR CA CH CL CN CO CZ DE DK EG ES FI FR GB HU ID IE IL IN IT JP KE KR MX MY NG NL NO NZ PE PH"
_SYLLABLES = "al an ber bo bri ca chen da del dor el en fur gra ham hol in jo ka kel la lin lu ma mon na nor o per"
COUNTRIES, SYLLABLES = _COUNTRIES.split(), _SYLLABLES.split()
FIRST, LAST = int(ipaddress.IPv4Address("1.0.0.0")), int(ipaddress.IPv4Address("223.255.255.255"))


def cities(r: random.Random) -> list[dict[str, Any]]:
    """The records that networks point to."""
    return [_city(r) for _ in range(CITIES)]


def _city(r: random.Random) -> dict[str, Any]:
    name = "".join(r.choices(SYLLABLES, k=r.randrange(2, 5))).title()
    country = r.choice(COUNTRIES)
    return {
        "city": {"geoname_id": r.randrange(10**7), "names": {"en": name}},
        "continent": {"code": "XX", "names": {"en": "Nowhere"}},
        "country": {"iso_code": country, "names": {"en": country}},
        "location": {
            "accuracy_radius": r.choice([5, 20, 100]),
            "latitude": round(r.uniform(-56, 70), 4),
            "longitude": round(r.uniform(-180, 180), 4),
            "time_zone": "UTC",
        },
        "subdivisions": [{"iso_code": name[:3].upper(), "names": {"en": f"{name} Province"}}],
    }


def networks(r: random.Random) -> Iterator[ipaddress.IPv4Network]:
    """Public networks of /19 to /26 in ascending order, with gaps between them."""
    stride = (LAST - FIRST) // NETWORKS
    for start in range(FIRST, LAST - stride, stride):
        size = 1 << r.choice((6, 7, 8, 8, 8, 9, 10, 12, 13))
        network = ipaddress.IPv4Network((-(-start // size) * size, 33 - size.bit_length()))
        if network.is_global:
            yield network


def write(database: Path, addresses: Path) -> None:
    """Write both files."""
    r = random.Random(7)
    writer = MMDBWriter(4, "GeoLite2-City", languages=["en"], description="made up, for benchmarks")
    places, known = cities(r), []
    for network in networks(r):
        writer.insert_network(IPSet([str(network)]), r.choice(places))
        known.append(str(network[r.randrange(min(network.num_addresses, 200))]))
    private = [f"10.{n % 250}.{n // 250}.7" for n in range(5000)]
    ips = r.sample(known, 45_000) + private
    r.shuffle(ips)
    writer.to_db_file(str(database))
    addresses.write_text("\n".join(ips))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))

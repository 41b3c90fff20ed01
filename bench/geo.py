"""The demo's GeoIP database: the networks that documentation may use, placed in cities, in the shape of GeoLite2-City.

usage: python -m bench.geo OUT.mmdb
Nothing of it is true: RFC 5737 and RFC 3849 give these networks to nobody. The same bytes at every run.
"""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

from mmdb_writer import MMDBWriter
from netaddr import IPSet

BUILT = 1_795_132_800  # 2026-11-20, the day of the samples

# Network, city, region, its code, country, its code, continent, latitude, longitude, time zone, postal code.
PLACES = """
192.0.2.0/26|Lisbon|Lisbon|11|Portugal|PT|EU|38.7223|-9.1393|Europe/Lisbon|1100
192.0.2.64/26|Ghent|Flanders|VLG|Belgium|BE|EU|51.0543|3.7174|Europe/Brussels|9000
192.0.2.128/26|Tampere|Pirkanmaa|11|Finland|FI|EU|61.4978|23.7610|Europe/Helsinki|33100
192.0.2.192/27|Graz|Styria|6|Austria|AT|EU|47.0707|15.4395|Europe/Vienna|8010
192.0.2.224/27||||Iceland|IS|EU|64.9631|-19.0208|Atlantic/Reykjavik|
198.51.100.0/26|Sapporo|Hokkaido|01|Japan|JP|AS|43.0618|141.3545|Asia/Tokyo|060-0001
198.51.100.64/26|Pune|Maharashtra|MH|India|IN|AS|18.5204|73.8567|Asia/Kolkata|411001
198.51.100.128/26|Busan|Busan|26|South Korea|KR|AS|35.1796|129.0756|Asia/Seoul|48058
198.51.100.192/26|Mombasa|Mombasa|28|Kenya|KE|AF|-4.0435|39.6682|Africa/Nairobi|80100
203.0.113.0/26|Denver|Colorado|CO|United States|US|NA|39.7392|-104.9903|America/Denver|80202
203.0.113.64/26|Halifax|Nova Scotia|NS|Canada|CA|NA|44.6488|-63.5752|America/Halifax|B3H
203.0.113.128/26|Rosario|Santa Fe|S|Argentina|AR|SA|-32.9442|-60.6505|America/Argentina/Cordoba|S2000
203.0.113.192/26|Hobart|Tasmania|TAS|Australia|AU|OC|-42.8821|147.3272|Australia/Hobart|7000
2001:db8::/33|Leipzig|Saxony|SN|Germany|DE|EU|51.3397|12.3731|Europe/Berlin|04109
2001:db8:8000::/33|Montpellier|Occitanie|OCC|France|FR|EU|43.6108|3.8767|Europe/Paris|34000
"""


def record(row: list[str]) -> dict[str, Any]:
    """What GeoLite2-City says of a network, of what the table has."""
    city, region, region_code, country, code, continent, latitude, longitude, zone, postal = row
    made: dict[str, Any] = {
        "continent": {"code": continent},
        "country": {"iso_code": code, "names": {"en": country}},
        "location": {"latitude": float(latitude), "longitude": float(longitude), "time_zone": zone},
    }
    if city:
        made["city"] = {"names": {"en": city}}
        made["postal"] = {"code": postal}
        made["subdivisions"] = [{"iso_code": region_code, "names": {"en": region}}]
    return made


def write(path: Path) -> None:
    """Write the database."""
    writer = MMDBWriter(6, "GeoLite2-City", languages=["en"], description="aiologs demo", ipv4_compatible=True)
    for line in PLACES.strip().splitlines():
        network, *row = (cell.strip() for cell in line.split("|"))
        writer.insert_network(IPSet([network]), record(row))
    # The writer stamps the moment; this database is part of the sources and always the same.
    with mock.patch("time.time", return_value=BUILT):
        writer.to_db_file(str(path))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))

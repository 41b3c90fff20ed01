"""When Elasticsearch takes a disk for full."""

import pytest

from pipeline.setup.disks import free, full
from tests.setup.fake_cluster import FakeCluster

GB = 1 << 30


@pytest.mark.parametrize(
    ("flood", "headroom", "wanted"),
    [
        ("95%", "-1", 50 * GB),
        ("0.95", "-1", 50 * GB),
        ("95%", "20GB", 20 * GB),
        ("95%", "100GB", 50 * GB),
        ("500mb", "-1", GB * 500 / 1024),
        ("1.5tb", "100gb", 1536 * GB),
    ],
)
def test_so_much_is_to_be_free(flood, headroom, wanted):
    assert free(1000 * GB, flood, headroom) == pytest.approx(wanted)


def having(avail: int, **settings: str) -> FakeCluster:
    cluster = FakeCluster()
    disk = {"node": "n1", "disk.percent": "96", "disk.total": str(1000 * GB), "disk.avail": str(avail)}
    cluster.answers["GET _cat/allocation"] = [disk, {"node": "UNASSIGNED", "disk.avail": None, "disk.total": None}]
    named = {f"cluster.routing.allocation.disk.{name}": value for name, value in settings.items()}
    cluster.answers["GET _cluster/settings"] = {"defaults": {}, "persistent": named}
    return cluster


def test_a_full_disk_is_named():
    assert full(having(40 * GB)) == ["n1 (96 %)"]
    assert full(having(60 * GB)) == []


def test_a_large_disk_is_not_full_at_95_per_cent():
    assert full(having(40 * GB, **{"watermark.flood_stage.max_headroom": "20gb"})) == []


def test_none_is_full_where_nobody_looks():
    assert full(having(0, threshold_enabled="false")) == []

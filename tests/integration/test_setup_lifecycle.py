"""Indices of each family age on a real Elasticsearch with lifecycle management, as README promises."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.setup.definitions import wanted
from tests.integration.setup_cluster import DAY, aged, clean, explain, looks, phase, set_up, wait, write
from tests.services import servers

pytestmark = pytest.mark.elasticsearch

TODAY = datetime.now(UTC)
NAME = "%Y.%m.%d"
HOT = {"read-only": False, "codec": {"BEST_SPEED"}, "health": "green"}
WARM = {"read-only": True, "segments": 1, "codec": {"BEST_COMPRESSION"}, "health": "green"}
COLD = WARM | {"replicas": 0}


def documents(count: int = 3) -> list[dict]:
    return [{"@timestamp": TODAY.isoformat(), "message": f"number {n}"} for n in range(count)]


@pytest.fixture(scope="module")
def two(two_nodes_url):
    with clean(two_nodes_url) as cluster:
        set_up(cluster)
        yield cluster


@pytest.mark.skipif(servers.why_not() is not None, reason="Elasticsearch's classes are only there with Maven and a JDK")
def test_elasticsearchs_own_parser_takes_every_policy(tmp_path):
    paths = []
    for mode in ("daily", "data_stream"):
        for name, body in wanted(mode, 2).of("lifecycle policy").items():
            (tmp_path / mode).mkdir(exist_ok=True)
            path = tmp_path / mode / f"{name}.json"
            path.write_text(json.dumps(body))
            paths.append(path)
    told = servers.validate_policies(paths)
    assert told.count("OK ") == len(paths), told
    assert "WARNING" not in told
    assert "warm/forcemerge/forcemerge" in told


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("aio-logs", 90),
        ("aio-logs-performance", 90),
        ("aio-errors", 90),
        ("aio-errors-critical", 365),
        ("aio-security", 365),
        ("aio-security-audit", 730),
    ],
)
def test_an_index_of_a_day_walks_through_its_phases_at_their_ages(two, family, kept):
    index = f"{family}-{TODAY.strftime(NAME)}"
    # Small segments would be merged at once.
    two.ask("PUT", index, {"settings": {"index.merge.policy.floor_segment": "1b"}})
    # A replica that begins after the documents has one segment, and that is not merged (and compressed) again.
    two.ask("GET", f"_cluster/health/{index}?wait_for_status=green&timeout=30s")
    write(two, index, *documents())
    wait(lambda: phase(two, index) == "hot")
    assert looks(two, index) == HOT | {"replicas": 1, "segments": 3}
    aged(two, index, 7 * DAY - timedelta(hours=1))
    assert wait(lambda: phase(two, index)) == "hot"
    aged(two, index, 7 * DAY)
    wait(lambda: phase(two, index) == "warm")
    assert looks(two, index) == WARM | {"replicas": 1}
    aged(two, index, 30 * DAY)
    wait(lambda: phase(two, index) == "cold")
    assert looks(two, index) == COLD
    aged(two, index, kept * DAY - timedelta(hours=1))
    assert wait(lambda: phase(two, index)) == "cold"
    aged(two, index, kept * DAY)
    wait(lambda: phase(two, index) == "deleted")


@pytest.mark.slow
def test_with_ages_of_seconds_an_index_walks_by_itself(two):
    """Seven days are three seconds: nothing is touched but the clock."""
    index, seen = f"aio-errors-walk-{TODAY.strftime(NAME)}", []
    day = timedelta(milliseconds=400)
    set_up(two, day=day)
    try:
        two.ask("PUT", index, {"settings": {"index.lifecycle.parse_origination_date": False}})
        write(two, index, *documents())

        def gone() -> bool:
            found = explain(two, index)
            if found and (now := found.get("phase")) and now not in seen:
                seen.append(now)
            return found is None

        wait(gone)
    finally:
        set_up(two)
    assert [each for each in seen if each != "new"] in (["hot", "warm", "cold", "delete"], ["hot", "warm", "cold"])


def test_a_day_that_is_created_late_is_deleted_on_its_own_day(two):
    old, young = TODAY - 100 * DAY, TODAY - 40 * DAY
    for each in (old, young):
        write(two, f"aio-logs-{each.strftime(NAME)}", *documents(1))
    wait(lambda: phase(two, f"aio-logs-{old.strftime(NAME)}") == "deleted")
    wait(lambda: phase(two, f"aio-logs-{young.strftime(NAME)}") == "cold")
    (settings,) = two.ask("GET", f"aio-logs-{young.strftime(NAME)}/_settings?flat_settings=true").values()
    began = int(settings["settings"]["index.lifecycle.origination_date"])
    assert began == young.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000


def test_the_replay_index_of_a_day_ages_with_its_day(two):
    day = (TODAY - 100 * DAY).strftime(NAME)
    write(two, f"aio-logs-{day}-1", *documents(1))
    wait(lambda: phase(two, f"aio-logs-{day}-1") == "deleted")


def test_logs_without_a_day_get_a_new_index_that_takes_writes_and_the_old_one_ages(two):
    alias, first = "aio-logs-undated", "aio-logs-undated-000001"
    write(two, alias, *documents(1))
    wait(lambda: phase(two, first) or explain(two, first).get("step"))
    aged(two, first, 10 * DAY)
    two.ask("POST", f"{alias}/_rollover")
    write(two, alias, {"message": "after"})
    assert two.ask("GET", f"{alias}-000002/_count")["count"] == 1
    wait(lambda: phase(two, first) == "warm")
    aged(two, first, 91 * DAY)
    wait(lambda: phase(two, first) == "deleted")
    assert two.ask("GET", f"{alias}/_count")["count"] == 1


def test_error_groups_are_never_read_only(two):
    write(two, "aio-error-groups", {"fingerprint": "f", "count": 1})
    (explained,) = two.ask("GET", "aio-error-groups/_ilm/explain")["indices"].values()
    assert explained["managed"] is False

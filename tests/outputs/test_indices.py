from typing import Any

import orjson
import pytest

from pipeline.outputs._answers import Failed
from pipeline.outputs.indices import TOGETHER, Standing, daily, existing, seconds, standings


class Server:
    """Answers as Elasticsearch 9.2 does."""

    def __init__(self, **answers: tuple[int, Any]) -> None:
        self.answers, self.asked = answers, list[str]()

    async def __call__(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        self.asked.append(f"{method} {target.partition('?')[0]}")
        if "_mget" in target:
            ids = orjson.loads(body or b"")["ids"]
            assert len(ids) <= TOGETHER
            return 200, orjson.dumps({"docs": [{"_id": each, "found": each.endswith("7")} for each in ids]})
        key = next(key for key in ("settings", "explain", "policy") if key in target)
        status, answer = self.answers[key]
        return status, orjson.dumps(answer)


SETTINGS = {
    "a-2026.08.01": {"settings": {"index": {"blocks": {"write": "true"}, "creation_date": "1"}}},
    "a-2026.08.02": {"settings": {"index": {"creation_date": "1", "blocks": {"write": "false"}}}},
}
EXPLAIN = {
    "indices": {
        "a-2026.08.01": {"phase": "warm", "policy": "p", "lifecycle_date_millis": 1_000_000},
        "a-2026.08.02": {},
    }
}


async def test_the_ids_that_exist_are_asked_for_in_pieces():
    server = Server()
    found = await existing(server, "a", [f"id-{n}" for n in range(2500)])
    assert found == {f"id-{n}" for n in range(7, 2500, 10)}
    assert server.asked == ["POST /a/_mget"] * 3


async def test_no_ids_are_not_asked_for():
    server = Server()
    assert await existing(server, "a", []) == set()
    assert server.asked == []


async def test_an_index_that_can_not_be_read_is_no_index_without_documents():
    async def closed(*_: Any) -> tuple[int, bytes]:
        return 200, b'{"docs":[{"_id":"1","error":{"type":"index_closed_exception","reason":"closed"}}]}'

    with pytest.raises(Failed, match="index a: index_closed_exception: closed"):
        await existing(closed, "a", ["1"])


async def test_blocks_phase_and_day_of_deletion():
    policy = {"p": {"policy": {"phases": {"delete": {"min_age": "90d"}}}}}
    found = await standings(Server(settings=(200, SETTINGS), explain=(200, EXPLAIN), policy=(200, policy)), ["a-*"])
    assert found == {
        "a-2026.08.01": Standing("a-2026.08.01", frozenset({"write"}), "warm", 1000 + 90 * 86400),
        "a-2026.08.02": Standing("a-2026.08.02"),
    }


async def test_the_day_of_deletion_counts_from_the_origination_date():
    policy = {"p": {"policy": {"phases": {"delete": {"min_age": "90d"}}}}}
    settings = {"a-2026.08.01": {"settings": {"index": {"lifecycle": {"origination_date": "500000"}}}}}
    found = await standings(Server(settings=(200, settings), explain=(200, EXPLAIN), policy=(200, policy)), ["a-*"])
    assert found["a-2026.08.01"].deleted == 500 + 90 * 86400


@pytest.mark.parametrize("explain", [(410, {}), (404, {}), (200, {"indices": {}})])
async def test_a_server_without_lifecycles_still_tells_blocks(explain: tuple[int, Any]):
    found = await standings(Server(settings=(200, SETTINGS), explain=explain), ["a-*"])
    assert [each.blocks for each in found.values()] == [{"write"}, set()]


async def test_the_day_of_deletion_is_unknown_without_the_privilege_to_read_policies():
    found = await standings(Server(settings=(200, SETTINGS), explain=(200, EXPLAIN), policy=(403, {})), ["a-*"])
    assert (found["a-2026.08.01"].phase, found["a-2026.08.01"].deleted) == ("warm", None)


async def test_a_refusal_is_an_error():
    with pytest.raises(Failed, match="answers 403"):
        await standings(Server(settings=(403, {})), ["a"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a-2026.08.01", ("a-2026.08.01", 0)),
        ("a-2026.08.01-1", ("a-2026.08.01", 1)),
        ("a-2026.08.01-12", ("a-2026.08.01", 12)),
        ("a-2026.08.01-x", None),
        ("a-undated", None),
        ("a-2026.08", None),
    ],
)
def test_a_replay_index_belongs_to_its_day(name: str, found: tuple[str, int] | None):
    assert daily(name) == found


def test_durations_as_elasticsearch_writes_them():
    assert [seconds(each) for each in ("90d", "12h", "5m", "30s", "500ms")] == [7776000, 43200, 300, 30, 0.5]
    with pytest.raises(ValueError, match="'soon' is no duration"):
        seconds("soon")

"""What a real Elasticsearch refuses, and what becomes of it."""

import json
from typing import Any

import pytest

from pipeline.contract import bulk
from tests.integration.cluster import Cluster, output

pytestmark = pytest.mark.elasticsearch

TYPES = ["long", "float", "keyword", "text", "ip", "boolean", "date", "flattened"]
CONFLICTS: list[tuple[str, Any]] = [
    ("long", "abc"),
    ("long", {"a": 1}),
    ("long", True),
    ("long", 99999999999999999999),
    ("float", "x"),
    ("text", {"a": 1}),
    ("keyword", {"a": {"b": 1}}),
    ("keyword", "é" * 20000),
    ("keyword.a", 1),
    ("ip", "nope"),
    ("boolean", 1),
    ("date", "yesterday"),
    ("date", {"a": 1}),
    ("flattened", 5),
    ("object", 5),
    ("object", ["a"]),
    ("object.in", "x"),
    ("strict", {"new": 1}),
]


def made(cluster: Cluster) -> str:
    properties: dict[str, Any] = {name: {"type": name} for name in TYPES}
    properties["object"] = {"properties": {"in": {"type": "long"}}}
    properties["strict"] = {"type": "object", "dynamic": "strict"}
    return cluster.index("types", {"index.mapping.total_fields.limit": 20}, mappings={"properties": properties})


def documents(index: str) -> list[Any]:
    return [bulk(index, [(f"{n}", json.dumps({name: value}).encode()) for n, (name, value) in enumerate(CONFLICTS)])]


async def test_every_kind_of_conflict_is_repaired_and_the_field_is_found_beside(cluster):
    index = made(cluster)
    async with output(cluster.url) as es:
        written = await es.write(documents(index))
    assert (written.stored, written.refused, written.late) == (len(CONFLICTS), [], [])
    for n, (name, value) in enumerate(CONFLICTS):
        source = cluster.ask("GET", f"{index}/_source/{n}")
        (moved,) = source["conflict"]
        assert name.startswith(moved["field"].split(".")[0])
        assert moved["value"] if isinstance(value, str) else json.loads(moved["value"])
    cluster.ask("POST", f"{index}/_refresh")
    found = cluster.ask("GET", f"{index}/_search?q=conflict.field:object*&filter_path=hits.total.value")
    assert found["hits"]["total"]["value"] == 3


async def test_several_conflicts_of_one_document_are_repaired_one_after_the_other(cluster):
    index = made(cluster)
    async with output(cluster.url) as es:
        written = await es.write([bulk(index, [("1", b'{"long":"a","ip":"b","boolean":"c","keyword":"fine"}')])])
    assert written.stored == 1
    source = cluster.ask("GET", f"{index}/_source/1")
    assert source["keyword"] == "fine"
    assert sorted(each["field"] for each in source["conflict"]) == ["boolean", "ip", "long"]


async def test_what_is_not_to_be_repaired_is_set_aside_with_field_and_both_types(cluster):
    index = made(cluster)
    async with output(cluster.url, conflicts="set_aside") as es:
        written = await es.write(documents(index))
    assert (written.stored, len(written.refused)) == (0, len(CONFLICTS))
    reasons = [each.reason for each in written.refused]
    assert reasons[0].endswith("(field long is to be: long, and it is a text)")
    assert reasons[1].endswith("(field long is to be: long, and it is an object)")
    assert reasons[11].endswith("(field date is to be: date, and it is a text)")
    assert reasons[14].endswith("(field object is to be: object, and it is a number)")
    assert written.refused[0].document == b'{"long": "abc"}'


async def test_more_fields_than_the_index_may_have_are_set_aside_with_what_to_do(cluster):
    index = made(cluster)
    pairs = [("1", json.dumps({f"n{n}": n for n in range(20)}).encode()), ("2", b'{"long":1}')]
    async with output(cluster.url) as es:
        written = await es.write([bulk(index, pairs)])
    assert (written.stored, [each.id for each in written.refused]) == (1, ["1"])
    assert "Limit of total fields [20]" in written.refused[0].reason
    assert "index.mapping.total_fields" in written.refused[0].reason

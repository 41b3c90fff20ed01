from typing import Any

import pytest

from pipeline.schema import schema
from tests.made_up import parts

PART = '''
from pydantic import BaseModel, Field

class Inner(BaseModel, extra="forbid"):
    """One of several."""
    n: int = 1

class Part:
    class Options(BaseModel, extra="forbid"):
        """What it can do."""
        path: str = Field({}description="Where.")
        flag: bool = False
        inner: list[Inner] = []
'''


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory):
    needs, free = PART.format(""), PART.format('default="x", ')
    stages = {"json": free + "\n    def decode(self, records): return []\n", "needs": needs}
    with parts(tmp_path_factory.mktemp("parts"), inputs={"file": free}, stages=stages, outputs={"store": needs}):
        yield


@pytest.fixture(scope="module")
def made(_parts) -> dict[str, Any]:
    return schema()


def test_the_top_level_has_every_key_and_allows_no_other(made):
    assert {"data_dir", "workers", "inputs", "stages", "outputs", "tests", "log"} <= made["properties"].keys()
    assert made["additionalProperties"] is False
    assert made["required"] == ["inputs", "outputs"]
    assert made["$schema"].endswith("2020-12/schema")


def test_every_key_is_described(made):
    assert all(value.get("description") for value in made["properties"].values())


def test_an_input_has_the_options_of_its_type_and_a_decoder(made):
    part = made["properties"]["inputs"]["additionalProperties"]
    assert part["properties"]["type"] == {"enum": ["file"]}
    (file,) = part["oneOf"]
    assert file["properties"]["type"] == {"const": "file"}
    assert file["properties"]["decode"]["anyOf"][0] == {"enum": ["json"]}
    assert file["properties"]["path"]["description"] == "Where."
    assert file["required"] == ["type"]
    assert file["additionalProperties"] is False


def test_an_output_has_its_required_options_and_no_decoder(made):
    (store,) = made["properties"]["outputs"]["additionalProperties"]["oneOf"]
    assert store["required"] == ["type", "path"]
    assert "decode" not in store["properties"]


def test_a_stage_is_its_name_alone_only_where_it_needs_no_options(made):
    json, needs = made["properties"]["stages"]["items"]["oneOf"]
    assert json["anyOf"][0] == {"const": "json"}
    assert needs["required"] == ["needs"]
    assert {"when", "name", "path"} <= needs["properties"]["needs"]["properties"].keys()


def test_variables_may_stand_for_numbers_and_booleans(made):
    variable = {"type": "string", "pattern": r"\$\{.*\}"}
    workers = made["properties"]["workers"]
    assert workers["anyOf"][0]["type"] == "integer"
    assert workers["anyOf"][1] == variable
    assert "description" in workers
    (store,) = made["properties"]["outputs"]["additionalProperties"]["oneOf"]
    assert store["properties"]["flag"]["anyOf"][1] == variable


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere(made):
    found = references(made)
    assert found
    assert all(reference.removeprefix("#/$defs/") in made["$defs"] for reference in found)

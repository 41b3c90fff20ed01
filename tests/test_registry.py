import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from pipeline import registry
from pipeline.registry import Unknown

UPPER = '''"""Writes a field in capitals.

More about it.
"""
from pydantic import BaseModel, Field

class Helper:
    pass

class Upper:
    class Options(BaseModel, extra="forbid"):
        field: str = Field(description="Which field.")
        words: list[str] = Field(default_factory=lambda: ["a"], description="Some words.")

    def __init__(self, options):
        self.options = options

    def decode(self, records):
        return []
'''
TWICE = "class A:\n    class Options: pass\n\nclass B:\n    class Options: pass\n"
BROKEN = "import no_such_module\n\nclass Broken:\n    class Options: pass\n"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A package of stages: one part, one with mistakes of every kind, and a module that is no part."""
    folder = tmp_path / "fake_stages"
    folder.mkdir()
    modules = {"__init__": "", "upper": UPPER, "decide": "X = 1\n", "broken": BROKEN, "twice": TWICE, "_own": UPPER}
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.PACKAGES, "stage", "fake_stages")
    yield
    for name in [name for name in sys.modules if name.startswith("fake_stages")]:
        del sys.modules[name]


@pytest.fixture
def installed(monkeypatch):
    """Make entry points known, as installed distributions would."""

    def install(**values):
        points = [EntryPoint(name, value, "aiologs.stages") for name, value in values.items()]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [p for p in points if p.group == group])

    return install


def test_a_name_finds_the_class_with_options_in_the_module_of_that_name():
    assert registry.find("stage", "upper").__name__ == "Upper"
    assert registry.options("stage", "upper") is registry.find("stage", "upper").Options


def test_names_are_listed_without_importing_and_without_modules_that_are_no_part():
    assert registry.names("stage") == ["broken", "twice", "upper"]
    assert "fake_stages.upper" not in sys.modules


def test_decoders_are_the_stages_with_a_decode_method():
    assert registry.decoders() == ["upper"]


@pytest.mark.parametrize("name", ["uper", "Upper", "UPPER"])
def test_an_unknown_name_comes_with_the_nearest_one(name):
    with pytest.raises(Unknown, match=f"unknown stage '{name}'; did you mean 'upper'\\?"):
        registry.find("stage", name)


@pytest.mark.parametrize("name", ["nothing", "decide", "_own", "..config", "fake_stages.upper", ""])
def test_what_is_no_part_is_unknown_and_all_parts_are_named(name):
    with pytest.raises(Unknown, match="there is 'broken', 'twice', 'upper'"):
        registry.find("stage", name)


def test_an_unknown_name_where_there_is_nothing_at_all():
    assert not registry.nearest("x", [])


def test_a_part_that_can_not_be_imported_says_why():
    with pytest.raises(Unknown, match="stage 'broken' can't be imported: No module named 'no_such_module'"):
        registry.find("stage", "broken")


def test_two_classes_with_options_in_a_module_are_a_mistake_of_its_author():
    with pytest.raises(TypeError, match="more than one class"):
        registry.find("stage", "twice")


def test_an_installed_distribution_adds_a_part(installed):
    installed(loud="fake_stages._own:Upper")
    assert registry.find("stage", "loud").__name__ == "Upper"
    assert "loud" in registry.names("stage")


def test_a_built_in_part_wins_over_an_installed_one_of_its_name(installed):
    installed(upper="fake_stages._own:Upper")
    assert registry.find("stage", "upper").__module__ == "fake_stages.upper"


@pytest.mark.parametrize("value", ["no_such_module:X", "fake_stages.upper:Nothing"])
def test_an_installed_part_that_can_not_be_imported_says_why(installed, value):
    installed(loud=value)
    with pytest.raises(Unknown, match=f"stage 'loud' \\({value}\\) can't be imported: "):
        registry.find("stage", "loud")


def test_a_description_has_the_documentation_and_the_options():
    described = registry.describe("stage", "upper")
    assert described.summary == "Writes a field in capitals."
    assert described.doc.endswith("More about it.")
    field, words = described.options
    assert (field.name, field.type, field.default, field.required) == ("field", "str", "", True)
    assert (words.type, words.default, words.description, words.required) == (
        "list[str]",
        '["a"]',
        "Some words.",
        False,
    )
    assert str(described).endswith('  words: list[str] (default ["a"])\n      Some words.')
    assert "  field: str (required)\n" in str(described)


def test_a_description_cuts_a_long_default_and_falls_back_to_the_docstring_of_the_class(installed):
    class Part:
        """Does something."""

        class Options(BaseModel):
            table: dict[str, int] = Field(default={str(n): n for n in range(100)}, alias="map")

    Part.__module__ = "fake_stages.decide"
    sys.modules.pop("fake_stages.decide", None)
    import fake_stages.decide  # type: ignore[import-not-found]

    fake_stages.decide.Part = Part
    installed(long="fake_stages.decide:Part")
    described = registry.describe("stage", "long")
    assert described.summary == "Does something."
    assert described.options[0].name == "map"
    assert described.options[0].default.endswith("…")
    assert len(described.options[0].default) == 201


def test_a_part_without_options_says_so():
    assert str(registry.Description("stage", "x", "Doc.", [])) == "stage x\n\nDoc.\n\nIt has no options."


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "str"),
        (str | None, "str | null"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (tuple[int, ...], "tuple[int, …]"),
        (Literal["client", 1], '"client" | 1'),
        (Annotated[int, Field(ge=0)], "int"),
        (Any, "Any"),
    ],
)
def test_types_are_written_as_people_do(annotation, text):
    assert registry.type_text(annotation) == text


@pytest.mark.parametrize("kind", ["input", "output"])
def test_the_packages_of_inputs_and_outputs_are_read_too(kind):
    assert "bulk" not in registry.names(kind)
    assert "lumberjack" not in registry.names(kind)

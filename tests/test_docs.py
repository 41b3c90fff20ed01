"""What the documentation says is what there is.

`docs/reference.md` is made from the code; `python tests/test_docs.py` writes it anew.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from pipeline import registry
from pipeline.cli import app
from pipeline.config import load
from pipeline.metrics import METRICS
from pipeline.registry import Kind
from pipeline.settings import Settings

ROOT = Path(__file__).parent.parent
REFERENCE, README = ROOT / "docs" / "reference.md", ROOT / "README.md"
KINDS: dict[Kind, str] = {"input": "Inputs", "stage": "Stages", "output": "Outputs"}


# --- the reference, made ---


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Every command, input, stage, output, option and metric there is. This page is made from the code (`python"
    yield "tests/test_docs.py` writes it, and the tests compare); `aiologs stages NAME` and `--help` show the same."
    yield from _commands_section()
    yield from _settings_section()
    for kind, title in KINDS.items():
        yield from ["", f"## {title}"]
        for name in registry.names(kind):
            yield from _part(kind, name)
    yield from _metrics_section()


def commands(group: Any = None, prefix: str = "aiologs") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command


def _commands_section() -> Iterator[str]:
    yield from ["", "## Commands"]
    for name, command in commands():
        yield from ["", f"### {name}", "", command.help or ""]
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        yield from _table(("option", "meaning"), rows)
        if command.epilog:
            yield from ["", f"{command.epilog}"]


def _parameter(parameter: Any) -> tuple[str, str]:
    option = parameter.param_type_name == "option"
    names = ", ".join(parameter.opts) if option else (parameter.metavar or parameter.name).upper()
    return f"`{names}`", getattr(parameter, "help", None) or ""


def _settings_section() -> Iterator[str]:
    yield from ["", "## The configuration file", ""]
    yield "Its top level; `aiologs schema` prints all of it as a JSON schema for editors."
    yield from _table(("key", "type", "meaning"), [(name, type_, text) for name, type_, _, text in _options(Settings)])


def _part(kind: Kind, name: str) -> Iterator[str]:
    yield from ["", f"### {kind}: {name}", "", registry.describe(kind, name).doc]
    yield from _table(("option", "type", "default", "meaning"), [*_options(registry.options(kind, name))])


def _options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """The name, type, default and meaning of each option, with those inside of it."""
    for name, field in model.model_fields.items():
        option, inner = registry._option(name, field), _model(field.annotation)
        default = "required" if option.required else f"`{option.default}`"
        shown = "" if inner and len(option.default) > 20 else default
        yield f"`{prefix}{option.name}`", f"`{option.type}`", shown, option.description
        if inner:
            several = registry.type_text(field.annotation).startswith("list")
            yield from _options(inner, f"{prefix}{option.name}{'[]' if several else ''}.")


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model, get_args(annotation))), None)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |"


def _metrics_section() -> Iterator[str]:
    yield from ["", "## Metrics", ""]
    yield "At `/metrics` of the admin address, with those of the process itself (`process_…`)."
    rows = [
        (f"`{metric.full_name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS
    ]
    yield from _table(("name", "kind", "labels", "meaning"), rows)


# --- the tests ---


def test_the_reference_is_made_from_the_code_as_it_is():
    assert REFERENCE.read_text() == reference(), "run: python tests/test_docs.py"


def test_every_option_is_described():
    models = {f"{kind} {name}": registry.options(kind, name) for kind in KINDS for name in registry.names(kind)}
    models["the file"] = Settings
    assert [f"{of}: {row[0]}" for of, model in models.items() for row in _options(model) if not row[3]] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_names_every_part_there_is_and_no_other(kind):
    text = _section(f"### {KINDS[kind]}")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == registry.names(kind)


def test_the_readme_names_every_command_there_is_and_no_other():
    text = _section("### Commands")
    assert re.findall(r"^\| `(aiologs [a-z ]*[a-z])\b", text, re.MULTILINE) == [name for name, _ in commands()]


def _section(heading: str) -> str:
    return README.read_text().partition(f"{heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize("path", [README, *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_configurations_in_the_readme_are_without_mistakes(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    whole = [block for block in blocks if "outputs:" in block]
    assert whole
    for n, block in enumerate(whole):
        path = tmp_path / f"{n}.yaml"
        path.write_text(block)
        load(path)


@pytest.mark.parametrize("path", [README, *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_metric_that_is_mentioned_exists(path):
    known = {metric.full_name for metric in METRICS}
    mentioned = set(re.findall(r"\baiologs_[a-z_]+", path.read_text()))
    assert mentioned <= known


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", README.read_text())) <= targets


def test_the_makers_of_metrics_declare_them():
    used = {
        name
        for folder in ("pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"\b(?:count|gauge|observe)\(\s*\"([a-z_]+)\"", path.read_text())
    }
    assert used <= {metric.name for metric in METRICS}


def test_the_stage_in_the_readme_works():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    stage = names["Length"](names["Length"].Options())
    assert stage([{"message": "four"}]) == [{"message": "four", "length": 4}]


@pytest.mark.slow
def test_every_command_that_the_demo_prints_works():
    told = subprocess.run([sys.executable, "-m", "bench.demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    printed = re.findall(r"^ +\$ (.+)$", told.stdout, re.MULTILINE)
    assert len(printed) > 5
    for command in printed:
        subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True)


if __name__ == "__main__":
    REFERENCE.write_text(reference())

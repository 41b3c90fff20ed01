"""The configuration file → checked, frozen objects; or every mistake in it at once, each with its place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from pipeline import registry
from pipeline.chain import ChainSpec, StageSpec
from pipeline.condition import Condition
from pipeline.contract import Unusable
from pipeline.dead import Limits
from pipeline.log import LogOptions
from pipeline.registry import Kind
from pipeline.settings import Expectation, Settings
from pipeline.validation import problems
from pipeline.yaml_positions import Mark, Place, Problem, Tree, parse

NOTHING: AbstractSet[str] = frozenset()
_SETTINGS = ("data_dir", "workers", "admin", "host", "reload", "drain_seconds", "dead_letters", "log", "tests")
_EVERYWHERE = {"", "0.0.0.0", "[::]", "::"}  # noqa: S104 - to be compared with
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ConfigError(Unusable):
    """What is wrong in a configuration file: all of it, in the order of the file."""

    def __init__(self, path: Path, text: str, problems: list[Problem]) -> None:
        self.path, self.problems = path, sorted(problems)
        self.texts = [problem.show(str(path), text) for problem in self.problems]
        super().__init__("\n".join(self.texts))


@dataclass(frozen=True, slots=True)
class InputPart:
    """An input as configured."""

    name: str
    type: str
    options: BaseModel
    decode: StageSpec
    mark: Mark


@dataclass(frozen=True, slots=True)
class OutputPart:
    """An output as configured."""

    name: str
    type: str
    options: BaseModel
    mark: Mark


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration without mistakes."""

    path: Path
    text: str = field(repr=False)
    data_dir: Path
    workers: int
    admin: str | None
    host: str
    reload: Literal["on_signal", "on_change"]
    drain_seconds: float
    dead_letters: Limits
    log: LogOptions
    inputs: dict[str, InputPart]
    stages: list[StageSpec]
    outputs: dict[str, OutputPart]
    tests: list[Expectation]
    marks: dict[str, Mark]
    """Where each stage stands in the file, by name; a route that was added has none."""
    test_marks: list[Mark]
    """Where each test stands in the file."""

    def chain_spec(self) -> ChainSpec:
        """What a worker needs to build its chain."""
        return ChainSpec(self.stages, {name: part.decode for name, part in self.inputs.items()})

    def mark(self, stage: str) -> Mark:
        """Where a stage or a decoder stands in the file, by its name."""
        used = (part.mark for part in self.inputs.values() if part.decode.name == stage)
        return self.marks.get(stage) or next(used, Mark(1, 1))

    def problem(self, mark: Mark, message: str) -> str:
        """A message about a place in this file, shown like the mistakes in it."""
        return Problem(mark, message).show(str(self.path), self.text)


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read and check a configuration file; raises `ConfigError` with all that is wrong in it, and plain `Unusable`
    where it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{path}: can't read it: {error.strerror}; -c FILE says which file is read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", [Problem(Mark(0, 0), f"can't read it: {error}")]) from error
    return _Reader(path, text, parse(text, environment)).config()


class _Reader:
    """Turns a parsed file into a `Config`, noting problems on its way."""

    def __init__(self, path: Path, text: str, tree: Tree) -> None:
        self.path, self.text, self.tree = path, text, tree
        self.problems = list(tree.problems)
        self.marks: dict[str, Mark] = {}

    def config(self) -> Config:
        if self.tree.value is None and self.problems:
            raise ConfigError(self.path, self.text, self.problems)
        top = self.tree.value if isinstance(self.tree.value, dict) else {}
        # An empty section is one that is not there; only `admin: null` says something.
        top = {key: value for key, value in top.items() if value is not None or key == "admin"}
        settings: Settings | None = self.validate(Settings, top or self.tree.value or {}, ())
        inputs = [self.input(name, ("inputs", name), each) for name, each in self.named(top, "input")]
        outputs = [self.output(name, ("outputs", name), each) for name, each in self.named(top, "output")]
        stages = self.stages(top.get("stages"))
        if settings:
            self.sources(settings)
            self.addresses(settings.admin, [part for part in inputs if part])
            self.paths([part for part in outputs if part])
        if settings is None or self.problems:
            raise ConfigError(self.path, self.text, self.problems)
        return Config(
            path=self.path,
            text=self.text,
            inputs={part.name: part for part in inputs if part},
            stages=stages,
            outputs={part.name: part for part in outputs if part},
            marks=self.marks,
            test_marks=[self.tree.mark(("tests", n)) for n in range(len(settings.tests))],
            **{key: getattr(settings, key) for key in _SETTINGS},
        )

    def wrong(self, mark: Mark, message: str) -> None:
        """Note a problem; what follows from another one at the same place is not worth a word."""
        if mark not in {problem.mark for problem in self.problems}:
            self.problems.append(Problem(mark, message))

    def named(self, top: dict[str, Any], kind: Kind) -> Iterator[tuple[str, Any]]:
        """The entries of `inputs:` or `outputs:`."""
        section = top.get(f"{kind}s")
        if not section:
            message = f"there are no {kind}s; `aiologs stages --kind {kind}` lists them"
            self.problems.append(Problem(self.tree.key((f"{kind}s",)), message))
        for name, value in section.items() if isinstance(section, dict) else ():
            if _PART_NAME.fullmatch(name):
                yield name, value
            else:
                mark = self.tree.key((f"{kind}s", name))
                self.wrong(mark, f"{name!r} is no good name: only letters, digits and _ . - (it names metrics)")

    def input(self, name: str, place: Place, value: Any) -> InputPart | None:
        own = dict(value) if isinstance(value, dict) else value
        decode = own.pop("decode", "json") if isinstance(own, dict) else "json"
        decoder = self.decoder((*place, "decode"), decode)
        part = self.part("input", place, own)
        return InputPart(name, *part, decoder, self.tree.key(place)) if part and decoder else None

    def output(self, name: str, place: Place, value: Any) -> OutputPart | None:
        part = self.part("output", place, value)
        return OutputPart(name, *part, self.tree.key(place)) if part else None

    def part(self, kind: Kind, place: Place, value: Any) -> tuple[str, BaseModel] | None:
        """The type and the options of an input or output."""
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            mark = self.tree.marks.get((*place, "type")) or self.tree.key(place)
            self.wrong(mark, f"an {kind} needs a `type:`, one of {', '.join(registry.names(kind))}")
            return None
        options = {key: each for key, each in value.items() if key != "type"}
        beside = {"type", "decode"} if kind == "input" else {"type"}
        made = self.options(kind, value["type"], self.tree.mark((*place, "type")), options, place, beside)
        return (value["type"], made) if made else None

    def options(
        self, kind: Kind, type_: str, at: Mark, value: Any, place: Place, beside: AbstractSet[str] = NOTHING
    ) -> BaseModel | None:
        """The validated options of a part whose type stands at `at` and whose options stand at `place`."""
        try:
            model = registry.options(kind, type_)
        except registry.Unknown as error:
            self.wrong(at, str(error))
            return None
        made: BaseModel | None = self.validate(model, {} if value is None else value, place, beside)
        return made

    def decoder(self, place: Place, value: Any) -> StageSpec | None:
        entry = self.entry(place, value)
        if entry is None:
            return None
        type_, options, at = entry
        made = self.options("stage", type_, self.tree.key(at), options, at)
        if made and not hasattr(registry.find("stage", type_), "decode"):
            known = ", ".join(registry.decoders())
            self.wrong(self.tree.key(at), f"the stage {type_!r} can't decode; those that can: {known}")
        return StageSpec(type_, type_, made) if made else None

    def stages(self, section: Any) -> list[StageSpec]:
        """The stages, and a `route` at the end where there is none."""
        specs: list[StageSpec] = []
        for n, value in enumerate(section if isinstance(section, list) else ()):
            if spec := self.stage(("stages", n), value, {each.name for each in specs}):
                specs.append(spec)
        if not any(spec.type == "route" for spec in specs) and not self.problems:
            specs.append(StageSpec("route", "route", registry.options("stage", "route")()))
        return specs

    def stage(self, place: Place, value: Any, taken: set[str]) -> StageSpec | None:
        entry = self.entry(place, value)
        if entry is None:
            return None
        type_, options, at = entry
        own = dict(options) if isinstance(options, dict) else options
        when, name = (own.pop(key, None) if isinstance(own, dict) else None for key in ("when", "name"))
        if when is not None:
            self.condition(when, (*at, "when"))
        made = self.options("stage", type_, self.tree.key(at), own, at, {"when", "name"})
        unique = self.name(type_, name, taken, (*at, "name"))
        self.marks[unique] = self.tree.key(at)
        return StageSpec(unique, type_, made, when) if made else None

    def name(self, type_: str, name: Any, taken: set[str], place: Place) -> str:
        """The stage's name in metrics and dead letters: as given, else its type, with a number from the second on."""
        if name is None:
            numbered = (f"{type_}-{n}" for n in range(2, len(taken) + 3))
            return type_ if type_ not in taken else next(each for each in numbered if each not in taken)
        if not isinstance(name, str) or not _PART_NAME.fullmatch(name):
            self.wrong(self.tree.mark(place), f"{name!r} is no good name: only letters, digits and _ . -")
        elif name in taken:
            self.wrong(self.tree.mark(place), f"another stage is named {name!r} already")
        return str(name)

    def condition(self, when: Any, place: Place) -> None:
        try:
            if not isinstance(when, str):
                raise ValueError("a condition is a text, like 'level == \"error\"'")  # noqa: TRY004, TRY301 - one form
            Condition(when)
        except ValueError as error:
            self.wrong(self.tree.mark(place), f"when: {error}")

    def entry(self, place: Place, value: Any) -> tuple[str, Any, Place] | None:
        """The type and the options of a stage, given as `name` or as `name: {…}`, and where they stand."""
        if isinstance(value, str):
            return value, None, place
        if isinstance(value, dict) and len(value) == 1:
            type_, options = next(iter(value.items()))
            return type_, options, (*place, type_)
        mark = self.tree.mark(place)
        if isinstance(value, dict) and value:
            first, second, *_ = value
            hint = f"; indent {second!r} if it is an option of {first!r}"
            mark = self.tree.key((*place, second))
        else:
            hint = ""
        self.wrong(mark, f"a stage is its name, or one name with its options: `- tag: {{add: [x]}}`{hint}")
        return None

    def sources(self, settings: Settings) -> None:
        for n, test in enumerate(settings.tests):
            if test.source is not None and test.source not in settings.inputs:
                hint = registry.nearest(test.source, list(settings.inputs))
                self.wrong(self.tree.mark(("tests", n, "source")), f"there is no input {test.source!r}{hint}")

    def addresses(self, admin: str | None, inputs: list[InputPart]) -> None:
        """See that no two listen on one port; UDP has ports of its own."""
        asked: list[tuple[str, str, object, Place]] = [("`admin:`", "", admin, ())]
        for part in inputs:
            asked += [(f"input {part.name!r}", part.type, getattr(part.options, "listen", None), ("inputs", part.name))]
        taken: list[tuple[str, bool, str, str]] = []
        for who, type_, address, place in asked:
            host, _, port = str(address or "").rpartition(":")
            for other, datagrams, its_host, its_port in taken:
                same = host == its_host or not {host, its_host}.isdisjoint(_EVERYWHERE)
                if same and port == its_port and datagrams == (type_ == "udp"):
                    self.wrong(self.tree.mark((*place, "listen")), f"{other} listens on port {port} already")
            if port.strip("0"):  # 0 is any that is free
                taken.append((who, type_ == "udp", host, port))

    def paths(self, outputs: list[OutputPart]) -> None:
        """See that no two write to one file or folder."""
        taken: dict[Path, str] = {}
        for part in outputs:
            path = getattr(part.options, "path", None)
            if path is not None and (first := taken.setdefault(Path(path).absolute(), part.name)) != part.name:
                self.wrong(self.tree.mark(("outputs", part.name, "path")), f"output {first!r} writes there already")

    def validate(self, model: type[BaseModel], value: Any, place: Place, beside: AbstractSet[str] = NOTHING) -> Any:
        """The model's instance; None with problems at the places that its errors concern."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for problem in problems(error, model, self.tree, place, beside):
                self.wrong(*problem)
            return None

"""What a replay is to do, and what follows from that: its inputs, its chain, its outputs, and where it remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from pipeline import registry
from pipeline.chain import ChainSpec, StageSpec
from pipeline.condition import Condition
from pipeline.config import Config, InputPart, OutputPart
from pipeline.contract import Unusable
from pipeline.identity import log_called
from pipeline.replay.sources import Dead, Files, Index, Source, Topic, elsewhere
from pipeline.yaml_positions import Mark

PERIOD, WHERE = "--from/--to", "--where"
"""The stages that leave events out, by their names in the counts."""


@dataclass(frozen=True, slots=True)
class Job:
    """A replay as it was asked for."""

    config: Config
    words: Sequence[str]
    """The sources as they were given."""
    sources: Sequence[Source]
    input: str | None = None
    """The input whose decoder and options are used; None: the one that fits."""
    name: str | None = None
    """What the files are to identities: a path, or a folder with `/` behind it; None: what they are called."""
    host: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    where: str | None = None
    into: str | None = None
    """An output of the configuration, `-`, or a folder; None: all outputs."""
    rate: float | None = None
    """Records a second."""
    limit: int | None = None
    """Records."""

    @property
    def folder(self) -> Path:
        """Where it remembers how far it is: the same for the same question."""
        asked = self.input, self.name, self.host, self.since, self.until, self.where, self.into, self.limit, Path.cwd()
        digest = blake2b(orjson.dumps([*self.words, *map(str, asked)]), digest_size=6).hexdigest()
        return self.config.data_dir / "replay" / digest

    def chain(self, inputs: Sequence[InputPart]) -> ChainSpec:
        """The configured stages, and behind them what leaves events out."""
        spec = self.config.chain_spec()
        decoders = spec.decoders | {part.name: part.decode for part in inputs}
        return ChainSpec([*spec.stages, *self._filters()], decoders)

    def _filters(self) -> Iterator[StageSpec]:
        # As the stage `timestamp` writes it: UTC, and so in the order of its characters.
        time, tests = 'field("@timestamp")', []
        if self.since:
            tests.append(f"{time} >= {_second(self.since)}")
        if self.until:
            tests.append(f"{time} < {_second(self.until)}")
        if tests:
            yield _unless(PERIOD, " and ".join([f'{time}.endswith("Z")', *tests]))
        if self.where:
            yield _unless(WHERE, self.where)

    def outputs(self) -> list[OutputPart]:
        """Where it writes; raises `Unusable`."""
        parts = self.config.outputs
        if self.into is None:
            return list(parts.values())
        if self.into in parts:
            return [parts[self.into]]
        if self.into == "-":
            return [_output("stdout", "console", {"format": "ndjson"})]
        if "/" in self.into:
            return [_output("folder", "file", {"path": self.into})]
        hint = registry.nearest(self.into, list(parts))
        raise Unusable(f"--into: there is no output {self.into!r}{hint}; a folder has a / in it")


def _unless(name: str, condition: str) -> StageSpec:
    """A stage that drops what a condition does not hold for; raises `Unusable` for one that is none."""
    try:
        Condition(condition)
    except ValueError as error:
        raise Unusable(f"{name}: {error}") from error
    return StageSpec(name, "drop", registry.options("stage", "drop")(), f"not ({condition})")


def _second(time: datetime) -> str:
    if time.microsecond:
        raise Unusable(f"--from and --to take whole seconds, not {time.isoformat()}")
    return orjson.dumps(f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}").decode()


def _output(name: str, type_: str, options: dict[str, Any]) -> OutputPart:
    return OutputPart(name, type_, registry.options("output", type_)(**options), Mark(1, 1))


# --- which input a source comes from ---


def part_of(source: Source, job: Job) -> InputPart:
    """The configured input that would have read a source; raises `Unusable` where it can't be told."""
    inputs = job.config.inputs
    if isinstance(source, Index | Dead):
        return _stored(job)
    if job.input is not None:
        if job.input not in inputs:
            hint = registry.nearest(job.input, list(inputs))
            raise Unusable(f"--input: there is no input {job.input!r}{hint}")
        return inputs[job.input]
    fitting = [part for part in inputs.values() if _fits(source, part, job)]
    of_type = [part for part in inputs.values() if part.type == ("kafka" if isinstance(source, Topic) else "file")]
    for some in (fitting, of_type, [*inputs.values()]):
        if len(some) == 1:
            return some[0]
    raise Unusable(f"which input would have read that? Say --input NAME; there is {', '.join(inputs)}")


def _fits(source: Source, part: InputPart, job: Job) -> bool:
    """Whether this input reads, or read, such a source."""
    options: Any = part.options
    if isinstance(source, Topic):
        return part.type == "kafka" and source.name in options.topics
    names = source.paths if isinstance(source, Files) else ()
    if job.name is not None:
        names = tuple(log_called(job.name, each) for each in names or [job.name])
    return part.type == "file" and bool(names) and not any(elsewhere(each, options.paths) for each in names)


def _stored(job: Job) -> InputPart:
    """An input for what is JSON already: the one asked for, else the first that decodes JSON."""
    json = StageSpec("json", "json", registry.options("stage", "json")())
    some = [job.config.inputs[job.input]] if job.input in job.config.inputs else [*job.config.inputs.values()]
    for part in some:
        if part.decode.type == "json":
            return part
    return replace(some[0], name="replay", decode=json)


# --- the options that its texts are read with ---


def checked(part: InputPart, paths: Sequence[str], job: Job) -> None:
    """Raise `Unusable` where the ids of these files would not be those of live."""
    own: Any = part.options
    if job.name is not None or part.type != "file" or own.name is not None:
        return
    for path in paths:
        if elsewhere(path, own.paths):
            raise Unusable(
                f"{path} is not where input {part.name} reads ({', '.join(own.paths)}): its documents would have other "
                "ids than live ones, and be stored a second time. Say what it was: --as /var/log/app.log or, for "
                "several logs, --as FOLDER/ (the folder where it is, if it was never read elsewhere)"
            )


def text_options(type_: str, part: InputPart, job: Job, **values: Any) -> BaseModel:
    """Options of an input of this type to read what `part` would have read, with `values` for some of them."""
    options, own = registry.options("input", type_), part.options
    shared = options.model_fields if part.type in {"file", "stdin"} else ("max_line_bytes", "multiline")
    inherited = {name: getattr(own, name) for name in shared if hasattr(own, name)}
    asked = {"name": job.name, "host": job.host}
    return options(**inherited | {name: value for name, value in asked.items() if value is not None} | values)

"""What `aiologs check` finds: the file itself, its stages, its tests, and with `--connect` what it names."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline import registry
from pipeline.chain import Chain, Processed
from pipeline.config import Config, ConfigError, load
from pipeline.contract import Batch, Unusable
from pipeline.fields import getter
from pipeline.settings import Expectation


@dataclass(slots=True)
class Report:
    """Everything that was found; without problems the configuration is good."""

    path: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """What was looked at and is in order."""

    def __str__(self) -> str:
        """The report, for people."""
        if self.problems:
            count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
            return "\n".join([*self.warnings, *self.problems, f"{self.path}: {count}"])
        return "\n".join([*self.warnings, f"{self.path}: OK", *(f"  {line}" for line in self.found)])


def check(path: Path, *, connect: bool = False) -> Report:
    """Check a file and what it names; raises `Unusable` where it can't be read, never for what is wrong in it."""
    report = Report(str(path))
    try:
        config = load(path)
    except ConfigError as error:
        report.problems = error.texts
        return report
    report.found = _parts(config)
    report.warnings += _too_early(config)
    chain = _chain(config, report, connect=connect)
    if chain is not None:
        report.warnings += chain.warnings
        report.problems += failing(config, chain)
        if config.tests:
            report.found.append(f"tests    {len(config.tests)}")
    elif config.tests:
        report.warnings.append("tests: not run, because not every stage can be built here")
    if connect:
        from pipeline.probe import probe  # noqa: PLC0415 - sockets and TLS are only for --connect

        for what, problem in probe(config):
            report.found.append(what) if problem is None else report.problems.append(f"{what}: {problem}")
    return report


def build(config: Config, *, splice: bool = True) -> Chain:
    """The chain; raises `contract.Unusable` with each stage that can't be built and its place in the file."""
    try:
        return Chain(config.chain_spec(), splice=splice)
    except (Unusable, OSError, ValueError) as error:
        raise Unusable("\n".join(_message(config, *each) for each in _unbuildable(config))) from error


def _message(config: Config, name: str, error: Exception) -> str:
    return config.problem(config.mark(name), f"{name}: {error}")


def _parts(config: Config) -> list[str]:
    inputs = ", ".join(f"{part.name} ({part.type}, {part.decode.type})" for part in config.inputs.values())
    outputs = ", ".join(f"{part.name} ({part.type})" for part in config.outputs.values())
    stages = " → ".join(spec.name for spec in config.stages)
    return [f"inputs   {inputs}", f"stages   {stages}", f"outputs  {outputs}"]


def _too_early(config: Config) -> Iterator[str]:
    """A warning for each stage that looks for the day of an event before there is one."""
    types = [spec.type for spec in config.stages]
    if "timestamp" in types:
        for spec in config.stages[: types.index("timestamp")]:
            if spec.type == "route":
                hint = "it stands before timestamp, so events have no day yet and go to its undated index"
                yield f"warning: {config.problem(config.mark(spec.name), f'{spec.name}: {hint}')}"


def _chain(config: Config, report: Report, *, connect: bool) -> Chain | None:
    """The chain; None where a stage can't be built, with the reason in the report.

    A file that is missing here (a GeoIP database) is no mistake in the configuration: only `--connect` minds.
    """
    try:
        return Chain(config.chain_spec())
    except Exception:  # noqa: BLE001 - the loop below finds which stage it was
        for name, error in _unbuildable(config):
            message = _message(config, name, error)
            if FileNotFoundError in {type(error), type(error.__cause__)} and not connect:
                report.warnings.append(f"warning: {message}\n  The daemon does not start without it.")
            else:
                report.problems.append(message)
        return None


def _unbuildable(config: Config) -> Iterator[tuple[str, Exception]]:
    spec = config.chain_spec()
    for each in [*spec.stages, *spec.decoders.values()]:
        try:
            registry.find("stage", each.type)(each.options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the author of the configuration
            yield each.name, error


def failing(config: Config, chain: Chain) -> list[str]:
    """What is wrong with the records of the file's tests, by the place of each test."""
    wrong = ((n, test, list(_differences(test, _run(config, chain, test)))) for n, test in enumerate(config.tests))
    return [
        config.problem(config.test_marks[n], f"test {test.name!r}: {'; '.join(differences)}")
        for n, test, differences in wrong
        if differences
    ]


def _run(config: Config, chain: Chain, test: Expectation) -> Processed:
    record = test.input.encode() if isinstance(test.input, str) else orjson.dumps(test.input)
    return chain.run(Batch(test.source or next(iter(config.inputs)), record, "test", ends=array("Q", [len(record)])))


def _differences(test: Expectation, processed: Processed) -> Iterator[str]:
    """How what became of the record differs from what the test expects."""
    results = _results(processed)
    expected = test.expect if isinstance(test.expect, list) else [test.expect]
    if len(results) != len(expected):
        yield f"expected {len(expected)} documents, got {len(results)}"
        return
    for result, wanted in zip(results, expected, strict=True):
        if "@failed" in result and "@failed" not in wanted:
            yield f"set aside by {result['@failed']}: {result['@reason']}"
            continue
        for path, value in wanted.items():
            if (actual := getter(path)(result)) != value:
                yield f"{path} is {_shown(actual)}, expected {_shown(value)}"


def _results(processed: Processed) -> list[dict[str, Any]]:
    """Each document with its index and id; each failure with its stage and reason."""
    failed = [{"@failed": failure.stage, "@reason": failure.reason} for failure in processed.failures]
    stored = [
        {**orjson.loads(body), "@index": documents.index, "@id": id_}
        for documents in processed.documents
        for id_, body in documents.pairs()
    ]
    return [*failed, *sorted(stored, key=lambda each: str(each["@id"]))]


def _shown(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()

"""`aiologs dead`: look at what was set aside, try it again, or forget it.

`list`, `show` and `export` read the file, whether or not a daemon runs. `retry` and `purge` are done by the daemon
that runs or, where none does, here.
"""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that the others start fast

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline.causes import ALL, Filters

if TYPE_CHECKING:
    from pipeline.causes import Group
    from pipeline.config import Config
    from pipeline.letters import Letter

app = typer.Typer(
    help="Look at what was set aside, try it again, or forget it.",
    epilog="Exit codes: 0 all is well, 1 nothing was found or some of it failed again, 2 the command could not run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="AIOLOGS_CONFIG", metavar="FILE", help="The configuration file.")
]
DataDir = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the daemon keeps its files; else the configuration says.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
DEFAULT = Path("/etc/aiologs/aiologs.yaml")
FILTERS = {
    "id": ("ID", "Only those whose document id begins so."),
    "reason": ("TEXT", "Only those with this in their reason, in any letter case."),
    "stage": ("NAME", "Only those of this stage."),
    "input": ("NAME", "Only those of this input."),
    "index": ("NAME", "Only those for this index."),
    "output": ("NAME", "Only those that this output refused."),
}
"""The options that make up `Filters`: what each takes, and what it says."""


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in the place of its parameter `filters`, an option for each of them."""

    @wraps(command)
    def with_filters(**values: Any) -> None:
        command(filters=Filters(**{name: values.pop(name) for name in FILTERS}), **values)

    signature, parameters = inspect.signature(command, eval_str=True), []
    for each in signature.parameters.values():
        if each.name != "filters":
            parameters.append(each)
            continue
        for name, (metavar, text) in FILTERS.items():
            option = Annotated[str, typer.Option(f"--{name}", metavar=metavar, help=text)]
            parameters.append(each.replace(name=name, default="", annotation=option))
    with_filters.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_filters


@app.command("list", epilog='Example: aiologs dead list -c config/aiologs.yaml --reason "mapper_parsing"')
@_filtered
def list_(
    config: ConfigFile = DEFAULT,
    data_dir: DataDir = None,
    filters: Filters = ALL,
    json: Json = False,
) -> None:
    """Count dead letters by cause, with the id of one of each, the most frequent first."""
    from pipeline.dead import reading

    with reading(_data_dir(config, data_dir)) as reader:
        groups = reader.summary(filters)
    if json:
        _print_json(groups)
    elif groups:
        _print("\n".join(_table(groups)))
    _found(len(groups), filters)


class _Dashes(TyperCommand):
    """Takes an argument that begins with a dash, as an id may, for what it is; so `-c` is apart from its value here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name for each in self.params for name in each.opts} | {*ctx.help_option_names}
        ids = [each for each in args if len(each) > 2 and each[0] == "-" and each.partition("=")[0] not in options]
        rest = [each for each in args if each not in ids]
        return super().parse_args(ctx, [*rest, "--", *ids] if ids else rest)


@app.command(cls=_Dashes, epilog="Example: aiologs dead show -c config/aiologs.yaml 5f0c3a")
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The document id, or its beginning.")],
    config: ConfigFile = DEFAULT,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show a dead letter with its record as it was read. Beware: it may hold secrets, which no stage has redacted."""
    from itertools import islice

    from pipeline.dead import reading
    from pipeline.letter_json import plain

    with reading(_data_dir(config, data_dir)) as reader:
        letters = list(islice(reader.each(Filters(id=id_)), 20))
    letters = [letter for letter in letters if letter.id == id_] or letters
    if len(ids := {letter.id for letter in letters}) > 1:
        typer.echo("\n".join(["Several ids begin so:", *sorted(ids)]), err=True)
        raise typer.Exit(1)
    if letters:
        typer.echo("Beware: the record is as it was read, and may hold secrets.", err=True)
    if json:
        _print_json([plain(letter) for letter in letters])
    elif letters:
        _print("\n\n".join("\n".join(_lines(letter)) for letter in letters))
    _found(len(letters))


@app.command(epilog="Example: aiologs dead export -c config/aiologs.yaml > letters.ndjson")
@_filtered
def export(
    config: ConfigFile = DEFAULT,
    data_dir: DataDir = None,
    filters: Filters = ALL,
) -> None:
    """Write dead letters as lines of JSON, the oldest first, for `aiologs replay dead:FILE` or any other program.

    Beware: records are written as they were read, and may hold secrets. The letters stay.
    """
    import sys

    from pipeline.dead import reading
    from pipeline.letter_json import exported

    count = 0
    with reading(_data_dir(config, data_dir)) as reader:
        for letter in reader.each(filters):
            sys.stdout.buffer.write(exported(letter))
            count += 1
    sys.stdout.flush()
    _found(count, filters)


@app.command(epilog="Example: aiologs dead retry -c config/aiologs.yaml --stage timestamp")
@_filtered
def retry(
    config: ConfigFile = DEFAULT,
    data_dir: DataDir = None,
    filters: Filters = ALL,
    json: Json = False,
) -> None:
    """Take dead letters through the pipeline as it is configured now, under the same document ids.

    Those that are stored are forgotten; those that fail again stay.
    """
    from dataclasses import replace

    from pipeline.control import NoDaemon, ask

    folder = _data_dir(config, data_dir)
    try:
        result = ask(folder, "dead.retry", filters=asdict(filters))
    except NoDaemon:
        result = _retry_here(replace(_load(config), data_dir=folder), filters)
    if json:
        _print_json(result)
    elif result.get("tried"):
        _print(", ".join(f"{name.replace('_', ' ')} {n}" for name, n in result.items()))
    _found(result.get("tried", 0), filters)
    raise typer.Exit(1 if result.get("set_aside") else 0)


@app.command(epilog="Example: aiologs dead purge -c config/aiologs.yaml --input app --yes")
@_filtered
def purge(
    config: ConfigFile = DEFAULT,
    data_dir: DataDir = None,
    filters: Filters = ALL,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    json: Json = False,
) -> None:
    """Forget dead letters for good; without any filter, all of them."""
    from pipeline.control import NoDaemon, ask
    from pipeline.dead import reading

    folder = _data_dir(config, data_dir)
    with reading(folder) as reader:
        count = sum(group.count for group in reader.summary(filters))
    _found(count, filters)
    if not yes:
        typer.confirm(f"Forget {count} dead letters for good?", abort=True)
    try:
        removed = ask(folder, "dead.purge", filters=asdict(filters))["removed"]
    except NoDaemon:
        removed = _purge_here(folder, filters)
    if json:
        _print_json({"removed": removed})
    else:
        _print(f"{removed} removed")


# --- where no daemon runs ---


def _retry_here(config: Config, filters: Filters) -> dict[str, int]:
    import asyncio

    from pipeline.app import retry_dead
    from pipeline.database import lock
    from pipeline.dead import reading

    with lock(config.data_dir), reading(config.data_dir) as reader:
        result: dict[str, int] = asyncio.run(retry_dead(config, reader.each(filters)))
    return result


def _purge_here(folder: Path, filters: Filters) -> int:
    import asyncio

    from pipeline.database import lock
    from pipeline.dead import DeadLetters

    async def work() -> int:
        dead = DeadLetters(folder)
        await dead.start()
        try:
            return await dead.purge(filters)
        finally:
            await dead.stop()

    with lock(folder):
        return asyncio.run(work())


# --- helpers ---


def _load(path: Path) -> Config:
    from pipeline.config import load

    return load(path)


def _data_dir(config: Path, data_dir: Path | None) -> Path:
    return data_dir or _load(config).data_dir


def _found(count: int, filters: Filters | None = None) -> None:
    if not count:
        typer.echo("There are no dead letters." if filters == ALL else "There are no such dead letters.", err=True)
        raise typer.Exit(1)


def _table(groups: list[Group]) -> list[str]:
    """The groups in columns, the reason last since it may be long."""
    from pipeline.letter_json import moment

    head = ("count", "stage", "input", "index", "output", "last", "example", "reason")
    rows = [
        (str(each.count), each.stage, each.input, each.index, each.output, moment(each.last), each.sample, each.reason)
        for each in groups
    ]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def _lines(letter: Letter) -> list[str]:
    from pipeline.letter_json import plain

    values = plain(letter)
    long = {name: values.pop(name) for name in ("traceback", "record", "record_base64", "document") if name in values}
    short = [f"{name:<9} {value}" for name, value in values.items() if value not in ("", None, {})]
    return [
        *short,
        *(line for name, value in long.items() if value for line in ("", f"--- {name} ---", value.rstrip())),
    ]


def _print(text: str) -> None:
    """Print what records hold, without what would control a terminal."""
    typer.echo("".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text))


def _print_json(value: object) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())

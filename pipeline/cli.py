"""The command line.

Exit codes: 0 all is well · 1 the command ran and found a problem (a mistake in the file that `check` looked at, a
record that fails, a daemon that ended with an error) · 2 it could not run: wrong usage, or a configuration that does
not work.
"""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that `--version` and `check` start fast

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import __version__, dead_commands, replay_commands, setup_commands, watch_commands
from pipeline.contract import Unusable

app = typer.Typer(
    name="aiologs",
    help="A log pipeline daemon: files, HTTP, Beats and Kafka into Elasticsearch; nothing lost, nothing twice.",
    epilog="Exit codes: 0 all is well, 1 a problem was found, 2 the command could not run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, and with them events and secrets
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.add_typer(dead_commands.app, name="dead")
app.add_typer(setup_commands.app, name="setup")

File = Annotated[
    Path, typer.Option("--config", "-c", envvar="AIOLOGS_CONFIG", metavar="FILE", help="The configuration file.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
DEFAULT = Path("/etc/aiologs/aiologs.yaml")


def program() -> None:
    """Be the program `aiologs`: run a command, then end at once.

    All that has to be written is written by then. To free every object first, as the interpreter does, would take a
    daemon 50 ms of CPU time, an eighth of what its start takes.
    """
    try:
        main()
    except SystemExit as ended:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else bool(ended.code))


def main() -> None:
    """Run a command; what a user can mend ends with a message instead of a traceback."""
    # Imports make no garbage, and events come and go without cycles: looking for some seldom pays.
    gc.set_threshold(100_000, 20, 100)
    # pydantic would look through every installed package for plugins of its own.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except Unusable as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aiologs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A log pipeline daemon: files, HTTP, Beats and Kafka into Elasticsearch; nothing lost, nothing twice."""


@app.command(epilog="Example: aiologs run -c config/demo.yaml --once")
def run(
    config: File = DEFAULT,
    once: Annotated[bool, typer.Option("--once", help="Work off what is there, then exit.")] = False,
) -> None:
    """Run the daemon. SIGTERM or Ctrl-C stops it after what is under way; SIGHUP has it reload its configuration."""
    from pipeline import daemon

    raise typer.Exit(daemon.run(config, once=once))


@app.command(epilog="Example: aiologs reload -c /etc/aiologs/aiologs.yaml")
def reload(config: File = DEFAULT, data_dir: dead_commands.DataDir = None) -> None:
    """Have the running daemon take over its changed configuration; exit code 1 where that stays as it was."""
    from pipeline.config import load
    from pipeline.control import NoDaemon, ask

    folder = data_dir or load(config).data_dir
    try:
        answer = ask(folder, "reload")
    except NoDaemon as error:
        raise Unusable(f"no daemon runs on {folder}") from error
    except Unusable as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{answer['file']}: {answer['changed']}")


@app.command(epilog="Example: aiologs check -c config/aiologs.yaml --connect")
def check(
    config: File = DEFAULT,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also try the servers, files and addresses that it names.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a configuration file. Runs its tests, too; exit code 1 where something is wrong."""
    from pipeline.check import check as look

    report = look(config, connect=connect)
    print(_dumps(report) if json else report)
    raise typer.Exit(1 if report.problems else 0)


@app.command(epilog="Example: tail -n 1 app.log | aiologs explain -c config/demo.yaml --input app")
def explain(
    record: Annotated[str, typer.Argument(help="The record; - reads one from each line of the standard input.")] = "-",
    config: File = DEFAULT,
    source: Annotated[
        str | None, typer.Option("--input", metavar="NAME", help="The input that would read it; else the first.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what each stage does to a record. Works offline; exit code 1 where it would be set aside."""
    from pipeline.config import load
    from pipeline.explain import Walk
    from pipeline.registry import nearest

    loaded = load(config)
    source = source or next(iter(loaded.inputs))
    if source not in loaded.inputs:
        raise typer.BadParameter(f"there is no input {source!r}{nearest(source, list(loaded.inputs))}")
    walk, failed = Walk(loaded), False
    if record == "-" and sys.stdin.isatty():
        typer.echo("Records are read from here, one a line, until Ctrl-D.", err=True)
    given = sys.stdin.buffer.read().splitlines() if record == "-" else [record.encode(errors="surrogateescape")]
    if not (lines := [*filter(None, given)]):
        raise typer.BadParameter("there is no record: give one as the argument, or on the standard input")
    for line in lines:
        explanation = walk.follow(line, source)
        failed = failed or explanation.failed is not None
        print(_dumps(explanation) if json else explanation)
    raise typer.Exit(1 if failed else 0)


app.command(epilog=replay_commands.EXAMPLES)(replay_commands.replay)
app.command(epilog="Examples: aiologs top -c config/aiologs.yaml; aiologs top --once --json")(watch_commands.top)
app.command(epilog="Example: aiologs tap -c config/aiologs.yaml --where 'severity >= 17' --stage redact --limit 10")(
    watch_commands.tap
)


@app.command(epilog="Examples: aiologs stages; aiologs stages geoip; aiologs stages --kind output elasticsearch")
def stages(
    name: Annotated[str | None, typer.Argument(help="Show this one with its options.")] = None,
    kind: Annotated[Literal["stage", "input", "output"], typer.Option(help="What to list.")] = "stage",
    json: Json = False,
) -> None:
    """List stages, inputs or outputs. With a name: show that one with its options."""
    from pipeline.registry import Unknown, describe, names

    try:
        parts = [describe(kind, each) for each in ([name] if name else names(kind))]
    except Unknown as error:
        raise typer.BadParameter(str(error)) from error
    if json:
        print(_dumps(parts[0] if name else parts))
    elif name:
        print(parts[0])
    else:
        width = max(len(part.name) for part in parts)
        print("\n".join(f"{part.name:<{width}}  {part.summary}" for part in parts))


@app.command(epilog="Example: aiologs schema > aiologs.schema.json")
def schema() -> None:
    """Print the configuration's JSON schema. Editors check and complete with it."""
    from pipeline.schema import schema as made

    print(_dumps(made()))


def _dumps(value: object) -> str:
    import orjson

    return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()

"""`aiologs setup`: what Elasticsearch is to have before its first document, and whether it still has it."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that the others start fast

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.setup.cluster import Cluster

app = typer.Typer(
    help="Give Elasticsearch the lifecycle policies and templates that the logs need, and see whether it has them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="AIOLOGS_CONFIG", metavar="FILE", help="The configuration file.")
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="NAME", help="Only this output of type elasticsearch; else each.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
DEFAULT = Path("/etc/aiologs/aiologs.yaml")


class _Target(NamedTuple):
    """An output of the configuration, and the cluster that it writes to."""

    name: str
    options: Any
    cluster: Cluster


@app.command(
    epilog="Exit codes: 0 everything is as wanted, 2 there is a difference, 1 it can't be told (the configuration is "
    "wrong, the cluster is away or refuses). Example: aiologs setup plan -c config/aiologs.yaml"
)
def plan(config: ConfigFile = DEFAULT, output: Output = None, json: Json = False) -> None:
    """Show how the cluster differs from what is wanted; changes nothing.

    + is missing, ~ was written by aiologs with another version or configuration, ! was changed by somebody else, = was
    written by a newer aiologs and stays as it is.
    """
    from pipeline.setup.plan import look

    with _problems(exit_code=1):
        plans = {
            name: look(cluster, options.mode, options.definitions)
            for name, options, cluster in _targets(config, output)
        }
    _print_each(plans, json=json)
    raise typer.Exit(0 if all(each.clean for each in plans.values()) else 2)


@app.command(
    epilog="Exit codes: 0 everything is as wanted now, 1 something stands in the way, 2 it could not run. "
    "Example: aiologs setup apply -c config/aiologs.yaml"
)
def apply(config: ConfigFile = DEFAULT, output: Output = None, json: Json = False) -> None:
    """Make the cluster as wanted; what is so already is not touched. Many may do it at once.

    Also takes back what somebody has changed by hand: look at `plan` before.
    """
    from pipeline.setup import plan as planning

    left = {}
    with _problems(exit_code=2):
        for name, options, cluster in _targets(config, output):
            before = planning.look(cluster, options.mode, options.definitions)

            def done(change: Any) -> None:
                if not json:
                    typer.echo(f"{'made' if change.origin == 'missing' else 'updated'} {change.kind} {change.name}")

            planning.apply(cluster, before, done=done)
            left[name] = planning.look(cluster, options.mode, options.definitions)
    _print_each(left, json=json)
    raise typer.Exit(0 if all(each.clean for each in left.values()) else 1)


@app.command(
    epilog="Exit codes: 0 nothing is wrong (any more), 1 something is, 2 it could not run. "
    "Example: aiologs setup doctor -c config/aiologs.yaml --repair"
)
def doctor(
    config: ConfigFile = DEFAULT,
    output: Output = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    json: Json = False,
) -> None:
    """Look for what is commonly wrong with indices and their lifecycle. Each finding says what to do."""
    from pipeline.setup.doctor import examine, mend

    with _problems(exit_code=2):
        loaded = _load(config)
        found = {}
        for name, options, cluster in _targets(config, output):
            routes = _routes(loaded)
            findings = examine(cluster, options.mode, options.definitions, routes)
            if repair:
                mend(cluster, findings)
                for each in findings if not json else []:
                    if each.outcome:
                        typer.echo(f"{each.where}: {each.outcome}")
                findings = examine(cluster, options.mode, options.definitions, routes)
            found[name] = findings
    if json:
        _print_json({name: [each.as_dict() for each in findings] for name, findings in found.items()})
    else:
        for name, findings in found.items():
            told = "\n".join(map(str, findings)) or "Nothing is wrong."
            typer.echo(f"output {name}:\n{told}" if len(found) > 1 else told)
    raise typer.Exit(1 if any(found.values()) else 0)


# --- helpers ---


@contextmanager
def _problems(*, exit_code: int) -> Iterator[None]:
    """End with a message instead of a traceback where the configuration or the cluster is at fault."""
    from pipeline.contract import Unusable
    from pipeline.setup.cluster import Away, Refused
    from pipeline.setup.plan import Unfit

    try:
        yield
    except Away as away:
        typer.echo(f"no Elasticsearch answers: {away}; look at `hosts` of the output", err=True)
    except (Unusable, Refused, Unfit) as error:
        typer.echo(str(error), err=True)
    else:
        return
    raise typer.Exit(exit_code)


def _load(path: Path) -> Config:
    from pipeline.config import load

    return load(path)


def _targets(config: Path, wanted: str | None) -> list[_Target]:
    from pipeline.contract import Unusable
    from pipeline.registry import nearest
    from pipeline.setup.cluster import connect

    parts = {part.name: part for part in _load(config).outputs.values() if part.type == "elasticsearch"}
    if not parts:
        raise Unusable(f"{config} has no output of type elasticsearch: there is nothing to set up")
    if wanted is not None and wanted not in parts:
        raise Unusable(f"there is no output {wanted!r} of type elasticsearch{nearest(wanted, list(parts))}")
    chosen = [parts[wanted]] if wanted is not None else list(parts.values())
    return [_Target(part.name, part.options, connect(part.options)) for part in chosen]


def _routes(config: Config) -> list[str]:
    """The names of indices that the configuration's `route` stages give, as they are written there."""
    options: list[Any] = [spec.options for spec in config.stages if spec.type == "route"]
    return [name for each in options for name in (*(rule.index for rule in each.rules), each.default)]


def _print_each(plans: dict[str, Any], *, json: bool) -> None:
    if json:
        _print_json({name: each.as_dict() for name, each in plans.items()})
        return
    for name, each in plans.items():
        typer.echo(f"output {name}: {each}" if len(plans) > 1 else str(each))


def _print_json(value: object) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())

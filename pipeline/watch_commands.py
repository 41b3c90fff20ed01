"""`aiologs top` and `aiologs tap`: look at a daemon while it runs."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that the others start fast

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.through import Passed, Through

DEFAULT = Path("/etc/aiologs/aiologs.yaml")
ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="AIOLOGS_CONFIG", metavar="FILE", help="The configuration file.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, one object a line, for programs.")]


def top(
    config: ConfigFile = DEFAULT,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ask this daemon, and need no configuration file.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print that, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    json: Json = False,
) -> None:
    """Show what the running daemon does: rates, fates, lag, who waits for whom. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    from pipeline.top import screen

    views = _views(address or _address(config), interval)
    if once or json:
        for seen in views:
            if json:
                _print_json(seen)
            else:
                Console().print(screen(seen))
            if once:
                return
    with contextlib.suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        for seen in views:
            live.update(screen(seen), refresh=True)


def _address(config: Path) -> str:
    from pipeline.config import load
    from pipeline.contract import Unusable

    address = load(config).admin
    if address is None:
        raise Unusable(f"{config} has `admin: null`, so the daemon can't be asked: give it an address")
    return address


def _views(address: str, interval: float) -> Iterator[dict[str, Any]]:
    from pipeline.top import look, view

    before = look(address)
    while True:
        time.sleep(interval)
        now = look(address)
        yield view(before, now)
        before = now


def tap(
    config: ConfigFile = DEFAULT,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Only events for which this holds, before or after: see `when:`."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show them before and after this stage; else after all.")
    ] = None,
    source: Annotated[str | None, typer.Option("--input", metavar="NAME", help="Only those of this input.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="End after so many; 0: go on until Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """Show events as they pass through the running daemon, without their secrets.

    The file's stages are run here, so they are those in force if it was loaded since it was changed. The daemon hands
    over what it can spare: what is too much is counted and left out.
    """
    from pipeline.condition import Condition
    from pipeline.config import load
    from pipeline.contract import Unusable
    from pipeline.control import NoDaemon
    from pipeline.registry import nearest
    from pipeline.through import Through

    loaded = load(config)
    names = [spec.name for spec in loaded.stages]
    for kind, name, known in (("stage", stage, names), ("input", source, [*loaded.inputs])):
        if name is not None and name not in known:
            raise typer.BadParameter(f"there is no {kind} {name!r}{nearest(name, known)}")
    if where:
        try:
            Condition(where)
        except ValueError as error:
            raise typer.BadParameter(f"--where: {error}") from error
    through, shown, lost = Through(loaded, stage, where), 0, 0
    try:
        for record, missed in _records(loaded.data_dir, source):
            lost += missed
            passed = _follow(through, record)
            if passed is None:
                continue
            _print_json(passed) if json else typer.echo(_text(passed))
            shown += 1
            if limit and shown >= limit:
                break
    except NoDaemon as error:
        raise Unusable(f"no daemon runs on {loaded.data_dir}: start one with `aiologs run -c {config}`") from error
    except KeyboardInterrupt:
        pass
    typer.echo(f"{shown} events shown, {lost} more records have passed unseen", err=True)


def _records(data_dir: Path, source: str | None) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Records that come in, each with how many were lost since the one before."""
    from pipeline.control import ask

    name = f"{os.getpid()}-{time.time()}"
    try:
        while True:
            answer = ask(data_dir, "tap", tap=name, input=source)
            yield None, answer["lost"]
            for record in answer["records"]:
                yield record, 0
    finally:
        with contextlib.suppress(Exception):  # it may have ended; it forgets taps by itself
            ask(data_dir, "tap.end", tap=name)


def _follow(through: Through, record: dict[str, Any] | None) -> Passed | None:
    if record is None:
        return None
    return through.follow(record["input"], record["id"], base64.b64decode(record["record"]), record["origin"])


def _text(passed: Passed) -> str:
    import orjson

    lines = [f"{passed.input} {passed.id}"]
    for label, events in (("before", passed.before), ("after ", passed.after)):
        lines += [f"  {label} {orjson.dumps(event, default=str).decode()}" for event in events]
    if passed.failed:
        lines.append(f"  set aside by {passed.failed}")
    elif not passed.after:
        lines.append("  dropped")
    return "\n".join("".join(each if each.isprintable() else ascii(each)[1:-1] for each in line) for line in lines)


def _print_json(value: object) -> None:
    import orjson

    typer.echo(orjson.dumps(value, default=str).decode())

"""`aiologs replay`: read again, or at last, what the daemon has not, or no more."""
# ruff: noqa: PLC0415 - the command imports what it needs when it runs, so that the others start fast

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.replay.engine import Summary
    from pipeline.replay.plan import Row

EXAMPLES = """\b
Examples:
  aiologs replay -c FILE /var/log/aio/app.log.*.gz
  aiologs replay -c FILE /backup/2026-11 --as /var/log/aio/ --host web1 --plan
  zcat app.log.3.gz | aiologs replay -c FILE - --as /var/log/aio/app.log
  aiologs replay -c FILE kafka:aio.logs@2026-11-20T06:00Z..2026-11-21
  aiologs replay -c FILE elasticsearch:aio-logs-2026.11.20 --into archive
  aiologs replay -c FILE dead:letters.ndjson --where 'category == "audit"'

Exit codes: 0 everything was read and nothing set aside; 1 something was set aside, is parked or damaged, or it was
interrupted; 2 it could not run.
"""
DEFAULT = Path("/etc/aiologs/aiologs.yaml")


def replay(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Files, patterns, folders, .gz, .zst, .tar.gz; - for the standard input; kafka:TOPIC, "
            "kafka:TOPIC@START or kafka:TOPIC@START..END with times or offsets; elasticsearch:INDEX; dead: for the "
            "dead letters, dead:FILE for exported ones.",
        ),
    ],
    config: Annotated[
        Path, typer.Option("--config", "-c", envvar="AIOLOGS_CONFIG", metavar="FILE", help="The configuration file.")
    ] = DEFAULT,
    input_: Annotated[
        str | None,
        typer.Option("--input", metavar="NAME", help="The input that would have read it; else the one that fits."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="PATH",
            help="Where the log was when it was read live, if not here: its path, or a folder with / behind it for "
            "logs under their own names. Document ids depend on it.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The host that it was read on, if not this one. Ids depend on it."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events from this @timestamp on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Only events before this @timestamp.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Only events for which this holds after all stages, as in `when:`."),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="OUTPUT",
            help="Only to this output of the configuration; - prints documents, and a folder (with a /) gets files.",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most so many records a second.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the first N records, for a try: the next run begins anew."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write nothing; say what would be written where, and what is there already.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin at the beginning, whatever an earlier run has read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Take logs that were written before through the pipeline, under the ids that they have live.

    What is stored already is recognised by its id, so it may run twice, and beside the daemon. An interrupted replay
    goes on where it was when the same command is given again.
    """
    from pipeline.config import load
    from pipeline.log import LogOptions, set_up
    from pipeline.replay.job import Job
    from pipeline.replay.run import run
    from pipeline.replay.sources import moment, parse

    set_up(LogOptions(level="warning", format="text"))  # the daemon's own log file is the daemon's
    job = Job(
        load(config),
        paths,
        parse(paths),
        input=input_,
        name=name,
        host=host,
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        where=where,
        into=into,
        rate=rate,
        limit=limit,
    )
    summary = run(job, again=again, plan=plan)
    typer.echo(_json(summary) if json else _text(summary, config), err=into == "-")
    raise typer.Exit(0 if summary.well else 1)


def _text(summary: Summary, config: Path) -> str:
    from datetime import UTC, datetime

    from pipeline.replay.progress import described

    counts = summary.counts
    lines = [*_table(summary.plan), "", "Nothing was written."] if summary.plan is not None else []
    lines += [f"{described(counts)}; {counts.bytes:,} bytes in {summary.seconds:.1f} s"]
    if summary.before and not counts.records:
        at = datetime.fromtimestamp(summary.before, UTC)
        lines.append(
            f"There is nothing new since this was replayed on {at:%Y-%m-%d %H:%M} UTC; --again reads all of it."
        )
    if not summary.finished:
        lines.append("Interrupted: the same command goes on from here.")
    if summary.errors:
        lines.append(f"Errors in the log above: {summary.errors}.")
    if summary.letters and summary.plan is None:
        lines.append(f"{summary.letters:,} set aside: aiologs dead list -c {config} --data-dir {summary.folder}")
    if counts.parked:
        lines.append(f"{counts.parked:,} documents are parked: the same command tries them again.")
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    """What each index would get, in columns."""
    head = ("output", "index", "documents", "there", "new", "")
    cells = [
        (row.output, row.index, f"{row.documents:,}", f"{row.already:,}", f"{row.documents - row.already:,}", notes)
        for row in sorted(rows, key=lambda row: (row.output, row.index))
        for notes in [", ".join(row.notes)]
    ]
    widths = [max(len(line[n]) for line in [head, *cells]) for n in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if n in {2, 3, 4} else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *cells]
    ]


def _json(summary: Summary) -> str:
    from dataclasses import asdict

    import orjson

    return orjson.dumps(asdict(summary), option=orjson.OPT_INDENT_2).decode()

"""The main job on the sample logs, told for a newcomer: `make demo`.

usage: python -m bench.demo [show ID]
Runs `aiologs run --once -c config/demo.yaml` into an empty store, and prints what became of the records; or shows one
document of the store.
"""

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.table import Table

from pipeline.causes import Group
from pipeline.chain import Chain
from pipeline.config import load
from pipeline.contract import Batch
from pipeline.dead import reading
from pipeline.outputs import local

CONFIG, DATA = Path("config/demo.yaml"), Path("var/demo")
STORE, LOG = DATA / "aiologs.db", DATA / "aiologs.log"
SAMPLES = sorted(Path("config/demo").glob("*.log*"))
BIN = Path(sys.executable).parent
WHAT = {
    "aio-security-audit": "audit",
    "aio-security": "security",
    "aio-errors-critical": "severity 21 and more",
    "aio-errors": "severity 17 to 20",
    "aio-logs-performance": "performance",
    "aio-logs-undated": "no usable time: never passed off as today's",
    "aio-logs": "everything else",
}

Document = tuple[str, str, dict[str, Any]]
"""Index, id and content."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass
class Run:
    """How the daemon's run went, by its own log."""

    command: str
    starting: float
    """Seconds from its first message until it was ready."""
    working: float
    """Seconds from then until everything was stored."""


def run() -> Run:
    """Run the daemon over the sample logs; ends the program where it fails."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    command = [str(BIN / "aiologs"), "run", "--once", "-c", str(CONFIG)]
    with LOG.open("wb") as log:
        code = subprocess.run(command, stderr=log, check=False).returncode
    if code:
        sys.exit(f"{shlex.join(command)} ended with {code}:\n{LOG.read_text()}")
    messages = [json.loads(line) for line in LOG.read_text().splitlines()]
    first, ready, last = (
        datetime.fromisoformat(each["@timestamp"])
        for each in (messages[0], next(each for each in messages if each["message"].startswith("ready")), messages[-1])
    )
    return Run(_shown(command), (ready - first).total_seconds(), (last - ready).total_seconds())


def _shown(command: Iterable[str]) -> str:
    """A command as one types it here."""
    return shlex.join(command).replace(f"{BIN}/", f"{os.path.relpath(BIN)}/")


def documents() -> list[Document]:
    """All documents in the store."""
    with closing(sqlite3.connect(STORE)) as db:
        rows = db.execute('SELECT "index", id, document FROM documents ORDER BY 1, rowid').fetchall()
    return [(index, id_, json.loads(text)) for index, id_, text in rows]


# --- the telling ---


def tell(title: str, rows: Iterable[tuple[str, ...]], *columns: str) -> None:
    """Print a table; its first column is aligned to the right where it holds numbers."""
    rows = list(rows)
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(columns))
    for row in rows:
        table.add_row(*row)
    if rows and rows[0][0].replace(",", "").isdigit():
        table.columns[0].justify = "right"
    console.print(f"[bold]{title}[/]", table)


def tell_indices(stored: list[Document]) -> None:
    """The documents by index."""
    counts = sorted(Counter(index for index, _, _ in stored).items())
    rows = ((f"{n:,}", f"[cyan]{index}[/]", f"[dim]{_family(index)}[/]") for index, n in counts)
    tell("Stored, by index", rows, "documents", "index", "")


def _family(index: str) -> str:
    return next(what for name, what in WHAT.items() if index.startswith(name))


def tell_redactions(chain: Chain) -> None:
    """What was redacted: asked of the same stages once more, since the daemon's counters ended with it."""
    counts = Counter[str]()
    for path in SAMPLES:
        processed = chain.run(Batch("app", path.read_bytes(), path.name))
        counts.update({rule: n for (what, rule), n in processed.counts.items() if what == "redactions"})
    keys = next(step.spec.options.keys for step in chain.steps if step.spec.type == "redact")  # type: ignore[attr-defined]
    what = {"key": f"values of the keys {', '.join(keys)}, at any depth"}
    rows = (
        (f"{n:,}", f"[yellow]{rule}[/]", f"[dim]{what.get(rule, 'in texts')}[/]") for rule, n in counts.most_common()
    )
    tell("Redacted, by rule", rows, "values", "rule", "")


def tell_places(stored: list[Document]) -> None:
    """Where the clients are."""
    places = Counter(document["geo"]["country_iso_code"] for _, _, document in stored if "geo" in document)
    rows = [(f"{count:,}", country) for country, count in places.most_common(5)]
    rows += [
        (f"{places.total() - sum(count for _, count in places.most_common(5)):,}", "[dim]others[/]"),
        (f"{len(stored) - places.total():,}", "[dim]none: a private, unknown, invalid or missing address[/]"),
    ]
    tell("Located by clientIp", rows, "documents", "country")


def tell_dead(dead: list[Group]) -> None:
    """What was set aside."""
    rows = ((f"{each.count:,}", f"[red]{each.stage}[/]", escape(each.reason)) for each in dead)
    tell("Set aside with the original bytes, by cause (N stands for any number)", rows, "records", "stage", "why")


def tell_commands(id_: str, dead_id: str) -> None:
    """Where to go from here."""
    aiologs, python = _shown([str(BIN / "aiologs")]), _shown([sys.executable])
    commands = {
        "one document": f"{python} -m bench.demo show {id_}",
        "a record's way, stage by stage": f"head -n 1 {SAMPLES[0]} | {aiologs} explain -c {CONFIG}",
        "the dead letters": f"{aiologs} dead list -c {CONFIG}",
        "one dead letter": f"{aiologs} dead show -c {CONFIG} {dead_id}",
        "the same again: nothing is stored twice": f"{aiologs} run --once -c {CONFIG}",
        "a stage and its options": f"{aiologs} stages redact",
    }
    console.print("[bold]Look further[/]\n")
    for what, command in commands.items():
        console.print(f"  {what}\n  [green]$ {escape(command)}[/]\n", soft_wrap=True)


def demo() -> None:
    """Run, and tell everything."""
    console.print(f"[bold]aiologs[/] on {len(SAMPLES)} sample logs of a web application; {DATA} is emptied first\n")
    done, stored, chain = run(), documents(), Chain(load(CONFIG).chain_spec())
    with reading(DATA) as reader:
        dead = reader.summary()
    records = sum(path.read_bytes().count(b"\n") for path in SAMPLES)
    console.print(f"  [green]$ {done.command}[/]\n")
    console.print(
        f"[bold]{records:,} records[/] in {done.working:.2f} s, so {records / done.working:,.0f} a second, after "
        f"{done.starting:.2f} s of starting: {len(stored):,} stored, {sum(each.count for each in dead):,} set aside\n"
        "[dim](so few take as long as the disk does; `make bench` measures with 400,000)[/]\n"
    )
    tell_indices(stored)
    tell_redactions(chain)
    tell_places(stored)
    tell_dead(dead)
    tell_commands(next(id_ for _, id_, document in stored if "geo" in document), dead[0].sample)


def show(id_: str) -> None:
    """Print the documents of an id."""
    found = local.get(STORE, id_)
    for index, text in found.items():
        console.print(f"[cyan]{index}[/] {id_}", JSON(text), sep="\n")
    if not found:
        sys.exit(f"There is no document {id_} in {STORE}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            demo()
        case ["show", wanted]:
            show(wanted)
        case _:
            sys.exit(__doc__)

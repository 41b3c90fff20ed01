"""The reference job, measured: aiologs beside the handwritten yardstick, in turn, several times.

usage: python -m bench.run [--lines N] [--rounds N] [--only NAME ...] [--check]
Prints for each run the CPU seconds per million lines of all processes together, the lines a second (less the start-up,
measured with an input of one line) and the peak memory of each process, and at last the ratios of CPU to the
yardstick of the same number of processes and round. Compare ratios: the figures themselves are the machine's.
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import job, measure, oracle

YARDSTICKS = {"yardstick-1": 1, "yardstick-2": 2}
CONFIGURATIONS = {"workers-0": 0, "workers-1": 1, "workers-2": 2}
NAMES = [*YARDSTICKS, *CONFIGURATIONS]
COUNTERPART = {"workers-0": "yardstick-1", "workers-1": "yardstick-1", "workers-2": "yardstick-2"}


@dataclass
class Run:
    """One run of one configuration."""

    name: str
    lines: int
    cpu: float
    """CPU seconds of all processes."""
    parent: float
    """Those of the first process."""
    seconds: float
    """From the start of the program until the sink had the last document."""
    memory: list[float]

    @property
    def per_million(self) -> float:
        """CPU seconds per million lines."""
        return self.cpu * 1e6 / self.lines


@dataclass
class Results:
    """All runs, and what starting costs."""

    starts: dict[str, Run] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def rate(self, run: Run) -> float:
        """Lines a second, less the start-up."""
        return run.lines / (run.seconds - self.starts[run.name].seconds)

    def marginal(self, run: Run) -> float:
        """CPU seconds per million lines, less the start-up."""
        return (run.cpu - self.starts[run.name].cpu) * 1e6 / run.lines


def command(name: str, sink: job.Sink, path: Path) -> tuple[list[str | Path], dict[str, str]]:
    """What to run, and its environment."""
    if name in YARDSTICKS:
        port, count = str(sink.port), str(YARDSTICKS[name])
        return [sys.executable, "-m", "bench.handwritten", port, count, path, job.DATABASE], {}
    data_dir = job.DATA / "state"
    shutil.rmtree(data_dir, ignore_errors=True)
    env = job.environment(data_dir, path, f"http://127.0.0.1:{sink.port}", CONFIGURATIONS[name])
    return [job.AIOLOGS, "run", "--once", "-c", job.CONFIG], env


def run(name: str, sink: job.Sink, path: Path, lines: int) -> Run:
    """Run a configuration over the input; ends the program where it fails or documents are missing."""
    sink.ask("/_reset_sink")
    log = job.DATA / f"{name}.log"
    usage = measure.run(*command(name, sink, path), log)
    stats = sink.ask("/_stats_sink")
    if usage.code or stats["total"] != lines:
        sys.exit(f"{name}: exit code {usage.code}, {stats['total']} of {lines} documents; see {log}")
    return Run(name, lines, usage.cpu, usage.own_cpu, stats["last"] - usage.started, usage.memory)


def check(names: Iterable[str], path: Path, lines: int) -> None:
    """Run each configuration once, and look at every document; ends the program where one is wrong."""
    kept = job.DATA / "kept.ndjson"
    for name in names:
        with job.sink(kept) as sink:
            run(name, sink, path, lines)
        print(f"{name}: ", end="", flush=True)
        if not oracle.check(path, job.DATABASE, kept):
            sys.exit(f"{name}: wrong documents, in {kept}")
    kept.unlink()


def measured(names: list[str], path: Path, lines: int, rounds: int, console: Console) -> Results:
    """Run all configurations in turn."""
    results, one = Results(), job.prepare(1)
    with job.sink() as sink:
        for name in names:
            results.starts[name] = run(name, sink, one, 1)
        for n in range(rounds):
            for name in names:
                with console.status(f"round {n + 1} of {rounds}: {name}"):
                    results.runs.append(run(name, sink, path, lines))
    return results


def report(results: Results, names: list[str], console: Console) -> None:
    """Print the tables."""
    table = Table("", title="the reference job: median of the rounds (lowest to highest)", title_justify="left")
    for head in (
        "CPU s per million lines",
        "less start-up",
        "parent alone",
        "lines/s",
        "start-up s",
        "peak MiB by process",
    ):
        table.add_column(head, justify="right")
    for name in names:
        runs = [each for each in results.runs if each.name == name]
        table.add_row(
            name,
            spread([each.per_million for each in runs], "{:.1f}"),
            spread([results.marginal(each) for each in runs], "{:.1f}"),
            f"{statistics.median(each.parent * 1e6 / each.lines for each in runs):.1f}",
            spread([results.rate(each) for each in runs], "{:,.0f}"),
            f"{results.starts[name].seconds:.2f}",
            " + ".join(f"{each:.0f}" for each in max(each.memory for each in runs)),
        )
    console.print(table)
    for name, counterpart in COUNTERPART.items():
        if name in names and counterpart in names:
            text = spread(ratios(results, name, counterpart), "{:.2f}")
            console.print(f"{name} costs {text} of {counterpart} in the same round", highlight=False)


def ratios(results: Results, name: str, counterpart: str) -> list[float]:
    """CPU of one to CPU of the other, by round."""
    ours = [each.cpu for each in results.runs if each.name == name]
    theirs = [each.cpu for each in results.runs if each.name == counterpart]
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def spread(values: list[float], form: str) -> str:
    """The median, and what it lies between."""
    low, middle, high = (form.format(each) for each in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--check", action="store_true", help="look at every document, once for each configuration")
    args = parser.parse_args()
    job.build_sink()
    path = job.prepare(args.lines)
    if args.check:
        check(args.only, path, args.lines)
        return
    console = Console(width=140)
    report(measured(args.only, path, args.lines, args.rounds, console), args.only, console)


if __name__ == "__main__":
    main()

"""How far a replay is: a bar in a terminal, else a line now and then; on the standard error stream."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.inputs._text import Plain, open_text
from pipeline.replay.sources import Files, size

if TYPE_CHECKING:
    from pipeline.replay.engine import Counts, Replay
    from pipeline.replay.reading import Reading

_REFRESH = 0.5
_LINE_SECONDS = 10.0
_SAMPLES = 20
_SAMPLE_BYTES = 1 << 20


class Progress:
    """Shows a replay while the block runs."""

    def __init__(self, replay: Replay, readings: Sequence[Reading], *, quiet: bool) -> None:
        self._replay, self._readings, self._quiet = replay, readings, quiet
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        if not self._quiet:
            total = await asyncio.to_thread(expected, self._readings)
            show = self._bar if sys.stderr.isatty() else self._lines
            self._task = asyncio.create_task(show(total), name="progress")

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _lines(self, total: int | None) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            counts, seconds = self._replay.counts(), time.monotonic() - started
            share = f"{min(99, 100 * counts.bytes // total)} %, " if total else ""
            rate = f"{counts.records / seconds:,.0f} records/s"
            print(f"{share}{rate}: {described(counts)}{self._blocked()}", file=sys.stderr, flush=True)  # noqa: T201

    async def _bar(self, total: int | None) -> None:
        # Only in a terminal.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.progress import Progress as Bar  # noqa: PLC0415

        columns: list[Any] = [BarColumn(), DownloadColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()]
        bar = Bar(*columns, TextColumn("{task.description}"), console=Console(stderr=True), refresh_per_second=4)
        started = time.monotonic()
        with contextlib.suppress(asyncio.CancelledError), bar:
            task = bar.add_task("starting", total=total, rate="")
            while True:
                counts, seconds = self._replay.counts(), time.monotonic() - started
                rate = f"{counts.records / seconds:,.0f} records/s" if seconds else ""
                most = None if total is None else max(total, counts.bytes)
                text = f"{described(counts)}{self._blocked()}"
                bar.update(task, completed=counts.bytes, total=most, description=text, rate=rate)
                await asyncio.sleep(_REFRESH)

    def _blocked(self) -> str:
        return "".join(f"; {name} waits: {reason}" for name, reason in self._replay.blocked().items())


def described(counts: Counts) -> str:
    """The counts of every fate in a line."""
    parts = [f"{counts.records:,} records"]
    several = len(counts.outputs) > 1
    for name, fates in counts.outputs.items():
        who = f"{name}: " if several else ""
        parts.append(f"{who}{fates['stored']:,} new, {fates['already']:,} already there")
        parts += [f"{fates['parked']:,} parked"] * bool(fates["parked"])
    parts += [f"{counts.left_out:,} left out"] * bool(counts.left_out)
    parts += [f"{n:,} dropped by {stage}" for stage, n in counts.dropped.items() if n]
    parts += [f"{counts.made:,} made by stages"] * bool(counts.made)
    parts += [f"{counts.set_aside:,} set aside"]
    return ", ".join(parts)


def expected(readings: Sequence[Reading]) -> int | None:
    """About how many bytes of text there are to read; None where that can't be told."""
    total = 0.0
    for each in readings:
        if not isinstance(each.source, Files):
            return None
        paths = each.source.paths
        ratios = [_ratio(path) for path in paths[:: max(1, len(paths) // _SAMPLES)]]
        typical = {packed: _mean([ratio for kind, ratio in ratios if kind == packed]) for packed in (False, True)}
        total += sum(size(path) * typical[path.endswith((".gz", ".zst"))] for path in paths)
    return round(total)


def _ratio(path: str) -> tuple[bool, float]:
    """Whether a file is compressed, and how much text there is in a byte of it."""
    try:
        text = open_text(path)
    except OSError:
        return False, 1.0
    try:
        if isinstance(text, Plain):
            return False, 1.0
        return True, len(text.read(0, _SAMPLE_BYTES)) / max(1, text.consumed)
    finally:
        text.close()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 1.0

"""A replay as a process: its lock, its workers, its signals, and what is shown of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import database, memory
from pipeline.chain import Chain
from pipeline.change import make_workers
from pipeline.metrics import Metrics
from pipeline.nursery import Nursery
from pipeline.replay.engine import Replay, Summary
from pipeline.replay.job import Job
from pipeline.replay.progress import Progress
from pipeline.replay.reading import Reading, readings
from pipeline.sqlite import make_folder
from pipeline.workers import Inline, Processor


def run(job: Job, *, again: bool = False, plan: bool = False, quiet: bool = False) -> Summary:
    """Do the job; raises `contract.Unusable` for what can't work.

    `again`: begin at the beginning, whatever was read before. `plan`: write nothing, only say what would be written.
    `quiet`: show no progress.
    """
    memory.keep()
    found = readings(job)
    chain = Chain(job.chain([each.part for each in found]))
    # Before there are threads, an event loop, or the lock, which a child would hold beyond our death.
    nursery = Nursery.forked(chain) if job.config.workers else None

    def processor(metrics: Metrics) -> Processor:
        if nursery is None:
            return Inline(chain, metrics.report)
        return make_workers(job.config, nursery, chain.spec, metrics)

    fresh = again or job.limit is not None
    with _folder(job, plan=plan) as folder, database.lock(folder), _counted() as errors:
        import uvloop  # noqa: PLC0415 - after the fork, and --help has no need of it

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            summary = runner.run(
                _main(Replay(job, found, processor, fresh=fresh, plan=folder if plan else None), found, quiet=quiet)
            )
        summary.errors = errors.count
    return summary


@contextmanager
def _folder(job: Job, *, plan: bool) -> Iterator[Path]:
    """Where the job remembers; a plan remembers nothing."""
    if plan:
        with tempfile.TemporaryDirectory(prefix="aiologs-") as folder:
            yield Path(folder)
    else:
        make_folder(job.folder.parent)  # each for its owner only
        yield job.folder


class _Errors(logging.Handler):
    """Counts what goes wrong without ending a replay: a damaged file, for instance."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, _: logging.LogRecord) -> None:
        self.count += 1


@contextmanager
def _counted() -> Iterator[_Errors]:
    errors = _Errors()
    logger = logging.getLogger("aiologs")
    logger.addHandler(errors)
    try:
        yield errors
    finally:
        logger.removeHandler(errors)


async def _main(replay: Replay, found: list[Reading], *, quiet: bool) -> Summary:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, replay)
    async with Progress(replay, found, quiet=quiet):
        return await replay.run()


def _stop(replay: Replay) -> None:
    """Finish what is under way at the first signal; exit at once at the second."""
    if replay.stop.is_set():
        os._exit(1)
    replay.stop.set()

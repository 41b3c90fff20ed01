"""The daemon process: what it takes from and tells the system that runs it (signals, systemd, exit codes)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline import __version__, check, config, database, memory
from pipeline.app import App, NotDrained
from pipeline.change import make_workers
from pipeline.contract import Unusable
from pipeline.log import set_up
from pipeline.metrics import Metrics
from pipeline.nursery import Nursery
from pipeline.reload import Reload
from pipeline.workers import Inline, Processor

log = logging.getLogger("aiologs")

_DESCRIPTORS = 65_536
_LOOK_SECONDS = 2.0
_TOLD_SECONDS = 0.5
_LAST_SECONDS = 4.0
"""How long after its deadline a drain may take to commit and close before the process ends in any case."""


def run(path: Path, *, once: bool = False) -> int:
    """Run the configuration at `path` until told to stop; returns the exit code.

    0: stopped as asked, everything under way is stored. 1: an input or output failed, or something was not done in
    time and will be read again; the log says how much. Raises
    `contract.Unusable` (and so `config.ConfigError`) for what can't work as configured.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload: it would end us
    settings = config.load(path)
    set_up(settings.log)
    log.info("aiologs %s starts with %s", __version__, path)
    memory.keep()
    chain = check.build(settings)
    for warning in chain.warnings:
        log.warning("%s", warning)
    # Before there are threads, an event loop, or the lock, which a child would hold beyond our death.
    nursery = Nursery.forked(chain) if settings.workers else None

    def processor(metrics: Metrics) -> Processor:
        if nursery is None:
            return Inline(chain, metrics.report)
        return make_workers(settings, nursery, chain.spec, metrics)

    _raise_descriptors()
    with database.lock(settings.data_dir):
        import uvloop  # noqa: PLC0415 - after the fork, and `check` has no need of it

        gc.freeze()  # what is there now stays
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_main(settings, processor, once=once))


async def _main(settings: config.Config, processor: Callable[[Metrics], Processor], *, once: bool) -> int:
    app = App(settings, processor, once=once, notify=notify)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, app, number)
    reload = Reload(app, notify)
    loop.add_signal_handler(signal.SIGHUP, reload.request)
    background = [
        asyncio.create_task(_watchdog(), name="watchdog"),
        asyncio.create_task(reload.run(), name="reloads"),
        asyncio.create_task(_last_resort(app), name="last resort"),
        asyncio.create_task(_watch_descriptors(), name="file descriptors"),
        asyncio.create_task(memory.tidy(), name="memory"),
    ]
    try:
        await app.run()
    except NotDrained:
        return 1
    except Unusable as error:
        if settings.log.file:  # else the message would be told twice in the same place
            log.error("aiologs ends: %s", error)  # noqa: TRY400 - it is the operator's
        raise
    except Exception as error:
        log.exception("aiologs ends")
        if settings.log.file:
            print(  # noqa: T201 - the terminal from which it was started
                f"aiologs ends: {error}; {settings.log.file} says more", file=sys.stderr
            )
        return 1
    finally:
        for task in background:
            task.cancel()
    return 0


def _stop(app: App, number: int) -> None:
    """Drain at the first signal; exit at once at the second: what is under way is read again at the next start."""
    if app.stop.is_set():
        log.warning("second %s: exits at once", signal.Signals(number).name)
        os._exit(1)
    seconds = app.config.drain_seconds
    log.info("%s: stops reading and finishes what is under way, within %g s", signal.Signals(number).name, seconds)
    app.stop.set()


async def _last_resort(app: App) -> None:
    """Whatever hangs when we stop, a thread or the event loop itself: nobody waits for longer."""
    await app.stop.wait()
    last = threading.Timer(app.config.drain_seconds + _LAST_SECONDS, _exit)
    last.daemon = True  # a process that ends by itself does not wait for it
    last.start()


def _exit() -> None:
    log.error("something hangs: exits; what is under way is read again at the next start")
    os._exit(1)


def _raise_descriptors() -> None:
    """Use as many file descriptors as we may: the usual soft limit of 1,024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (wanted := min(hard, _DESCRIPTORS)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _watch_descriptors() -> None:
    """Say so when there are hardly any file descriptors left: new connections are closed then, which nobody sees."""
    limit, said = resource.getrlimit(resource.RLIMIT_NOFILE)[0], False
    while True:
        try:
            used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
        except OSError:  # looking takes one as well
            used = limit
        if used > limit * 0.95 and not said:
            log.error("%d of %d file descriptors are in use: new connections are closed; raise the limit", used, limit)
        said = used > limit * 0.95
        await asyncio.sleep(_LOOK_SECONDS)


async def _watchdog() -> None:
    """Tell systemd that the event loop runs, at half the time allowed (WATCHDOG_USEC, sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    if every := int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6:
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(every)


def notify(message: str) -> None:
    """Tell systemd something (sd_notify(3)); nothing happens where it did not ask to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A manager that does not listen any more, or does not read for long, is no reason to stop.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_TOLD_SECONDS)
        sock.sendto(message.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)

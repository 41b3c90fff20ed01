"""Reload: when a changed configuration is to take the place of the one in force, and what is told of it.

It is asked for by SIGHUP, by the command `reload`, or by the file itself. What then happens is in `pipeline.change`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import check, config
from pipeline.app import App
from pipeline.chain import Chain
from pipeline.change import Change, certificates, stamp
from pipeline.config import Config
from pipeline.contract import Unusable

log = logging.getLogger("aiologs.reload")

LOOK_SECONDS = 2.0
"""How often the file is looked at, with `reload: on_change`."""


class Reload:
    """Reloads when it is asked to, or when the file has changed."""

    def __init__(self, app: App, notify: Callable[[str], None] = lambda _: None) -> None:
        self._app, self._path, self._notify = app, app.config.path, notify
        self._refused = f"{self._path} is not taken over, the configuration before stays in force:"
        self._wanted = asyncio.Event()
        self._asked: list[asyncio.Future[str]] = []
        """Who waits for the next reload."""
        self._known = stamp(self._path)
        self._files = certificates(app.config)
        app.commands["reload"] = self.now

    def request(self) -> None:
        """Reload as soon as the one under way is over; several requests meanwhile are one."""
        self._wanted.set()

    async def now(self, _: Mapping[str, Any]) -> dict[str, str]:
        """The command `reload`: when it is over, say what changed; raises `Unusable` where it failed."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked.append(done)
        self.request()
        return {"file": str(self._path), "changed": await done}

    async def run(self) -> None:
        """Reload whenever it is wanted, until cancelled."""
        app = self._app
        await app.ready.wait()
        watching = asyncio.create_task(self._watch(), name="watch the configuration")
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if app.stop.is_set():
                    return
                asked, self._asked = self._asked, []
                app.change = asyncio.create_task(self._reload(asked), name="reload")
                await asyncio.wait({app.change})
                app.change = None
                app.changed.set()
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Ask for a reload when the file has changed, by a write or by another one in its place.

        A file that was written to at two looks in a row is not complete yet. Looking finds what notifications miss:
        the switch of a link in a Kubernetes ConfigMap, network file systems.
        """
        before = self._known
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = stamp(self._path)
            if now not in {self._known, None} and now == before and self._app.config.reload == "on_change":
                log.info("%s has changed", self._path)
                self.request()
            before = now

    async def _reload(self, asked: list[asyncio.Future[str]]) -> None:
        """Try the file as it is now."""
        app, started = self._app, time.monotonic()
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            said = await self._apply()
        except Unusable as error:
            self._failed(str(error), asked)
            log.error("%s\n%s", self._refused, error)  # noqa: TRY400 - it is the operator's
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}", asked)
            log.exception("%s", self._refused)
        else:
            app.metrics.gauge("config_reload_success_timestamp_seconds", time.time())
            app.reload.update(loaded=time.time(), error=None)
            log.info("reloaded %s in %.1f s: %s", self._path, time.monotonic() - started, said)
            self._ready("")
            for done in asked:
                if not done.done():  # nobody waits any more
                    done.set_result(said)
        gc.collect()  # what was replaced; it would stay for long, so seldom is looked for cycles

    def _failed(self, error: str, asked: list[asyncio.Future[str]]) -> None:
        self._app.metrics.count("config_reload_failures")
        self._app.reload["error"] = error
        self._ready("the last reload failed, the configuration before is in force: see the log")
        for done in asked:
            if not done.done():
                done.set_exception(Unusable(f"{self._refused}\n{error}"))

    def _ready(self, status: str) -> None:
        if not self._app.stop.is_set():
            self._notify(f"READY=1\nSTATUS={status}")

    async def _apply(self) -> str:
        self._known = stamp(self._path)
        new, chain = await asyncio.to_thread(checked, self._path)
        old = self._app.config.data_dir
        if new.data_dir != old:
            raise Unusable(f"data_dir is {old} and can't be changed by a reload: restart the daemon for that")
        change = Change(self._app, new, self._files)
        await change.apply(chain)
        self._files = certificates(new)
        return str(change)


def checked(path: Path) -> tuple[Config, Chain]:
    """The configuration, with its chain built and its tests passed; raises `Unusable` with all that is wrong."""
    new = config.load(path)
    chain = check.build(new)
    if problems := check.failing(new, chain):
        raise Unusable("\n".join(problems))
    return new, chain

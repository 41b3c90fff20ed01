"""Reload: a changed configuration takes the place of the one in force, while the daemon goes on.

What is new is checked and started before anything old stops: workers with the new chain, new and changed outputs. Then
the inputs that were changed or removed finish what is under way and end, the chain and the outputs are exchanged, and
the changed and new inputs begin. What did not change never notices: it keeps its sockets, its files and its place in a
consumer group. Where any of this fails, the old configuration stays, or comes back, in force.

An input's positions belong to its name: a changed one goes on where it was, a renamed one is a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import check, config
from pipeline.app import App, buffer_bytes
from pipeline.chain import Chain, ChainSpec
from pipeline.config import Config, InputPart, OutputPart
from pipeline.contract import Input, Output, Unusable
from pipeline.log import set_up
from pipeline.metrics import Metrics
from pipeline.running import Running
from pipeline.swap import SwapOutput, Use
from pipeline.tls import TLS
from pipeline.workers import Inline, Nursery, Processor, Workers

Part = InputPart | OutputPart
Stamp = tuple[int, int, int] | None
Files = dict[tuple[str, str], list[Stamp]]
"""Stamps of files by the kind and the name of the part that reads them."""

log = logging.getLogger("aiologs.reload")

LOOK_SECONDS = 2.0
"""How often the file is looked at, with `reload: on_change`."""
_OUTPUT_SECONDS = 10.0
"""How long an output that is replaced may take to store what is under way; then it is parked for its successor."""
_BACK_SECONDS = 2.0
"""How long what had just begun may take to end, when the old configuration comes back."""


class Reload:
    """Reloads when it is asked to, or when the file has changed."""

    def __init__(self, app: App, notify: Callable[[str], None] = lambda _: None) -> None:
        self._app, self._path, self._notify = app, app.config.path, notify
        self._refused = f"{self._path} is not taken over, the configuration before stays in force:"
        self._wanted = asyncio.Event()
        self._asked: list[asyncio.Future[str]] = []
        """Who waits for the next reload."""
        self._known = _seen(self._path)
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
            now = _seen(self._path)
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
        self._known = _seen(self._path)
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


async def make_processor(settings: Config, chain: Chain, spec: ChainSpec, metrics: Metrics) -> Processor:
    """What runs a chain as configured; it begins with a new nursery."""
    if not settings.workers:
        return Inline(chain, metrics.report)
    return make_workers(settings, await Nursery.started(spec), spec, metrics)


def make_workers(settings: Config, nursery: Nursery, spec: ChainSpec, metrics: Metrics) -> Workers:
    """Worker processes as configured."""

    def restarted(reason: str) -> None:
        metrics.count("worker_restarts", 1, {"reason": reason})

    return Workers(nursery, spec, settings.workers, gauge=metrics.report, restarted=restarted)


def _seen(path: Path) -> Stamp:
    """What tells a file from the one that was there before, behind all links; None: it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def certificates(settings: Config) -> Files:
    """What tells the certificates and keys that inputs and outputs have read once from those there are now.

    Listeners are not asked: they follow their files by themselves (`pipeline.tls`).
    """
    parts: list[tuple[str, Part]] = [("input", part) for part in settings.inputs.values()]
    parts += [("output", part) for part in settings.outputs.values()]
    return {(kind, part.name): [_seen(path) for path in _files(part.options)] for kind, part in parts}


def _files(options: BaseModel) -> Iterator[Path]:
    for name, value in options:
        if isinstance(value, BaseModel) and not isinstance(value, TLS):
            yield from _files(value)
        elif name in {"ca", "certificate", "key"} and isinstance(value, Path):
            yield value


@dataclass(frozen=True, slots=True)
class _Engine:
    """What is exchanged behind delivery."""

    processor: Use[Processor]
    outputs: dict[str, Use[Output]]


class Change:
    """From the configuration in force to a new one. `files` is what `certificates` found for each part before."""

    def __init__(self, app: App, new: Config, files: Files) -> None:
        self._app, self._old, self._new = app, app.config, new
        found = certificates(new)
        moved = new.host != self._old.host

        def differs(kind: str, part: Part, old: Part | None) -> bool:
            same = old is not None and (part.type, part.options) == (old.type, old.options)
            return moved or not same or found[kind, part.name] != files[kind, part.name]

        self._inputs = [part for part in new.inputs.values() if differs("input", part, self._old.inputs.get(part.name))]
        self._outputs = [
            part for part in new.outputs.values() if differs("output", part, self._old.outputs.get(part.name))
        ]

    def __str__(self) -> str:
        """What changes, for people."""
        begun = {"input": {part.name for part in self._inputs}, "output": {part.name for part in self._outputs}}
        told = []
        for kind, old, new in (
            ("input", self._old.inputs, self._new.inputs),
            ("output", self._old.outputs, self._new.outputs),
        ):
            told += [f"{kind} {name} is new" for name in new if name not in old]
            told += [f"{kind} {name} is gone" for name in old if name not in new]
            told += [f"{kind} {name} is begun anew" for name in new if name in old and name in begun[kind]]
        return ", ".join(["new chain", *told, *(["all else goes on"] if told else ["inputs and outputs go on"])])

    async def apply(self, chain: Chain) -> None:
        """Make the change; raises, with everything as it was, where that can't be."""
        app, new = self._app, self._new
        async with contextlib.AsyncExitStack() as undo:
            fresh = await self._start(chain, undo)
            sources = {part.name: app.input(part, new.host) for part in self._inputs}
            if app.stop.is_set():
                raise Unusable("the daemon stops")
            old = _Engine(app.processor.use, {name: output.use for name, output in app.outputs.items()})
            await self._switch(old, fresh, sources)
            undo.pop_all()
        await self._retire(old, fresh)

    async def _start(self, chain: Chain, undo: contextlib.AsyncExitStack) -> _Engine:
        """Start what is new beside what is there."""
        app, new = self._app, self._new
        _try_log(new.log.file)
        # What is left over of inputs that are gone is still decoded.
        spec = new.chain_spec()
        spec = ChainSpec(spec.stages, {**self._old.chain_spec().decoders, **spec.decoders})
        processor = Use(await make_processor(new, chain, spec, app.metrics))
        undo.push_async_callback(processor.stop)
        await processor.start()
        outputs = {name: output.use for name, output in app.outputs.items() if name in new.outputs}
        for part in self._outputs:
            outputs[part.name] = use = Use(app.output(part, new.host))
            undo.push_async_callback(use.stop)
            await use.start()
        return _Engine(processor, outputs)

    async def _switch(self, old: _Engine, fresh: _Engine, sources: dict[str, Input]) -> None:
        app = self._app
        await self._end_inputs()
        self._exchange(fresh)
        begun: dict[str, Running] = {}
        try:
            for part in self._inputs:
                await app.buffers.change(part.name, buffer_bytes(part))
                begun[part.name] = app.begin(part, sources[part.name])
            await asyncio.gather(*(each.opened() for each in begun.values()))
            await self._change_admin()
        except BaseException:
            await asyncio.gather(*(each.end(_BACK_SECONDS) for each in begun.values()))
            self._exchange(old)
            await self._begin_again()
            raise
        for name in self._old.inputs.keys() - self._new.inputs.keys():
            await app.buffers.change(name, None)
        app.running |= begun
        app.inputs = {name: each.source for name, each in app.running.items()}
        app.config, app.dead.limits = self._new, self._new.dead_letters
        if self._new.log != self._old.log or self._new.log.file:  # which another program may have moved
            set_up(self._new.log)

    async def _end_inputs(self) -> None:
        """Have the inputs that change, or go, finish what is under way."""
        app, seconds = self._app, self._old.drain_seconds
        names = {part.name for part in self._inputs} | (self._old.inputs.keys() - self._new.inputs.keys())
        ending = [app.running.pop(name) for name in names if name in app.running]
        app.changed.set()
        in_time = await asyncio.gather(*(each.end(seconds) for each in ending))
        for each, done in zip(ending, in_time, strict=True):
            if not done:
                log.warning("input %s was cut off after %g s: what it had read is read again", each.part.name, seconds)
            if each.failure:
                log.warning("input %s ended with an error: %s", each.part.name, each.failure)

    async def _begin_again(self) -> None:
        """Begin the inputs again that were ended, as they were."""
        app = self._app
        if app.stop.is_set():
            return
        for name, part in self._old.inputs.items():
            if name not in app.running:
                await app.buffers.change(name, buffer_bytes(part))
                app.running[name] = app.begin(part, app.input(part))
        app.changed.set()
        # One that can't come back ends the daemon, which watches it again.
        await asyncio.gather(*(each.opened() for each in app.running.values()), return_exceptions=True)

    def _exchange(self, engine: _Engine) -> None:
        """Have what comes from now on go through these."""
        app = self._app
        app.processor.use = engine.processor
        for name in app.outputs.keys() - engine.outputs.keys():
            del app.outputs[name]
        for name, use in engine.outputs.items():
            app.outputs.setdefault(name, SwapOutput(use)).use = use

    async def _retire(self, old: _Engine, fresh: _Engine) -> None:
        """Let what began with the old processor and outputs end there, and stop them."""

        async def output(name: str, use: Use[Output]) -> None:
            blocked = getattr(use.it, "blocked", None)
            if cut := await use.retire(0 if blocked else _OUTPUT_SECONDS):
                log.warning("output %s: %d writes were not done: their documents are parked", name, cut)

        kept = fresh.outputs.values()
        replaced = ((name, use) for name, use in old.outputs.items() if use not in kept)
        await asyncio.gather(old.processor.retire(None), *(output(name, use) for name, use in replaced))
        for name in self._old.inputs.keys() - self._new.inputs.keys():
            self._app.metrics.forget_all("input", name)
        for name in self._old.outputs.keys() - self._new.outputs.keys():
            self._app.metrics.forget_all("output", name)

    async def _change_admin(self) -> None:
        app = self._app
        if self._new.admin == self._old.admin:
            return
        old, app.admin = app.admin, app.listener(self._new.admin)
        await old.stop()  # it may be in the way: of another host's same port
        try:
            await app.admin.start()
        except Unusable:
            app.admin = old
            await old.start()
            raise


def _try_log(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise Unusable(f"log: {path}: {error.strerror}") from error

"""A change from the configuration in force to another one, while the daemon goes on.

What is new is checked and started before anything old stops: workers with the new chain, new and changed outputs. Then
the inputs that were changed or removed finish what is under way and end, the chain and the outputs are exchanged, and
the changed and new inputs begin. What did not change never notices: it keeps its sockets, its files and its place in a
consumer group. Where any of this fails, the old configuration stays, or comes back, in force.

An input's positions belong to its name: a changed one goes on where it was, a renamed one is a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pipeline.app import App, buffer_bytes
from pipeline.chain import Chain, ChainSpec
from pipeline.config import Config, InputPart, OutputPart
from pipeline.contract import Input, Output, Unusable
from pipeline.inherit import Sockets
from pipeline.log import set_up, try_file
from pipeline.metrics import Metrics
from pipeline.nursery import Nursery
from pipeline.running import Running
from pipeline.swap import SwapOutput, Use
from pipeline.tls import TLS
from pipeline.workers import Inline, Processor, Workers

Part = InputPart | OutputPart
Stamp = tuple[int, int, int] | None
Files = dict[tuple[str, str], list[Stamp]]
"""Stamps of files by the kind and the name of the part that reads them."""

log = logging.getLogger("aiologs.reload")

_OUTPUT_SECONDS = 10.0
"""How long an output that is replaced may take to store what is under way; then it is parked for its successor."""
_BACK_SECONDS = 2.0
"""How long what had just begun may take to end, when the old configuration comes back."""


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


def stamp(path: Path) -> Stamp:
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
    return {(kind, part.name): [stamp(path) for path in _files(part.options)] for kind, part in parts}


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
        if new.log.file:
            try_file(new.log.file)
        # What is left over of inputs that are gone is still decoded.
        spec = new.chain_spec()
        spec = ChainSpec(spec.stages, {**self._old.chain_spec().decoders, **spec.decoders})
        processor = Use(await make_processor(new, chain, spec, app.metrics))
        undo.push_async_callback(processor.stop)
        await processor.start()
        outputs = {name: output.use for name, output in app.outputs.items() if name in new.outputs}
        for part in self._outputs:
            use = Use(app.output(part, new.host))
            if part.name in outputs:
                use.turn.clear()
            outputs[part.name] = use
            undo.push_async_callback(use.stop)
            await use.start()
        return _Engine(processor, outputs)

    async def _switch(self, old: _Engine, fresh: _Engine, sources: dict[str, Input]) -> None:
        app = self._app
        inherited = Sockets(app.running[name] for name in self._ending())
        await self._end_inputs()
        self._exchange(fresh)
        begun: dict[str, Running] = {}
        try:
            for part in self._inputs:
                inherited.give(part, sources[part.name])
                await app.buffers.change(part.name, buffer_bytes(part))
                begun[part.name] = app.begin(part, sources[part.name])
            await asyncio.gather(*(each.opened() for each in begun.values()))
            await self._change_admin()
        except BaseException:
            await asyncio.gather(*(each.end(_BACK_SECONDS) for each in begun.values()))
            self._exchange(old)
            for use in fresh.outputs.values():
                use.turn.set()
            await self._begin_again(inherited)
            raise
        finally:
            inherited.close()
        for name in self._old.inputs.keys() - self._new.inputs.keys():
            await app.buffers.change(name, None)
        app.running |= begun
        app.inputs = {name: each.source for name, each in app.running.items()}
        app.config, app.dead.limits = self._new, self._new.dead_letters
        if self._new.log != self._old.log or self._new.log.file:  # which another program may have moved
            set_up(self._new.log)

    def _ending(self) -> list[str]:
        """The inputs that change, or go."""
        names = {part.name for part in self._inputs} | (self._old.inputs.keys() - self._new.inputs.keys())
        return [name for name in names if name in self._app.running]

    async def _end_inputs(self) -> None:
        """Have the inputs that change, or go, finish what is under way."""
        app, seconds = self._app, self._old.drain_seconds
        ending = [app.running.pop(name) for name in self._ending()]
        app.changed.set()
        in_time = await asyncio.gather(*(each.end(seconds) for each in ending))
        for each, done in zip(ending, in_time, strict=True):
            if not done:
                log.warning("input %s was cut off after %g s: what it had read is read again", each.part.name, seconds)
            if each.failure:
                log.warning("input %s ended with an error: %s", each.part.name, each.failure)

    async def _begin_again(self, inherited: Sockets) -> None:
        """Begin the inputs again that were ended, as they were."""
        app = self._app
        if app.stop.is_set():
            return
        for name, part in self._old.inputs.items():
            if name not in app.running:
                await app.buffers.change(name, buffer_bytes(part))
                source = app.input(part)
                inherited.give(part, source)
                app.running[name] = app.begin(part, source)
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

        async def processor() -> None:
            try:
                await old.processor.retire(None)
            except Exception:
                log.exception("the workers of before were not ended as they should")

        async def output(name: str, use: Use[Output]) -> None:
            blocked = getattr(use.it, "blocked", None)
            try:
                if cut := await use.retire(0 if blocked else _OUTPUT_SECONDS):
                    log.warning("output %s: %d writes were not done: their documents are parked", name, cut)
            except Exception:
                log.exception("output %s of before was not closed as it should", name)
            finally:
                if name in fresh.outputs:
                    fresh.outputs[name].turn.set()

        kept = fresh.outputs.values()
        replaced = ((name, use) for name, use in old.outputs.items() if use not in kept)
        await asyncio.gather(processor(), *(output(name, use) for name, use in replaced))
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

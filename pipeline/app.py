"""A configuration → a running pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import __version__, background, registry
from pipeline.admin import Admin
from pipeline.buffer import Buffers
from pipeline.causes import Filters
from pipeline.chain import Chain
from pipeline.contract import Context, Input, Output
from pipeline.control import Control, Handler
from pipeline.dead import DeadLetters, reading
from pipeline.delivery import Delivery
from pipeline.letters import Letter
from pipeline.metrics import Metrics
from pipeline.parked import Parked
from pipeline.retry import Retry
from pipeline.running import Running
from pipeline.state import State
from pipeline.status import Blocked, status
from pipeline.swap import SwapOutput, SwapProcessor, Use
from pipeline.workers import Inline

if TYPE_CHECKING:
    from pipeline.config import Config, InputPart, OutputPart
    from pipeline.workers import Processor

log = logging.getLogger("aiologs")


class NotDrained(Exception):
    """The deadline has cut off what was under way: nothing is lost, but some of it will be read again."""


class App:
    """Everything that runs, and what an operator may ask of it."""

    def __init__(
        self,
        config: Config,
        processor: Callable[[Metrics], Processor],
        *,
        once: bool = False,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config, self._once, self._notify = config, once, notify
        self.metrics = Metrics()
        self.metrics.gauge("build_info", 1, {"version": __version__})
        self.state = State(config.data_dir)
        self.dead = DeadLetters(config.data_dir, config.dead_letters, self.metrics.count)
        self.parked = Parked(config.data_dir)
        self.processor = SwapProcessor(Use(processor(self.metrics)))
        self.outputs = {part.name: SwapOutput(Use(self.output(part))) for part in config.outputs.values()}
        self.inputs = {part.name: self.input(part) for part in config.inputs.values()}
        self.delivery = Delivery(self.processor, self.outputs, self.dead, self.parked, self.metrics)
        self.buffers = Buffers(config.data_dir, self.metrics.gauge, self.metrics.count)
        for part in config.inputs.values():
            if (size := buffer_bytes(part)) is not None:
                self.buffers.add(part.name, size)
        self.admin = self.listener(config.admin)
        self.commands: dict[str, Handler] = {
            "status": self._status,
            "dead.retry": self._retry,
            "dead.purge": self._purge,
            "tap": self.delivery.taps.answer,
            "tap.end": self.delivery.taps.end,
        }
        self._control = Control(config.data_dir, self.commands)
        self.started = time.time()
        self.blocked = Blocked()
        self.ready = asyncio.Event()
        """Set when every input takes records."""
        self.stop = asyncio.Event()
        self.running: dict[str, Running] = {}
        """The inputs at work, by name."""
        self.change: asyncio.Task[None] | None = None
        """A reload that is under way; `changed` is set when it is over."""
        self.changed = asyncio.Event()
        self.reload: dict[str, Any] = {"loaded": self.started, "error": None}
        """When the configuration in force was loaded (seconds since 1970), and why a later one was refused."""
        self.metrics.gauge("config_reload_success_timestamp_seconds", self.started)

    # --- its parts ---

    def input(self, part: InputPart, host: str | None = None) -> Input:
        """An input as configured, not reading yet; raises `Unusable`."""
        context = replace(self._context(part.name, host, part.name), decode=part.decode.type)
        source: Input = registry.find("input", part.type)(part.options, context)
        return source

    def output(self, part: OutputPart, host: str | None = None) -> Output:
        """An output as configured, not started yet; raises `Unusable`."""
        context = self._context(part.name, host, f"output {part.name}")
        output: Output = registry.find("output", part.type)(part.options, context)
        return output

    def _context(self, name: str, host: str | None, positions: str) -> Context:
        metrics = self.metrics
        return Context(
            name=name,
            host=host or self.config.host,
            positions=self.state.positions(positions),
            gauge=metrics.gauge,
            count=metrics.count,
            observe=metrics.observe,
            forget=metrics.forget,
            once=self._once,
            settled=self.state.settled,
        )

    def listener(self, address: str | None) -> Admin:
        """What answers at `admin:`, not listening yet."""
        return Admin(address, self.metrics, self.status, self.not_ready)

    def begin(self, part: InputPart, source: Input) -> Running:
        """Have an input read."""
        buffer, deliver = self.buffers.get(part.name), self.delivery.deliver

        async def work(stop: asyncio.Event) -> None:
            if buffer:
                await buffer.run(source, deliver, stop, once=self._once)
            else:
                await source.run(deliver, stop)

        return Running(part, source, work)

    # --- its life ---

    async def run(self) -> None:
        """Run until `stop` is set, or every input has ended, or one raises; then drain."""
        async with contextlib.AsyncExitStack() as stack:
            await self.start(stack)
            await self.buffers.start()
            stack.push_async_callback(self.buffers.stop)
            stack.push_async_callback(self._stop_admin)
            await self.admin.start()
            await self._control.start()
            stack.push_async_callback(self._control.stop)
            for name, source in self.inputs.items():
                self.running[name] = self.begin(self.config.inputs[name], source)
            tasks = {
                asyncio.create_task(background.unpark(self), name="parked documents"),
                asyncio.create_task(background.measure(self), name="gauges"),
            }
            try:
                for each in self.running.values():
                    await each.opened()
                self.ready.set()
                self._notify("READY=1")
                counts = len(self.inputs), len(self.outputs), self.config.workers
                log.info("ready: %d inputs, %d outputs, %d workers", *counts)
                await self._watch(tasks)
            finally:
                self.ready.clear()
                for task in tasks:
                    task.cancel()
                await self._drain()

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Open stores, processor and outputs; the stack closes them."""
        for store in (self.state, self.dead, self.parked):
            await store.start()
            stack.push_async_callback(store.stop)
        await self.processor.start()
        stack.push_async_callback(self.processor.stop)
        stack.push_async_callback(self._stop_outputs)
        for output in self.outputs.values():
            await output.start()

    async def _stop_outputs(self) -> None:
        async with contextlib.AsyncExitStack() as stack:  # one that raises leaves no other open
            for output in self.outputs.values():
                stack.push_async_callback(output.stop)

    async def _stop_admin(self) -> None:
        await self.admin.stop()

    async def _watch(self, tasks: set[asyncio.Task[None]]) -> None:
        """Return when told to stop or when every input has ended; raise what ended one, or one of the tasks."""
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        try:
            while not stopping.done():
                self.changed.clear()
                changed = asyncio.create_task(self.changed.wait(), name="reloaded")
                reading = {each.task for each in self.running.values() if not each.task.done()}
                if not reading and not self.change:
                    return
                done, _ = await asyncio.wait(reading | tasks | {stopping, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in done & (tasks | {each.task for each in self.running.values()}):
                    task.result()
        finally:
            stopping.cancel()

    async def _drain(self) -> None:
        """Let inputs finish what is under way; what the deadline cuts off is read again at the next start."""
        self.stop.set()
        self._notify("STOPPING=1")
        deadline = time.monotonic() + self.config.drain_seconds
        if self.change:  # it notices `stop`, and may have begun or ended some inputs by then
            _, late = await asyncio.wait({self.change}, timeout=deadline - time.monotonic())
            for task in late:
                task.cancel()
        inputs = [*self.running.values()]
        ended = await asyncio.gather(*(each.end(deadline - time.monotonic()) for each in inputs))
        cut = [each.part.name for each, in_time in zip(inputs, ended, strict=True) if not in_time]
        try:
            async with asyncio.timeout(max(0, deadline - time.monotonic())):
                await self.delivery.drain()
        except TimeoutError:
            cut.append("delivery")
        if cut:
            self._abandon(cut)
        for each in inputs:
            if each.failure:
                raise each.failure
        if cut:
            raise NotDrained
        log.info("stopped: everything that was read is stored, parked or set aside")

    def _abandon(self, cut: list[str]) -> None:
        """Give up what is under way, unacknowledged, and say how much that is."""
        log.warning(
            "not drained within %g s (%s): %d batches with %d bytes are given up, unacknowledged: files and Kafka are "
            "read again from there at the next start, and clients send again",
            self.config.drain_seconds,
            ", ".join(cut),
            self.delivery.in_flight_batches,
            self.delivery.in_flight_bytes,
        )
        self.delivery.abandon()

    # --- what an operator sees ---

    def not_ready(self) -> list[str]:
        """Why no records should be sent here now; empty: ready."""
        reasons = [] if self.ready.is_set() else ["stopping" if self.stop.is_set() else "starting"]
        if full := self.dead.full:
            reasons.append(full)
        reasons += [
            f"can't {purpose}: {why}" for purpose, (why, _) in self.delivery.storing.troubles.items() if why != full
        ]
        for name, output in self.outputs.items():
            if blocked := output.blocked:
                reasons.append(f"output {name}: {blocked}")
        return reasons

    def status(self) -> dict[str, Any]:
        """The answer of /status."""
        self.blocked.look(self.outputs)
        return status(self)

    # --- commands from the control socket ---

    async def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return self.status()

    async def _retry(self, request: Mapping[str, Any]) -> dict[str, int]:
        with reading(self.config.data_dir) as reader:
            return await self.retry(reader.each(Filters(**request["filters"])))

    async def retry(self, letters: Iterable[Letter]) -> dict[str, int]:
        """Take dead letters once more through the pipeline; see `Retry.run`."""
        return await Retry(self.processor, self.config.inputs, self.outputs, self.dead).run(letters)

    async def _purge(self, request: Mapping[str, Any]) -> dict[str, int]:
        return {"removed": await self.dead.purge(Filters(**request["filters"]))}


async def retry_dead(config: Config, letters: Iterable[Letter]) -> dict[str, int]:
    """Take dead letters once more through a pipeline without inputs, where no daemon runs; see `Retry.run`."""
    app = App(config, lambda _: Inline(Chain(config.chain_spec())))
    async with contextlib.AsyncExitStack() as stack:
        await app.start(stack)
        return await app.retry(letters)


def buffer_bytes(part: InputPart) -> int | None:
    """How large an input's disk buffer may be; None: it has none."""
    size: int | None = getattr(part.options, "buffer_bytes", None)
    return size if getattr(part.options, "buffer", None) == "disk" else None

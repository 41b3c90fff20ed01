"""A configuration → a running pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline import __version__, registry
from pipeline.admin import Admin
from pipeline.buffer import Buffers
from pipeline.chain import Chain
from pipeline.contract import Context, Input, Output
from pipeline.control import Control
from pipeline.dead import DeadLetters, Filters, Letter, reading
from pipeline.delivery import Delivery
from pipeline.metrics import Metrics
from pipeline.parked import Parked
from pipeline.retry import Retry
from pipeline.state import State
from pipeline.workers import Inline

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.workers import Processor

log = logging.getLogger("aiologs")

DRAIN_SECONDS = 25.0
"""How long inputs and outputs may take to finish what is under way: less than what systemd and Kubernetes grant."""
_UNPARK_SECONDS = 5.0
_UNPARK_TIMEOUT = 15.0
_UNPARK_BYTES = 4 << 20
_MEASURE_SECONDS = 1.0


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
        self.dead = DeadLetters(config.data_dir)
        self.parked = Parked(config.data_dir)
        self.processor = processor(self.metrics)
        self.outputs = {
            part.name: _build("output", part.type, part.options, self._context(part.name))
            for part in config.outputs.values()
        }
        self.inputs: dict[str, Input] = {
            part.name: _build("input", part.type, part.options, self._context(part.name))
            for part in config.inputs.values()
        }
        self.delivery = Delivery(self.processor, self.outputs, self.dead, self.parked, self.metrics)
        self.buffers = Buffers(config.data_dir, self.metrics.gauge, self.metrics.count)
        for part in config.inputs.values():
            if getattr(part.options, "buffer", None) == "disk":
                self.buffers.add(part.name, getattr(part.options, "buffer_bytes"))  # noqa: B009 - not of every input
        self._admin = Admin(config.admin, self.metrics, self.status, self.not_ready)
        commands = {"status": self._status, "dead.retry": self._retry, "dead.purge": self._purge}
        self._control = Control(config.data_dir, commands)
        self._ready = False
        self._started = time.time()
        self.stop = asyncio.Event()

    def _context(self, name: str) -> Context:
        metrics = self.metrics
        return Context(
            name=name,
            host=self.config.host,
            positions=self.state.positions(name),
            gauge=metrics.gauge,
            count=metrics.count,
            once=self._once,
            settled=self.state.settled,
        )

    async def run(self) -> None:
        """Run until `stop` is set, or every input has ended, or one raises; then drain."""
        async with contextlib.AsyncExitStack() as stack:
            await self.start(stack)
            await self.buffers.start()
            stack.push_async_callback(self.buffers.stop)
            for listener in (self._admin, self._control):
                await listener.start()
                stack.push_async_callback(listener.stop)
            inputs = {
                asyncio.create_task(self._read(name, source), name=f"input {name}")
                for name, source in self.inputs.items()
            }
            background = {
                asyncio.create_task(self._unpark(name, output), name=f"parked documents of {name}")
                for name, output in self.outputs.items()
            } | {asyncio.create_task(self._measure(), name="gauges")}
            await self._listening(inputs)
            self._ready = True
            self._notify("READY=1")
            log.info("ready: %d inputs, %d outputs, %d workers", len(inputs), len(self.outputs), self.config.workers)
            try:
                await self._watch(inputs, background)
            finally:
                self._ready = False
                for task in background:
                    task.cancel()
                await self._drain(inputs)

    async def _read(self, name: str, source: Input) -> None:
        if buffer := self.buffers.get(name):
            await buffer.run(source, self.delivery.deliver, self.stop, once=self._once)
        else:
            await source.run(self.delivery.deliver, self.stop)

    async def _listening(self, inputs: set[asyncio.Task[None]]) -> None:
        """Wait for inputs that take a while to open their port, or for one that fails."""
        opening = [asyncio.create_task(each.wait()) for each in map(_opening, self.inputs.values()) if each]
        for task in opening:
            await asyncio.wait({task, *inputs}, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Open stores, processor and outputs; the stack closes them."""
        for store in (self.state, self.dead, self.parked):
            await store.start()
            stack.push_async_callback(store.stop)
        await self.processor.start()
        stack.push_async_callback(self.processor.stop)
        for output in self.outputs.values():
            await output.start()
            stack.push_async_callback(output.stop)

    async def _watch(self, inputs: set[asyncio.Task[None]], background: set[asyncio.Task[None]]) -> None:
        """Return when told to stop or when every input has ended; raise what ended one, or a task behind it."""
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        reading = {*inputs}
        try:
            while reading and not stopping.done():
                done, _ = await asyncio.wait(reading | background | {stopping}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                reading -= done
        finally:
            stopping.cancel()

    async def _drain(self, inputs: set[asyncio.Task[None]]) -> None:
        """Let inputs finish what is under way; what the deadline cuts off is read again at the next start."""
        self.stop.set()
        self._notify("STOPPING=1")
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                results = await asyncio.gather(*inputs, return_exceptions=True)
                await self.delivery.drain()
        except TimeoutError:
            log.warning(
                "not drained within %g s: %d batches are given up and will be read again at the next start",
                DRAIN_SECONDS,
                self.delivery.in_flight_batches,
            )
            self.delivery.abandon()
        else:
            for result in results:
                if isinstance(result, Exception):
                    raise result
            log.info("stopped: everything that was read is stored, parked or set aside")

    # --- in the background ---

    async def _unpark(self, name: str, output: Output) -> None:
        """Try an output's parked documents again, for as long as there are some."""
        while True:
            skip: set[str] = set()  # indices that are still blocked
            # Where they are all that is written, an output takes them for an outage and would try for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_UNPARK_TIMEOUT):
                    while entries := await self.parked.take(name, _UNPARK_BYTES, skip):
                        skip |= await self.delivery.write_parked(name, output, entries)
            await asyncio.sleep(_UNPARK_SECONDS)

    async def _measure(self) -> None:
        """Keep the gauges that nobody else sets."""
        gauge, started = self.metrics.gauge, time.monotonic()
        while True:
            gauge("in_flight_bytes", self.delivery.in_flight_bytes, {})
            gauge("workers", self.processor.alive, {})
            gauge("dead_letters", self.dead.count(), {})
            gauge("dead_letter_bytes", self.dead.bytes(), {})
            gauge("parked_bytes", self.parked.bytes, {})
            gauge("parked_oldest_seconds", time.time() - self.parked.oldest if self.parked.oldest else 0, {})
            for (output, index), documents in self.parked.counts().items():
                gauge("parked", documents, {"output": output, "index": index})
            await asyncio.sleep(_MEASURE_SECONDS)
            for name, output in self.outputs.items():
                if getattr(output, "blocked", None):
                    self.metrics.count("blocked_seconds", time.monotonic() - started, {"output": name})
            started = time.monotonic()

    # --- what an operator sees ---

    def not_ready(self) -> list[str]:
        """Why no records should be sent here now; empty: ready."""
        reasons = [] if self._ready else ["stopping" if self.stop.is_set() else "starting"]
        for name, output in self.outputs.items():
            if blocked := getattr(output, "blocked", None):
                reasons.append(f"output {name}: {blocked}")
        return reasons

    def status(self) -> dict[str, Any]:
        """The answer of /status."""
        reasons = self.not_ready()
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self._started, 1),
            "ready": not reasons,
            "reasons": reasons,
            "inputs": {part.name: {"type": part.type} for part in self.config.inputs.values()},
            "stages": [spec.name for spec in self.config.stages],
            "outputs": {name: {"blocked": getattr(output, "blocked", None)} for name, output in self.outputs.items()},
            "in_flight": {"batches": self.delivery.in_flight_batches, "bytes": self.delivery.in_flight_bytes},
            "workers": self.processor.alive,
        }

    # --- commands from the control socket ---

    async def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return self.status()

    async def _retry(self, request: Mapping[str, Any]) -> dict[str, int]:
        with reading(self.config.data_dir) as reader:
            return await self.retry(reader.each(Filters(**request["filters"])))

    async def retry(self, letters: Iterable[Letter]) -> dict[str, int]:
        """Take dead letters once more through the pipeline; see `Retry.run`."""
        return await Retry(self.processor, self.inputs, self.outputs, self.dead).run(letters)

    async def _purge(self, request: Mapping[str, Any]) -> dict[str, int]:
        return {"removed": await self.dead.purge(Filters(**request["filters"]))}


async def retry_dead(config: Config, letters: Iterable[Letter]) -> dict[str, int]:
    """Take dead letters once more through a pipeline without inputs, where no daemon runs; see `Retry.run`."""
    app = App(config, lambda _: Inline(Chain(config.chain_spec())))
    async with contextlib.AsyncExitStack() as stack:
        await app.start(stack)
        return await app.retry(letters)


def _opening(source: Input) -> asyncio.Event | None:
    event: asyncio.Event | None = getattr(source, "listening", None)
    return event


def _build(kind: Any, type_: str, options: Any, context: Context) -> Any:
    return registry.find(kind, type_)(options, context)

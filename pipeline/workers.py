"""Chain processes: they hold no state, take batches as bytes and give documents as bytes.

Workers are forked from a **nursery**: a process with one thread, forked itself from the daemon before that starts
threads or an event loop, which has the chain built already. So a worker starts in some milliseconds, shares the
nursery's memory, and can be replaced at any time without forking a process with threads (where locks that another
thread holds would stay locked for ever).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.chain import Chain, ChainSpec, Failure, Processed
from pipeline.contract import Batch, Unusable

log = logging.getLogger("aiologs.workers")

_HEAD = struct.Struct("!I")
_REFRESH = 10.0
_PATIENCE = 5.0
"""Seconds in which the nursery must have forked a worker, else it is taken for dead."""


class Processor(Protocol):
    """Runs the chain somewhere."""

    @property
    def alive(self) -> int:
        """How many processes it has."""
        ...

    async def start(self) -> None:
        """Be ready to process."""
        ...

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches, one result each."""
        ...

    async def stop(self) -> None:
        """Give everything back."""
        ...


class Inline:
    """The chain in the daemon's own process: `workers: 0`, for tests and tiny machines."""

    def __init__(self, chain: Chain, gauge: Callable[[str, float], None] = lambda *_: None) -> None:
        self._chain, self._gauge, self._refreshed = chain, gauge, 0.0

    @property
    def alive(self) -> int:
        """It has no process of its own."""
        return 0

    async def start(self) -> None:
        """Nothing to start."""

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches, at once."""
        if time.monotonic() - self._refreshed > _REFRESH:
            self._refreshed = time.monotonic()
            for name, value in self._chain.refresh().items():
                self._gauge(name, value)
        return [self._chain.run(batch) for batch in batches]

    async def stop(self) -> None:
        """Nothing to stop."""


# --- in the nursery and the workers ------------------------------------------------------------------------------


def _read(sock: socket.socket) -> bytearray | None:
    """One message; None at the end of the stream."""
    head = _read_exactly(sock, _HEAD.size)
    return None if head is None else _read_exactly(sock, *_HEAD.unpack(head))


def _read_exactly(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return data


def _serve(chain: Chain, sock: socket.socket) -> None:
    """A worker's life: batches in, documents out, until the daemon closes the socket."""
    refreshed = time.monotonic()
    while (message := _read(sock)) is not None:
        batches: list[Batch] = pickle.loads(message)  # noqa: S301 - from our own daemon, over a socket pair
        results = [chain.run(batch) for batch in batches]
        gauges: dict[str, float] = {}
        if time.monotonic() - refreshed > _REFRESH:
            refreshed = time.monotonic()
            gauges = chain.refresh()
            gc.collect()  # it is off otherwise: events make no cycles, exceptions may
        data = pickle.dumps((results, gauges), pickle.HIGHEST_PROTOCOL)
        sock.sendall(_HEAD.pack(len(data)))
        sock.sendall(data)


def _child(chain: Chain, sock: socket.socket) -> None:
    """What a forked worker does instead of returning."""
    code = 1
    try:
        _serve(chain, sock)
        code = 0
    except (KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        code = 0
    finally:
        os._exit(code)


def _nurse(chain: Chain, control: socket.socket) -> None:
    """The nursery's life: fork a worker for each socket that comes in; end with the daemon."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon sees a worker's end by its socket
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the daemon, which ends us by closing the socket
    # What the daemon made is never collected here: it is the daemon's to finish, and no collection writes into the
    # pages that the workers share.
    gc.disable()
    gc.freeze()
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not fds:
            return
        sock = socket.socket(fileno=fds[0])
        pid = os.fork()
        if not pid:
            control.close()
            _child(chain, sock)
        sock.close()
        control.sendall(struct.pack("!i", pid))


def main() -> None:
    """Be a nursery in a program of its own; the control socket's number is its argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    message = _read(control)
    if message is None:
        return
    try:
        chain = Chain(pickle.loads(message))  # noqa: S301 - from our own daemon, over a socket pair
        answer = b""
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon tells it
        answer = str(error).encode()
    control.sendall(_HEAD.pack(len(answer)) + answer)
    if not answer:
        _nurse(chain, control)


class Nursery:
    """Forks workers on request."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid, self._control = pid, control
        self._control.settimeout(_PATIENCE)

    @classmethod
    def forked(cls, chain: Chain) -> Nursery:
        """A nursery forked from this process, at once: only before it has threads or an event loop."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                ours.close()
                _nurse(chain, theirs)
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        return cls(pid, ours)

    @classmethod
    async def started(cls, spec: ChainSpec) -> Nursery:
        """A nursery in a new program, at any time; raises `Unusable` with what its chain can't be built for."""
        ours, theirs = socket.socketpair()
        code = "from pipeline.workers import main; main()"
        with theirs:
            child = subprocess.Popen([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()])  # noqa: ASYNC220, S603
        child.returncode = 0  # reaped by us: see close()
        ours.setblocking(False)
        worker = _Worker(child.pid, ours)
        data = pickle.dumps(spec, pickle.HIGHEST_PROTOCOL)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, _HEAD.pack(len(data)) + data)
        try:
            answer = await worker.receive(*_HEAD.unpack(await worker.receive(_HEAD.size)))
        except (OSError, EOFError):
            answer = bytearray(b"a chain process can't be started: see the lines above")
        nursery = cls(child.pid, ours)
        if answer:
            nursery.close()
            raise Unusable(answer.decode())
        return nursery

    def fork(self) -> tuple[int, socket.socket]:
        """Start a worker; returns its process id and the socket to talk to it. Raises `OSError` when it is gone."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"w"], [theirs.fileno()])
            data = self._control.recv(4, socket.MSG_WAITALL)
            if len(data) < 4:
                raise ConnectionResetError("the nursery has ended")
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        return struct.unpack("!i", data)[0], ours

    def close(self) -> None:
        """End the nursery; workers end when their sockets are closed."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


# --- in the daemon -----------------------------------------------------------------------------------------------


class _Died(Exception):
    """A worker has ended, or was killed for hanging, with a batch under way."""


@dataclass(slots=True)
class _Worker:
    pid: int
    sock: socket.socket

    async def ask(self, batches: list[Batch]) -> tuple[list[Processed], dict[str, float]]:
        """Have batches processed; the stages' gauges come along now and then."""
        loop = asyncio.get_running_loop()
        data = pickle.dumps(batches, pickle.HIGHEST_PROTOCOL)
        try:
            await loop.sock_sendall(self.sock, _HEAD.pack(len(data)))
            await loop.sock_sendall(self.sock, data)
            head = await self.receive(_HEAD.size)
            reply: tuple[list[Processed], dict[str, float]] = pickle.loads(  # noqa: S301 - from our own worker
                await self.receive(*_HEAD.unpack(head))
            )
        except (OSError, EOFError) as error:
            raise _Died(str(error)) from error
        return reply

    async def receive(self, size: int) -> bytearray:
        """Exactly so many bytes; raises `EOFError` when the other end is gone."""
        loop = asyncio.get_running_loop()
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = await loop.sock_recv_into(self.sock, view)
            if not got:
                raise EOFError("the process has ended")
            view = view[got:]
        return data

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.sock.close()


class Workers:
    """N chain processes. A batch waits for a free one.

    A worker that dies, or that does not answer within `deadline` seconds and is killed, is replaced and its batch is
    run again. A batch that ends two workers is halved until the one record that does it is found; that fails.
    """

    def __init__(
        self,
        nursery: Nursery,
        spec: ChainSpec,
        count: int,
        *,
        deadline: float = 30.0,
        gauge: Callable[[str, float], None] = lambda *_: None,
        restarted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._nursery, self._spec, self._count, self._deadline = nursery, spec, count, deadline
        self._gauge, self._restarted = gauge, restarted
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._all: dict[int, _Worker] = {}
        self._refilling = asyncio.Lock()
        self._stopped = False

    @property
    def alive(self) -> int:
        """How many workers there are."""
        return len(self._all)

    async def start(self) -> None:
        """Fork the workers."""
        await self._refill()

    async def _refill(self) -> None:
        """Have as many workers as there should be; a nursery that is gone is made anew."""
        while len(self._all) < self._count:
            try:
                worker = _Worker(*self._nursery.fork())
            except OSError:
                log.warning("the nursery of the workers has died: a new one is started")
                self._restarted("nursery")
                self._nursery.close()
                self._nursery = await Nursery.started(self._spec)
                continue
            self._all[worker.pid] = worker
            self._free.put_nowait(worker)

    async def process(self, batches: list[Batch]) -> list[Processed]:
        """Run the chain over some batches in a free worker."""
        for _ in range(2):
            with contextlib.suppress(_Died):
                return await self._try(batches)
        if len(batches) > 1:
            return [result for batch in batches for result in await self.process([batch])]
        return [await self._find(batches[0])]

    async def _find(self, batch: Batch) -> Processed:
        """Process a batch of which one record ends its worker."""
        records = len(batch.records())
        if records == 1:
            log.error(
                "a record of input %s (id %s) ends its worker: it is set aside", batch.input, batch.document_ids()[0]
            )
            reason = f"the chain process died or did not answer within {self._deadline:g} s, twice"
            return Processed(failures=[Failure(0, "worker", reason, "")], records=1)
        whole = Processed()
        for start, end in ((0, records // 2), (records // 2, records)):
            [result] = await self.process([batch.slice(start, end)])
            _merge(whole, result, start)
        return whole

    async def _try(self, batches: list[Batch]) -> list[Processed]:
        worker = await self._free.get()
        clean = False
        try:
            async with asyncio.timeout(self._deadline):
                results, gauges = await worker.ask(batches)
            clean = True
        except TimeoutError:
            log.warning("worker %d has not answered for %g s: it is killed and replaced", worker.pid, self._deadline)
            self._restarted("hung")
            raise _Died from None
        except _Died:
            log.warning("worker %d has died: it is replaced and its batch is run again", worker.pid)
            self._restarted("died")
            raise
        finally:
            if clean:
                self._free.put_nowait(worker)
            else:  # also when cancelled: the answer that is still to come would be taken for that of the next batch
                await asyncio.shield(self._replace(worker))
        for name, value in gauges.items():
            self._gauge(name, value)
        return results

    async def _replace(self, worker: _Worker) -> None:
        worker.kill()
        self._all.pop(worker.pid, None)
        if not self._stopped:
            async with self._refilling:
                await self._refill()

    async def stop(self) -> None:
        """End the workers and the nursery."""
        self._stopped = True
        for worker in self._all.values():
            worker.sock.close()
        self._all.clear()
        self._nursery.close()


def _merge(result: Processed, part: Processed, start: int) -> None:
    result.documents += part.documents
    result.failures += [failure._replace(record=failure.record + start) for failure in part.failures]
    result.records += part.records
    result.counts += part.counts
    for stage, seconds in part.seconds.items():
        result.seconds[stage] = result.seconds.get(stage, 0.0) + seconds

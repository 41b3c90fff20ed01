"""Chain processes and the process that forks them.

Workers are forked from a **nursery**: a process with one thread, forked itself from the daemon before that starts
threads or an event loop, which has the chain built already. So a worker starts in some milliseconds, shares the
nursery's memory, and can be replaced at any time without forking a process with threads (where locks that another
thread holds would stay locked for ever).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import time

from pipeline import memory, messages
from pipeline.chain import Chain, ChainSpec
from pipeline.contract import Batch, Unusable
from pipeline.messages import Link

REFRESH = 10.0
"""Seconds after which stages may notice changed files."""
_PATIENCE = 5.0
"""Seconds in which the nursery must have forked a worker, else it is taken for dead."""


def _serve(chain: Chain, link: Link) -> None:
    """A worker's life: batches in, documents out, until the daemon closes the connection."""
    refreshed = time.monotonic()
    while True:
        batches: list[Batch] = link.receive()
        results = [chain.run(batch) for batch in batches]
        gauges: dict[str, float] = {}
        if time.monotonic() - refreshed > REFRESH:
            refreshed = time.monotonic()
            gauges = chain.refresh()
            memory.give_back()  # the collector is off otherwise: events make no cycles, exceptions may
        link.send((results, gauges))


def _child(chain: Chain, link: Link) -> None:
    """What a forked worker does instead of returning."""
    code = 1
    try:
        _serve(chain, link)
        code = 0
    except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        code = 0
    finally:
        os._exit(code)


def _nurse(chain: Chain, control: socket.socket) -> None:
    """The nursery's life: fork a worker for each connection that comes in; end with the daemon."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon sees a worker's end by its socket
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the daemon, which ends us by closing the socket
    # What the daemon made is never collected here: it is the daemon's to finish, and no collection writes into the
    # pages that the workers share.
    gc.disable()
    gc.freeze()
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not descriptors:
            return
        pid = os.fork()
        if not pid:
            control.close()
            theirs, shared = descriptors
            _child(chain, Link(socket.socket(fileno=theirs), shared))
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(struct.pack("!i", pid))


def main() -> None:
    """Be a nursery in a program of its own; the control socket's number is its argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    memory.keep()
    answer = ""
    try:
        chain = Chain(Link(control).receive())
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon tells it
        answer = str(error)
    Link(control).send(answer)
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
        code = "from pipeline.nursery import main; main()"
        with theirs:
            child = subprocess.Popen([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()])  # noqa: ASYNC220, S603
        child.returncode = 0  # reaped by us: see close()
        ours.setblocking(False)
        try:
            link = Link(ours)
            await link.send_soon(spec)
            answer = await link.receive_soon()
        except (OSError, EOFError):
            answer = "a chain process can't be started: see the lines above"
        nursery = cls(child.pid, ours)
        if answer:
            nursery.close()
            raise Unusable(answer)
        return nursery

    def fork(self) -> tuple[int, Link]:
        """Start a worker; returns its process id and our end of the connection. Raises `OSError` when it is gone."""
        ours, theirs = socket.socketpair()
        shared = messages.memory()
        try:
            with theirs:
                socket.send_fds(self._control, [b"w"], [theirs.fileno(), shared])
            data = self._control.recv(4, socket.MSG_WAITALL)
            if len(data) < 4:
                raise ConnectionResetError("the nursery has ended")
            ours.setblocking(False)
            return struct.unpack("!i", data)[0], Link(ours, shared)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(shared)

    def close(self) -> None:
        """End the nursery; workers end when their sockets are closed."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

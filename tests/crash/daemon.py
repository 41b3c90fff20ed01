"""The real daemon as a subprocess, to be treated badly: killed, stopped, started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.balance import assert_balanced
from tests.services.ports import free_port

AIOLOGS = Path(sys.executable).with_name("aiologs")
LONG = os.environ.get("AIOLOGS_CRASH") == "long"
PATIENCE = 60.0
"""Seconds in which anything that the daemon does must be done: a hang is a failure, a slow machine is not."""


class Daemon:
    """A daemon with a folder of its own: `logs` is where its file input looks, `data` is its `data_dir`."""

    def __init__(self, folder: Path, outputs: dict[str, Any], **config: Any) -> None:
        self.logs, self.data, self.log_file = folder / "logs", folder / "data", folder / "daemon.log"
        self.logs.mkdir(exist_ok=True)
        self.path = folder / "aiologs.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {}
        self.under: list[str] = []
        """A command that runs the daemon's, in its own place: to limit it."""
        self._socket: socket.socket | None = None
        self.config: dict[str, Any] = {
            "data_dir": str(self.data),
            "workers": 1,
            "admin": f"127.0.0.1:{free_port()}",
            "inputs": {"app": {"type": "file", "paths": [str(self.logs / "app.log*")]}},
            "stages": [{"timestamp": {"field": "time"}}, {"route": {"default": "crash-{day}"}}],
            "outputs": outputs,
            **config,
        }

    @property
    def log(self) -> str:
        """All that it has said, in all its lives."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self, *options: str, **env: str) -> float:
        """Start it and wait until it says that it is ready (or ends, with `--once`); returns the seconds it took."""
        self.path.write_text(yaml.safe_dump(self.config))
        self._env.update(env)
        notified, address = self._notified()
        started = time.monotonic()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.under, AIOLOGS, "run", "-c", self.path, *options],
                env={**os.environ, **self._env, "NOTIFY_SOCKET": address},
                stderr=log,
            )
        self._until_ready(notified)
        return time.monotonic() - started

    def reload(self) -> float:
        """Have it take over the configuration as it is now; returns the seconds until it says that it has."""
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump(self.config))
        new.replace(self.path)
        assert self._process
        assert self._socket
        started = time.monotonic()
        self._process.send_signal(signal.SIGHUP)
        self._until_ready(self._socket)
        return time.monotonic() - started

    def _notified(self) -> tuple[socket.socket, str]:
        """What systemd listens on, for as long as the daemon lives, and its address."""
        if self._socket:
            self._socket.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # an abstract name that the kernel chooses
        return self._socket, "@" + self._socket.getsockname()[1:].decode()

    def _until_ready(self, notified: socket.socket) -> None:
        notified.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in (told := notified.recv(4096)):
                    assert b"failed" not in told, self.log[-3000:]
                    return
            except TimeoutError:
                assert self._process
                assert self._process.poll() in {None, 0}, f"it ended:\n{self.log[-3000:]}"
                if self._process.poll() == 0:
                    return
        raise AssertionError(f"not ready after {PATIENCE:g} s:\n{self.log[-3000:]}")

    def once(self, **env: str) -> None:
        """Have it work off what is there; fails where it does not end well and in time."""
        self.start("--once", **env)
        self.ended(0)

    def metrics(self) -> str:
        """What it says at /metrics."""
        with urllib.request.urlopen(f"http://{self.config['admin']}/metrics", timeout=PATIENCE) as answer:
            return str(answer.read(), "utf-8")

    def balance(self) -> dict[str, Counter[str]]:
        """Fail where its ledger does not come out now; returns the fates of each output."""
        return assert_balanced(self.metrics())

    def live(self, seconds: float) -> None:
        """Let it run for so long, with an eye on its ledger."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.balance()
            time.sleep(min(0.2, left))

    def stop(self) -> float:
        """End it as systemd does, with its ledger balanced to the last; returns the seconds it took."""
        self.balance()
        assert self._process
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self.ended(0)
        return time.monotonic() - started

    def kill(self) -> None:
        """kill -9, with its ledger balanced to the last; its other processes must notice and end by themselves."""
        self.balance()
        orphans = self.children()
        assert self._process
        self._process.kill()
        self.ended(-signal.SIGKILL)
        _, alive = psutil.wait_procs(orphans, timeout=10)
        assert not alive, f"processes that outlive the daemon: {alive}"

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""
        if self._process and self._process.poll() is None:
            children = self.children()
            self._process.kill()
            self._process.wait()
            for child in children:
                with suppress(psutil.NoSuchProcess):  # it has noticed by itself
                    child.kill()
        if self._socket:
            self._socket.close()

    def ended(self, code: int) -> None:
        """Wait for its end, and see how it was."""
        assert self._process
        assert self._process.wait(PATIENCE) == code, self.log[-3000:]

    def children(self) -> list[psutil.Process]:
        """All its descendants."""
        return psutil.Process(self.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """The processes that run the chain: the children of its only child, the nursery."""
        (nursery,) = psutil.Process(self.pid).children()
        return nursery.children()


def wait_until(condition: Any, what: str, patience: float = PATIENCE) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.05)

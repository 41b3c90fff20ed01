"""CPU time and memory of a program with all the processes that it starts, to the last of them.

`wait4` knows only of processes that somebody waited for; others (aiologs' workers, which the kernel reaps) would be
missing. So the kernel's account of each process of the tree is read some 50 times a second while it lives: only what
a process uses in its last 20 ms, when it has nothing left to do but end, can be missed.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
INTERVAL = 0.02
SEARCH = 0.2
"""How often, in seconds, new processes are looked for among all of the machine."""


@dataclass
class Usage:
    """What a program and its descendants used."""

    code: int = 0
    started: float = 0.0
    """When it was started, in seconds since the epoch."""
    seconds: float = 0.0
    """From its start to its end."""
    ticks: dict[int, int] = field(default_factory=dict)
    peaks: dict[int, int] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """CPU seconds, user and system, of all processes together."""
        return sum(self.ticks.values()) / TICK

    @property
    def own_cpu(self) -> float:
        """CPU seconds of the program's first process alone."""
        return next(iter(self.ticks.values())) / TICK

    @property
    def memory(self) -> list[float]:
        """The peak resident set of each process in MiB: the program's own, then its descendants', largest first."""
        first, *others = self.peaks.values()
        return [kib / 1024 for kib in (first, *sorted(others, reverse=True))]

    def look(self, pids: Iterable[int]) -> None:
        """Note what these processes have used so far; those that have ended keep their last account."""
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # user and system time are fields 14 and 15 of the line
                fields = _stat(pid)
                self.ticks[pid] = int(fields[11]) + int(fields[12])
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self.peaks[pid] = int(line.split()[1])


def run(command: list[str | Path], env: dict[str, str], log: Path) -> Usage:
    """Run a program to its end; what it prints goes to the log."""
    usage = Usage(started=time.time())
    start = searched = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=installed(env), stdout=output, stderr=subprocess.STDOUT)
    pids = {process.pid}
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - searched > SEARCH:
            pids |= descendants(process.pid)
            searched = time.monotonic()
        usage.look(pids)
        time.sleep(INTERVAL)
    usage.seconds = time.monotonic() - start
    usage.look(pids)
    usage.code = process.wait()
    return usage


def installed(env: dict[str, str]) -> dict[str, str]:
    """This environment and these variables for a program as it runs where it is installed: with its bytecode kept.

    An environment for development may forbid to write it; to compile every module at each start takes 0.1 s.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | env


def descendants(root: int) -> set[int]:
    """The processes that this one has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found, new = set[int](), {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _stat(pid: int) -> list[str]:
    """The fields of the kernel's line about a process, from the third on: the second, a name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

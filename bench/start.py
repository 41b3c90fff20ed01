"""How long aiologs takes to start, and how much memory it has then.

usage: python -m bench.start [--rounds N]
Prints the median of the wall seconds of `--version`, of `check`, and of `run` with two workers on the reference job's
configuration until it tells systemd that it is ready; and the resident memory of each process then.
"""

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import job, measure

READY_TIMEOUT = 30


def environment() -> dict[str, str]:
    """What the reference configuration wants to know; its input is empty."""
    empty = job.DATA / "empty.ndjson"
    empty.touch()
    return measure.installed(job.environment(job.DATA / "state", empty, "http://127.0.0.1:9", workers=2))


def command(*arguments: str | Path) -> float:
    """Seconds that a command takes; ends the program where it fails."""
    start = time.perf_counter()
    done = subprocess.run([job.AIOLOGS, *arguments], env=environment(), capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"aiologs {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return took


class Ready:
    """Starts the daemon until it is ready, and notes its memory."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        """The resident memory of each process in MiB, the daemon's own first; pages that they share are counted
        in each."""

    def __call__(self) -> float:
        """Seconds from the start until it says that it is ready."""
        shutil.rmtree(job.DATA / "state", ignore_errors=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind("")  # an abstract name that the kernel chooses
            notified.settimeout(READY_TIMEOUT)
            env = environment() | {"NOTIFY_SOCKET": "@" + notified.getsockname()[1:].decode()}
            start = time.perf_counter()
            daemon = subprocess.Popen([job.AIOLOGS, "run", "-c", job.CONFIG], env=env, stderr=subprocess.DEVNULL)
            try:
                while b"READY=1" not in notified.recv(4096):
                    pass
                took = time.perf_counter() - start
                family = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]
                self.memory = [process.memory_info().rss / 2**20 for process in family]
            finally:
                daemon.terminate()
                daemon.wait()
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    job.prepare(1)
    ready = Ready()
    measured: dict[str, Callable[[], float]] = {
        "--version": lambda: command("--version"),
        "check": lambda: command("check", "-c", job.CONFIG),
        "run, until ready": ready,
    }
    for name, start in measured.items():
        times = [start() for _ in range(rounds)]
        print(f"{name:<18}{statistics.median(times):.2f} s  ({min(times):.2f} to {max(times):.2f})")
    print("memory when ready  " + " + ".join(f"{each:.0f}" for each in ready.memory) + " MiB")


if __name__ == "__main__":
    main()

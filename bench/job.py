"""What the benchmarks share: the reference job's input and database, the sink, and where they are."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import cities, generate

HERE = Path(__file__).parent
DATA = HERE / "data"
DATABASE, ADDRESSES, SINK = DATA / "city.mmdb", DATA / "ips.txt", DATA / "sink"
CONFIG = HERE / "reference.yaml"
AIOLOGS = Path(sys.executable).with_name("aiologs")


def prepare(lines: int) -> Path:
    """Make what is missing under bench/data; returns the input of so many lines."""
    DATA.mkdir(exist_ok=True)
    if not DATABASE.exists() or not ADDRESSES.exists():
        print(f"making {DATABASE} (half a minute, once)", flush=True)
        cities.write(DATABASE, ADDRESSES)
    path = DATA / f"in-{lines}.ndjson"
    if not path.exists():
        print(f"making {path}", flush=True)
        generate.write(path, lines, ADDRESSES.read_text().split())
    return path


def environment(data_dir: Path, path: Path, url: str, workers: int) -> dict[str, str]:
    """The variables of the reference configuration."""
    return {
        "BENCH_DATA_DIR": str(data_dir),
        "BENCH_WORKERS": str(workers),
        "BENCH_INPUT": str(path),
        "BENCH_DATABASE": str(DATABASE),
        "BENCH_SINK": url,
    }


def build_sink() -> None:
    """Build the sink where it is missing or older than its source; ends the program where there is no Go."""
    source = HERE / "sink" / "main.go"
    if SINK.exists() and SINK.stat().st_mtime > source.stat().st_mtime:
        return
    go = shutil.which("go")
    if go is None:
        sys.exit("The benchmark's sink is written in Go, which is not installed: see https://go.dev/doc/install")
    subprocess.run([go, "build", "-o", SINK, source], check=True, env={**os.environ, "GOFLAGS": "-mod=mod"})


@dataclass
class Sink:
    """A running sink."""

    port: int

    def ask(self, path: str) -> Any:
        """The answer to a GET, as JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as reply:
            return json.loads(reply.read() or "{}")


@contextmanager
def sink(keep: Path | None = None) -> Iterator[Sink]:
    """A sink for the time of a block; it keeps what it gets in a file when asked to."""
    port = free_port()
    process = subprocess.Popen([SINK, str(port), *([keep] if keep else [])])
    try:
        running = Sink(port)
        _wait_for(running)
        yield running
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(running: Sink) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            running.ask("/_stats_sink")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return

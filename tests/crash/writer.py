"""An application that writes numbered log lines, and rotates its log by renaming as logrotate does."""

import json
import threading
import time
from pathlib import Path

PAD = "x" * 400
CHUNK = 0.02
"""Seconds between two writes."""


def line(n: int) -> bytes:
    """The record of a number, with its newline; some 500 bytes."""
    record = {"n": n, "time": f"2026-11-20T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z", "message": PAD}
    return json.dumps(record).encode() + b"\n"


def write(path: Path, numbers: range) -> None:
    """Append the records of these numbers to a file, at once."""
    with path.open("ab") as file:
        file.writelines(line(n) for n in numbers)


def rotate(path: Path) -> None:
    """app.log.1 → app.log.2 and so on, app.log → app.log.1."""
    count = len(list(path.parent.glob(f"{path.name}.*")))
    for n in range(count, 0, -1):
        path.with_name(f"{path.name}.{n}").rename(path.with_name(f"{path.name}.{n + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


class Writer(threading.Thread):
    """Writes so many lines evenly over some seconds, cutting lines in two wherever a write ends."""

    line = staticmethod(line)
    keep: int | None = None
    """How many rotated files are left; None: all."""

    def __init__(self, path: Path, lines: int, seconds: float, rotate_every: int) -> None:
        super().__init__(daemon=True)
        self._path, self._lines, self._seconds, self._rotate_every = path, lines, seconds, rotate_every
        self.written = 0

    def run(self) -> None:
        """Write them all."""
        started = time.monotonic()
        for first in range(0, self._lines, self._rotate_every):
            if first:
                rotate(self._path)
                if self.keep is not None:
                    self._path.with_name(f"{self._path.name}.{self.keep + 1}").unlink(missing_ok=True)
            with self._path.open("wb", buffering=0) as file:
                self._fill(file, range(first, min(first + self._rotate_every, self._lines)), started)

    def _fill(self, file, numbers: range, started: float) -> None:
        rest, n = b"", numbers.start
        while n < numbers.stop:
            time.sleep(CHUNK)
            due = int((time.monotonic() - started) / self._seconds * self._lines)
            until = min(max(due, n + 1), numbers.stop)
            data = rest + b"".join(map(self.line, range(n, until)))
            cut = len(data) if until == numbers.stop else len(data) - 100
            file.write(data[:cut])
            rest, n = data[cut:], until
            self.written = n

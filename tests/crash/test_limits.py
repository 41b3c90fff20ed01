"""A full disk, too few file descriptors, too little memory: the daemon waits and says so, ends never, loses nothing."""

import os
import resource
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.dead import reading
from tests.crash.daemon import LONG, PATIENCE, wait_until
from tests.crash.test_push import TOGETHER, Beat, Sender, Web
from tests.crash.writer import line
from tests.integration.daemon import Receiver

SECONDS = 60.0 if LONG else 4.0
"""How long there is too little."""
BACK = 10.0 if LONG else PATIENCE
"""Seconds in which all is well again afterwards; only the long run measures, since a busy machine is slow."""
MILLION = 1_000_000
CLIENTS, LOTS = (64, 4) if LONG else (32, 1)
"""Clients of each kind that fill the memory, and how many lots of half a megabyte each of them sends."""


class Log(threading.Thread):
    """Writes a line of a number now and then, and every tenth time one that is no record."""

    def __init__(self, path: Path, first: int) -> None:
        super().__init__(daemon=True)
        self._path, self._first = path, first
        self.written = self.odd = 0
        self.stop = threading.Event()

    def run(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            while not self.stop.wait(0.02):
                file.write(line(self._first + self.written))
                self.written += 1
                if self.written % 10 == 0:
                    file.write(b"no record %d\n" % self.odd)
                    self.odd += 1


class Lots(Sender):
    """Sends lots of so many records, until all are sent or it is told to stop."""

    together = TOGETHER

    def __init__(self, port: int, numbers: range) -> None:
        super().__init__(port, numbers)
        self.stop = threading.Event()

    def run(self) -> None:
        for first in self.numbers[:: self.together]:
            lot = range(first, min(first + self.together, self.numbers.stop))
            while not self._try(lot):
                time.sleep(0.1)
            self.acknowledged += len(lot)
            if self.stop.wait(0.02):
                break
        self.close()


class WebLots(Lots, Web):
    """Over HTTP."""


class BeatLots(Lots, Beat):
    """Over Beats."""


# --- the disk ---


@contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    """A file system of 64 MiB; without the right to mount one, the test is skipped, but fails in CI."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no tmpfs: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(daemon: Receiver) -> Iterator[None]:
    """Fill the file system of data_dir."""
    filler = daemon.data / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@contextmanager
def no_growth(daemon: Receiver) -> Iterator[None]:
    """Let no file of the daemon grow, as a quota would."""
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    yield
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, unlimited)


@pytest.fixture
def site(tmp_path, store):
    """A daemon with a file, and HTTP with a disk buffer; not started yet."""
    outputs = {"es": {"type": "elasticsearch", "hosts": [store.url]}}
    inputs = {
        "app": {"type": "file", "paths": [str(tmp_path / "logs" / "*.log")]},
        "safe": {"type": "http", "buffer": "disk"},
        "web": {"type": "http"},
        "ship": {"type": "beats"},
    }
    daemon = Receiver(tmp_path, inputs, outputs=outputs)
    yield daemon
    daemon.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tmpfs", "quota"])
def test_a_full_disk_makes_inputs_wait_and_nothing_is_lost(site, store, kind, told):
    with ExitStack() as stack:
        if kind == "tmpfs":
            stack.enter_context(tmpfs(site.data))
            stack.callback(site.close)
        site.start()
        pid = site.pid
        log, web = Log(site.logs / "app.log", 0), WebLots(site.ports["safe"], range(MILLION, 2 * MILLION))
        log.start()
        web.start()
        wait_until(lambda: web.acknowledged and log.odd > 2, "it works")
        with full(site) if kind == "tmpfs" else no_growth(site):
            time.sleep(SECONDS)
            wait_until(lambda: web.answers[429], "clients are told to wait")
            stuck = web.acknowledged
        relieved = time.monotonic()
        wait_until(lambda: web.acknowledged > stuck, "clients are served again", BACK)
        wait_until(lambda: len(letters(site)) >= log.odd, "what is no record is set aside", BACK)
        back = time.monotonic() - relieved
        log.stop.set()
        web.stop.set()
        log.join()
        web.join()
        total = log.written + web.acknowledged
        wait_until(lambda: store.findings(0).stored == total, "all is stored", BACK)
        wait_until(lambda: len(letters(site)) == log.odd, "what is no record is set aside", BACK)
        see_once(store, log.written, web)
        assert site.pid == pid
        assert Counter(letters(site)) == Counter(b"no record %d" % n for n in range(log.odd))
        site.stop()
        told(f"{kind} full for {SECONDS:g} s: {web.answers[429]} answers of 429; all is well after {back:.1f} s")
    assert "can be written to again" in site.log
    assert "Traceback" not in site.log


def letters(site: Receiver) -> list[bytes]:
    """The records that were set aside."""
    with reading(site.data) as dead:
        return [letter.record for letter in dead.each()]


def see_once(store, written: int, *senders: Sender) -> None:
    """Everything is stored, once."""
    for numbers in (
        range(written),
        *(range(each.numbers.start, each.numbers.start + each.acknowledged) for each in senders),
    ):
        found = store.findings(numbers.stop, first=numbers.start)
        assert not found.missing
        assert not found.twice


# --- file descriptors ---

FILES, LINES, CLIENTS_MORE = 200, 50, 150


@pytest.mark.slow
def test_two_hundred_files_are_read_with_a_hundred_descriptors_and_clients_beside_them(site, store, told):
    site.under = ["sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"]
    for n in range(FILES):
        (site.logs / f"{n:03}.log").write_bytes(b"".join(line(n * 1000 + k) for k in range(LINES)))
    site.start()
    pid = site.pid
    web = WebLots(site.ports["web"], range(MILLION, 2 * MILLION))
    web.start()
    wait_until(lambda: web.acknowledged, "it works")
    with ExitStack() as stack:
        for _ in range(CLIENTS_MORE):  # that take all the descriptors there are
            with suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", site.ports["ship"]), timeout=1))
        wait_until(lambda: psutil.Process(pid).num_fds() > 95, "there are no descriptors left")
        wait_until(lambda: "file descriptors are in use" in site.log, "it says so")
        time.sleep(SECONDS)
        for n in range(FILES):
            with (site.logs / f"{n:03}.log").open("ab") as file:
                file.write(b"".join(line(n * 1000 + k) for k in range(LINES, 2 * LINES)))
    relieved, stuck = time.monotonic(), web.acknowledged
    wait_until(lambda: web.acknowledged > stuck, "clients are served", BACK)
    wait_until(lambda: store.findings(0).stored >= FILES * 2 * LINES + stuck, "all lines are stored", BACK)
    back = time.monotonic() - relieved
    web.stop.set()
    web.join()
    wait_until(lambda: store.findings(0).stored == FILES * 2 * LINES + web.acknowledged, "all is stored", BACK)
    for n in range(FILES):
        assert not store.findings(n * 1000 + 2 * LINES, first=n * 1000).missing
    see_once(store, 0, web)
    assert site.pid == pid
    site.stop()
    told(f"100 descriptors, {FILES} files, {CLIENTS_MORE} more connections: all is well after {back:.1f} s")
    assert "Traceback" not in site.log


# --- memory ---


@pytest.mark.slow
def test_a_blocked_sink_fills_no_memory(site, store, told):
    # 256 MiB of data in each process. The kernel counts the stacks of threads whole, of which little is ever used.
    site.under = ["sh", "-c", f'ulimit -s 1024 && ulimit -d {256 << 10} && exec "$@"', "sh"]
    site.start()
    pid = site.pid
    log = Log(site.logs / "app.log", 0)
    log.start()
    wait_until(lambda: log.written > 20, "it works")
    store.block(on=True)
    size = 2000 * LOTS
    webs = [WebLots(site.ports["web"], range(n, n + size)) for n in range(MILLION, MILLION + size * CLIENTS, size)]
    beats = [
        BeatLots(site.ports["ship"], range(n, n + size)) for n in range(5 * MILLION, 5 * MILLION + size * CLIENTS, size)
    ]
    for sender in (*webs, *beats):
        sender.together = 2000
        sender.start()
    time.sleep(SECONDS)
    wait_until(lambda: any(each.answers[429] for each in webs), "clients are told to wait")
    stuck = sum(each.acknowledged for each in (*webs, *beats))
    store.block(on=False)
    relieved = time.monotonic()
    wait_until(lambda: sum(each.acknowledged for each in (*webs, *beats)) > stuck, "clients are served again", BACK)
    back = time.monotonic() - relieved
    log.stop.set()
    log.join()
    wait_until(lambda: not any(each.is_alive() for each in (*webs, *beats)), "all is sent", SECONDS + 4 * PATIENCE)
    see_once(store, log.written, *webs, *beats)
    assert site.pid == pid
    peak = int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10
    site.stop()
    told(f"sink blocked for {SECONDS:g} s: {peak} MiB at most in the daemon; all is well after {back:.1f} s")
    assert "MemoryError" not in site.log
    assert "Traceback" not in site.log

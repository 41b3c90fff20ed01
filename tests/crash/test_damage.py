"""Every file of `data_dir` damaged between two runs: no crash, no hang, the file named, nothing lost."""

import os
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.crash.daemon import LONG, Daemon
from tests.crash.elastic import elastic
from tests.crash.writer import write

LINES, MORE = 3_000, 300
FLIPS = 64
EVERY = range(8) if LONG else (4,)
"""At which eighths of its length a file is truncated."""


def truncate(path: Path, eighth: int) -> None:
    os.truncate(path, path.stat().st_size * eighth // 8)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zero_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-4096] + bytes(min(4096, len(data))))


def flip(path: Path) -> None:
    """One bit in each of so many bytes, the same ones at every run."""
    data, r = bytearray(path.read_bytes()), random.Random(1)
    for _ in range(FLIPS if data else 0):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


NAMED = {"zeroed", "deleted"}
"""What must show in any file; a flipped bit may be where nothing is, and a shorter log may be a younger one."""
DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"truncated to {n}/8": partial(truncate, eighth=n) for n in EVERY},
    "zeroed": zero,
    "with flipped bits": flip,
    "deleted": delete,
    **({"zeroed at its end": zero_end} if LONG else {}),
}
SUFFIXES = ("", "-wal", "-shm") if LONG else ("", "-wal")
FILES = [f"{name}.db{suffix}" for name in ("state", "dead", "parked") for suffix in SUFFIXES]


class Site:
    """A daemon that was killed in the middle of its work, to be brought back to that moment again and again."""

    def __init__(self, folder: Path, store) -> None:
        self.store, self.written = store, LINES
        self.daemon = Daemon(folder, {"es": {"type": "elasticsearch", "hosts": [store.url]}})
        self.log = self.daemon.logs / "app.log"
        write(self.log, range(LINES))
        with self.log.open("ab") as file:
            file.write(b'{"cut off\n')
        self.daemon.start()
        while store.findings(0).stored < LINES:
            time.sleep(0.05)
        time.sleep(1.5)  # more than a commit tick
        self.daemon.kill()
        self._kept = folder / "kept"
        shutil.copytree(self.daemon.data, self._kept, ignore=self._sockets)

    @staticmethod
    def _sockets(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder, name).is_socket()]

    def restore(self) -> None:
        """The data_dir as it was at the kill, and some new lines."""
        shutil.rmtree(self.daemon.data)
        shutil.copytree(self._kept, self.daemon.data)
        write(self.log, range(self.written, self.written + MORE))
        self.written += MORE


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with elastic() as store:
        site = Site(tmp_path_factory.mktemp("site"), store)
        yield site
        site.daemon.close()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_in_data_dir_loses_nothing(site, name, damage):
    site.restore()
    path = site.daemon.data / name
    if not path.exists():
        pytest.skip(f"a killed daemon leaves no {name}")
    DAMAGES[damage](path)
    said = len(site.daemon.log)
    site.daemon.once()
    found = site.store.findings(site.written)
    assert not found.missing
    assert not found.twice
    log = site.daemon.log[said:]
    assert "Traceback" not in log
    cut = damage.startswith("truncated") and name.endswith(".db")
    if (damage in NAMED or cut) and not name.endswith("-shm"):  # which SQLite makes anew
        assert str(path) in log

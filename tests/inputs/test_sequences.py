"""Anything that can happen to log files, in any order."""

import asyncio
import gzip
import os
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.inputs import _judge, _read, tail
from tests.inputs.file_rig import Rig, lines


class AnySequence(RuleBasedStateMachine):
    """What happens to logs, in any order, with a look in between now and then.

    Every line is one of a kind but for headers. All complete lines that stood in a file at a look, and all that are
    there at the end, must come out; no line torn, no id for two texts, and without a kill nothing twice. Where only
    the live log matches, that goes for what it became after it was seen once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for module in (tail, _read, _judge):  # so that short logs go beyond what is remembered of them
            self.patch.setattr(module, "HEAD", 64)
            self.patch.setattr(module, "TAIL", 32)
        self.temporary = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.rig = Rig(Path(self.temporary.name))
        self.rig.gate = self.runner.run(self._open())
        self.written, self.due = set[bytes](), set[bytes]()
        self.n = 0
        self.seen = False  # this very log was there at a look
        self.killed = self.repeated = False

    @staticmethod
    async def _open() -> asyncio.Event:
        gate = asyncio.Event()
        gate.set()
        return gate

    @initialize(exact=st.booleans(), batch_bytes=st.sampled_from([20, 50, 1000]))
    def start(self, exact: bool, batch_bytes: int) -> None:
        self.exact = exact
        self.rig.start(
            paths=[str(self.rig.path("app.log" if exact else "*.log*"))], batch_bytes=batch_bytes, max_line_bytes=1000
        )

    @rule(count=st.integers(1, 40))
    def write(self, count: int) -> None:
        self.written.update(b"line %d" % n for n in range(self.n, self.n + count))
        self.rig.write("app.log", lines(self.n, self.n + count))
        self.n += count

    @rule(rest=st.sampled_from([b"", b"\n", b"x", b"x\n"]))
    def write_half_a_line(self, rest: bytes) -> None:
        self.n += 1
        self.rig.write("app.log", b"half %d " % self.n + rest)

    @rule()
    def write_a_header(self) -> None:
        # Where the copy is not looked at, a log truncated and begun again with all that was read of it is the same.
        if (not self.live or not self.live.stat().st_size) and not (self.exact and b"header" in self.written):
            self.written.add(b"header")
            self.rig.write("app.log", b"header\n")

    @property
    def live(self) -> Path | None:
        path = self.rig.path("app.log")
        return path if path.exists() else None

    def rotate(self) -> None:
        """Make room for a rotation; what it holds is due now, if it is known that it is a log of ours."""
        found = sorted(self.rig.folder.glob("app.log.[0-9]*"), key=lambda path: -int(path.name.split(".")[2]))
        for path in found:
            _, _, n, *suffix = path.name.split(".")
            path.rename(self.rig.path(".".join(["app", "log", str(int(n) + 1), *suffix])))
        if self.live and self.seen and self.exact:
            self.due |= complete(self.live)
        self.seen = False

    @rule()
    def rename(self) -> None:
        if self.live:
            self.rotate()
            self.live.rename(self.rig.path("app.log.1"))

    @rule(seen=st.booleans())
    def copy_and_truncate(self, seen: bool) -> None:
        if self.live:
            self.rotate()
            shutil.copy(self.live, self.rig.path("app.log.1"))
            self.rig.touch("app.log.1")
            if seen:
                self.look()
            self.truncate()

    @rule()
    def back_up(self) -> None:
        if self.live:
            shutil.copy(self.live, self.rig.path("app.log.bak"))
            self.rig.touch("app.log.bak")

    @rule()
    def truncate(self) -> None:
        if self.live:
            os.truncate(self.live, 0)
            self.rig.touch("app.log")
            self.seen = False

    @rule()
    def truncate_half(self) -> None:
        """Cut off the end of what was read: what is left is read again, as another log."""
        if self.live and self.live.stat().st_size > 100:
            self.look()
            os.truncate(self.live, self.live.read_bytes().rindex(b"\n", 0, 90) + 1)
            self.rig.touch("app.log")
            self.repeated = True
            self.look()
            self.rig.store.tick()  # only the state tells this log from the one before

    @rule()
    def delete(self) -> None:
        self.rig.path("app.log").unlink(missing_ok=True)
        self.seen = False

    @rule(seen=st.booleans())
    def compress(self, seen: bool) -> None:
        path = self.rig.path("app.log.1")
        if path.exists() and path.stat().st_size:
            self.rig.path("app.log.1.gz").write_bytes(gzip.compress(path.read_bytes()))
            self.rig.touch("app.log.1.gz")
            if seen:
                self.look()
            path.unlink()

    @rule(name=st.sampled_from(["0.log", "other.log"]))
    def link(self, name: str) -> None:
        if not self.rig.path(name).is_symlink():
            self.rig.path(name).symlink_to(self.rig.path("app.log"))

    @rule(tick=st.booleans())
    def kill(self, tick: bool) -> None:
        # A log that is in no state yet can't be found under another name, nor told from one that begins alike.
        self.rig.kill(tick=tick or self.exact or b"header" in self.written)
        self.killed = True

    @rule()
    def look(self) -> None:
        if self.exact:
            self.due |= complete(self.live) if self.live else set()
        else:
            self.due |= {line for path in self.rig.folder.iterdir() if path.exists() for line in complete(path)}
        self.seen = bool(self.live and complete(self.live))
        self.runner.run(self.rig.step())
        assert self.due <= {record for _, record in self.rig.delivered}

    @invariant()
    def nothing_is_torn_or_twice(self) -> None:
        ids: dict[str, bytes] = {}
        for id_, record in self.rig.delivered:
            assert record in self.written or record.startswith(b"half")
            assert ids.setdefault(id_, record) == record
        if not self.killed:
            assert len(ids) == len(self.rig.delivered)
        if not self.killed and not self.repeated:
            counts = Counter(record for _, record in self.rig.delivered if record != b"header")
            assert not [record for record, count in counts.items() if count > 1]

    def teardown(self) -> None:
        try:
            self.look()
            self.nothing_is_torn_or_twice()
        finally:
            self.rig.kill()
            self.runner.close()
            self.temporary.cleanup()
            self.patch.undo()


def complete(path: Path) -> set[bytes]:
    """The complete lines of a file."""
    data = path.read_bytes()
    return set((gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n")[:-1])


# AIOLOGS_SEQUENCES=10000 for the long run.
TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=int(os.environ.get("AIOLOGS_SEQUENCES", "100")), stateful_step_count=25
)

import asyncio
import gc
import platform
import subprocess
import sys
import weakref

import pytest

from pipeline import memory

PROGRAM = """
import resource
from pipeline import memory
{keep}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    return [b"x" * 3_000_000, b"y" * 2_000_000, b"z" * 1_000_000]
use()
before = faults()
for _ in range(20):
    use()
print(faults() - before)
"""


def faults(keep: str) -> int:
    """Page faults of a program that uses 6 MB again and again."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, check=True, text=True)
    return int(done.stdout)


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@glibc
def test_freed_memory_is_used_again_without_page_faults():
    assert faults("memory.keep()") < 1_000 < faults("")


OUTAGE = """
from pathlib import Path
from pipeline import memory
memory.keep()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
in_flight, stays = [], []
before = resident()
for n in range(400):
    in_flight.append(b"x" * 100_000)
    stays.append(b"y" * 1_000)
in_flight.clear()
kept = resident() - before
memory.give_back()
print(kept, resident() - before)
"""


@glibc
def test_what_is_free_between_what_stays_is_given_back():
    done = subprocess.run([sys.executable, "-c", OUTAGE], capture_output=True, check=True, text=True)
    kept, after = map(int, done.stdout.split())
    assert kept > 30_000_000
    assert after < 5_000_000


class Cycle:
    """Refers to itself, as an error does that its own frame knows."""

    def __init__(self) -> None:
        self.own = self


@pytest.mark.looptime
async def test_cycles_are_collected_every_ten_seconds_whatever_the_collector_counts():
    tidy = asyncio.create_task(memory.tidy())
    gc.disable()
    try:
        for _ in range(3):
            cycle = weakref.ref(Cycle())
            await asyncio.sleep(9)
            assert cycle()
            await asyncio.sleep(1.1)
            assert not cycle()
    finally:
        gc.enable()
        tidy.cancel()


@pytest.mark.looptime
async def test_cycles_that_lived_for_long_are_collected_within_five_minutes():
    tidy = asyncio.create_task(memory.tidy())
    gc.disable()
    try:
        lives = Cycle()
        cycle = weakref.ref(lives)
        await asyncio.sleep(35)
        del lives
        await asyncio.sleep(10)
        assert cycle()
        await asyncio.sleep(290)
        assert not cycle()
    finally:
        gc.enable()
        tidy.cancel()

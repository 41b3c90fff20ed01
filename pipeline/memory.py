"""How the C library's allocator treats what is freed, and when what nobody uses any more is given back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from functools import cache
from itertools import count
from typing import Any

# The names of the parameters in glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 32 << 20
_LARGEST = 16 << 20
_EVERY_SECONDS = 10.0
_FULLY = 30
"""Every so many times, all objects are looked at."""


def keep() -> None:
    """Let the process, and those that it forks, keep some freed memory for what comes next, in one heap.

    By default every block and every body is given back to the kernel, and its pages are cleared and faulted in anew
    for the next one: a fifth of the CPU time of the daemon. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = _libc().mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_ARENA_MAX, 1)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def give_back(generation: int = 2) -> None:
    """Give the kernel what is free: cyclic garbage of this generation and younger, and pages of the heap that hold
    nothing.

    What was in flight in an outage lies between what stays: the end of the heap alone, which glibc gives back by
    itself, is the least of it. Takes some milliseconds; does not trim where the C library is not glibc.
    """
    gc.collect(generation)
    with contextlib.suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


async def tidy() -> None:
    """Give back now and then, for as long as the daemon runs.

    Seldom enough to cost nothing: what is faulted in anew is at most what was used meanwhile. Cycles hold few objects
    but may hold large bodies, so that the collector, which counts objects, would let tens of megabytes pile up.
    Looking at all objects takes some 50 ms, so mostly those are left out that have been looked at before.
    """
    for n in count(1):
        await asyncio.sleep(_EVERY_SECONDS)
        give_back(1 if n % _FULLY else 2)

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_page_faults():
    assert faults("memory.keep()") < 1_000 < faults("")

"""Settings for all tests."""

import asyncio
import shutil
import subprocess
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from pipeline.dead import DeadLetters

# The machine may be busy or slow: a test fails by what it finds, never by the clock.
settings.register_profile("aiologs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aiologs")


@pytest.fixture(scope="session", autouse=True)
def _outer_event_loop():
    """The loop that pytest-asyncio finds and restores around its own: else it makes one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture
def told(record_property):
    """Tells what a test has measured when all have run, also out of another process of xdist's: `told("0 lost")`."""
    return partial(record_property, "told")


@pytest.fixture
async def dead(tmp_path):
    """Dead letters, none yet."""
    dead = DeadLetters(tmp_path)
    await dead.start()
    yield dead
    await dead.stop()


@pytest.fixture
def certified(tmp_path):
    """The files of a key and its certificate."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl command makes the certificate")
    key, certificate = tmp_path / "key", tmp_path / "crt"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, certificate


def pytest_terminal_summary(terminalreporter):
    reports = [each for fate in ("passed", "failed") for each in terminalreporter.getreports(fate)]
    found = [text for each in reports if each.when == "call" for name, text in each.user_properties if name == "told"]
    if found:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(found))

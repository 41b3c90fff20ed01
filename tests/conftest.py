"""Settings for all tests."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings

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

"""Real services: `tests/services/with-services` starts them and puts their addresses into the environment."""

import os

import pytest


def _address(variable: str) -> str:
    """A service's address; without one the test is skipped, but fails in CI."""
    if address := os.environ.get(variable):
        return address
    why = os.environ.get("AIOLOGS_TEST_NO_SERVICES") or "run this with tests/services/with-services"
    reason = f"{variable} is not set: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (in CI no service may be missing)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    """A real Elasticsearch."""
    return _address("AIOLOGS_TEST_ELASTICSEARCH")


@pytest.fixture(scope="session")
def kafka_address() -> str:
    """A real Kafka, as host:port."""
    return _address("AIOLOGS_TEST_KAFKA")

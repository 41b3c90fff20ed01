"""Real services: `tests/services/with-services` starts them and puts their addresses into the environment."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import PurePath
from typing import Any, NoReturn

import pytest

from tests.integration.cluster import Cluster
from tests.services import services

APART = {
    "test_clients.py",
    "test_debian.py",
    "test_failover.py",
    "test_kafka.py",
    "test_setup_lifecycle.py",
    "test_setup_rights.py",
}
"""The files here whose tests use no Elasticsearch, or one of their own."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file run one after the other, and so do all that share a cluster: they change what holds for it."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = PurePath(nodeid.partition("::")[0])
            return "cluster" if path.parent.name == "integration" and path.name not in APART else str(path)

    return Scheduling(config, log)


def _address(variable: str) -> str:
    """A service's address; without one the test is skipped, but fails in CI."""
    if address := os.environ.get(variable):
        return address
    return missing(variable, os.environ.get("AIOLOGS_TEST_NO_SERVICES") or "run this with tests/services/with-services")


def missing(variable: str, why: str) -> NoReturn:
    """Skip the test for want of a service, or fail it in CI."""
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


@pytest.fixture
def cluster(elasticsearch_url: str) -> Iterator[Cluster]:
    cluster = Cluster(elasticsearch_url)
    # Without replicas, a single node is all there.
    cluster.ask(
        "PUT",
        f"_index_template/{cluster.prefix}t",
        {
            "index_patterns": [f"{cluster.prefix}*"],
            "priority": 1000,
            "template": {"settings": {"number_of_replicas": 0}},
        },
    )
    yield cluster
    cluster.ask("DELETE", f"_index_template/{cluster.prefix}t")
    names = cluster.ask("GET", f"{cluster.prefix}*?expand_wildcards=all&features=aliases")
    for name in names:
        cluster.ask("DELETE", name)


@pytest.fixture(scope="module")
def two_nodes_url() -> Iterator[str]:
    """A real Elasticsearch of two nodes, so that replicas have a place; started for the tests that ask for it."""
    yield from _own("AIOLOGS_TEST_ELASTICSEARCH_TWO_NODES", nodes=2)


@pytest.fixture(scope="module")
def secured_url() -> Iterator[str]:
    """A real Elasticsearch with security, whose superuser is that of `tests.services.versions`."""
    yield from _own("AIOLOGS_TEST_ELASTICSEARCH_SECURED", security=True)


def _own(variable: str, *, nodes: int = 1, security: bool = False) -> Iterator[str]:
    if address := os.environ.get(variable):
        yield address
        return
    with ExitStack() as stack:
        if reason := services.why_not():
            os.environ["AIOLOGS_TEST_NO_SERVICES"] = reason
            yield _address(variable)
        provider = services.provider()
        url, wait = provider.elasticsearch(stack, nodes=nodes, security=security)
        wait()
        yield url

import pytest

from tests.crash.daemon import Daemon
from tests.crash.elastic import elastic
from tests.integration.conftest import cluster, elasticsearch_url, kafka_address  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def fresh_elastic():
    """Makes a fake Elasticsearch."""
    return elastic


@pytest.fixture
def store():
    """An empty fake Elasticsearch."""
    with elastic() as fake:
        yield fake


@pytest.fixture
def daemon(tmp_path, store):
    """A daemon that writes to the fake Elasticsearch; not started yet."""
    daemon = Daemon(tmp_path, {"es": {"type": "elasticsearch", "hosts": [store.url]}})
    yield daemon
    daemon.close()

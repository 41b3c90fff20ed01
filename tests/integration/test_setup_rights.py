"""What rights `setup` needs, on a real Elasticsearch with security."""

import json
from pathlib import Path

import pytest

from pipeline.outputs.elasticsearch import Elasticsearch
from pipeline.setup.cluster import Cluster, Refused, connect
from pipeline.setup.definitions import shipped
from pipeline.setup.doctor import examine, mend
from pipeline.setup.plan import apply, look
from tests.integration.setup_cluster import clean, phase, wait, write
from tests.services.versions import PASSWORD, SUPERUSER

pytestmark = pytest.mark.elasticsearch

ROLE = json.loads((shipped() / "role.json").read_text())
README = Path(__file__).parent.parent.parent / "README.md"


@pytest.fixture(scope="module")
def superuser(secured_url):
    with clean(secured_url, username=SUPERUSER, password=PASSWORD) as cluster:
        yield cluster


@pytest.fixture
def as_role(superuser, secured_url):
    """A cluster as somebody with a role sees it."""

    def make(role: dict) -> Cluster:
        superuser.ask("PUT", "_security/role/aiologs-test", role)
        user = {"password": PASSWORD, "roles": ["aiologs-test"]}
        superuser.ask("PUT", "_security/user/aiologs-test", user)
        return connect(Elasticsearch.Options(hosts=[secured_url], username="aiologs-test", password=PASSWORD))

    return make


@pytest.fixture(autouse=True)
def _empty(superuser):
    from tests.integration.setup_cluster import empty

    empty(superuser)


@pytest.mark.parametrize("mode", ["daily", "data_stream", "rollover"])
def test_the_documented_role_suffices(as_role, superuser, mode):
    cluster = as_role(ROLE)
    apply(cluster, look(cluster, mode))
    assert look(cluster, mode).clean
    assert examine(cluster, mode) == []


def test_the_documented_role_suffices_to_repair(as_role, superuser):
    cluster = as_role(ROLE)
    write(superuser, "aio-logs-undated", {"message": "early"})
    superuser.ask("PUT", "aio-logs-2026.11.20", {"settings": {"index.blocks.read_only_allow_delete": True}})
    for _ in range(2):
        findings = examine(cluster, "daily")
        assert findings
        mend(cluster, findings)
        assert [each.outcome for each in findings if each.outcome != "repaired"] == []
        if not examine(cluster, "daily"):
            break
    assert examine(cluster, "daily") == []


@pytest.mark.parametrize("privilege", ROLE["cluster"])
def test_without_a_privilege_of_the_cluster_it_is_named(as_role, privilege):
    cluster = as_role(ROLE | {"cluster": [each for each in ROLE["cluster"] if each != privilege]})
    with pytest.raises(Refused) as refused:
        apply(cluster, look(cluster, "daily"))
    assert refused.value.status == 403
    assert privilege in str(refused.value)
    assert "role.json" in str(refused.value)


def test_without_manage_on_the_indices_it_is_named(as_role):
    cluster = as_role(ROLE | {"indices": [{"names": ["aio-*"], "privileges": ["monitor", "view_index_metadata"]}]})
    plan = look(cluster, "daily")
    with pytest.raises(Refused, match=r"index privileges.*manage"):
        apply(cluster, plan)


def test_to_write_alone_takes_less(as_role, superuser):
    apply(superuser, look(superuser, "daily"))
    cluster = as_role({"indices": [{"names": ["aio-*"], "privileges": ["create_doc", "auto_configure"]}]})
    cluster.ask("PUT", "aio-logs-2026.11.20/_create/1", {"message": "a"})
    with pytest.raises(Refused, match="cluster privileges"):
        look(cluster, "daily")


def test_policies_really_run_with_security_on(superuser):
    apply(superuser, look(superuser, "daily"))
    write(superuser, "aio-logs-2026.01.01", {"message": "old"})
    wait(lambda: phase(superuser, "aio-logs-2026.01.01") == "deleted")


def test_a_key_of_the_api_will_do(superuser, secured_url):
    key = superuser.ask("POST", "_security/api_key", {"name": "aiologs", "role_descriptors": {"aiologs": ROLE}})
    cluster = connect(Elasticsearch.Options(hosts=[secured_url], api_key=key["encoded"]))
    apply(cluster, look(cluster, "daily"))
    assert look(cluster, "daily").clean


def test_a_wrong_password_is_told(secured_url):
    cluster = connect(Elasticsearch.Options(hosts=[secured_url], username="nobody", password="wrong"))
    with pytest.raises(Refused, match="look at api_key, or username and password"):
        look(cluster, "daily")

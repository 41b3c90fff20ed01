"""What the doctor finds, in words."""

from pipeline.setup.findings import Finding, settings
from tests.setup.fake_cluster import FakeCluster


def test_a_finding_says_what_where_and_what_to_do():
    finding = Finding("kind", "aio-logs-1", "it is ill", "give it tea")
    assert str(finding) == "- aio-logs-1: it is ill\n  give it tea (not repaired by doctor)"
    assert finding.as_dict()["repairable"] is False


def test_settings_are_set():
    cluster = FakeCluster()
    finding = Finding("kind", "a", "what", "remedy", settings("a", index__number_of_replicas=0))
    assert "`doctor --repair` does it" in str(finding)
    assert finding.repair
    finding.repair(cluster)
    assert cluster.bodies["PUT a/_settings"] == {"index.number_of_replicas": 0}

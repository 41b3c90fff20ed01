"""What is shipped for systemd, containers and Kubernetes fits the daemon and itself."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import check, config
from pipeline.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "aiologs.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OF_POD = {"push.yaml": "container.yaml", "node.yaml": "node.yaml"}
"""The configuration of each manifest that has pods."""
DRAIN: float = Settings.model_fields["drain_seconds"].default


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pods(path: Path) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in objects(path) if "template" in each["spec"]]


def unit() -> dict[str, str]:
    return dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match("[A-Z]", line))


def ports(name: str) -> set[int]:
    """Where a configuration listens."""
    values = yaml.safe_load((DEPLOY / name).read_text())
    addresses = [values["admin"], *(each["listen"] for each in values["inputs"].values() if "listen" in each)]
    return {int(address.rpartition(":")[2]) for address in addresses}


@pytest.mark.parametrize("name", ["container.yaml", "node.yaml"])
def test_the_configurations_are_valid_and_pass_their_tests(name, monkeypatch):
    monkeypatch.setenv("NODE_NAME", "node-1")
    assert not check.check(DEPLOY / name).problems


def test_the_node_is_the_host_in_the_ids_of_its_documents(monkeypatch):
    monkeypatch.setenv("NODE_NAME", "node-1")
    assert config.load(DEPLOY / "node.yaml").host == "node-1"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_object_of_a_manifest_has_a_kind_and_a_name(path):
    for each in objects(path):
        assert each["apiVersion"]
        assert each["kind"]
        assert each["metadata"]["name"]


@pytest.mark.parametrize("name", OF_POD)
def test_pods_may_do_little_and_are_asked_how_they_are(name):
    (pod,) = pods(DEPLOY / "kubernetes" / name)
    (container,) = pod["containers"]
    may = container["securityContext"]
    assert may["readOnlyRootFilesystem"]
    assert not may["allowPrivilegeEscalation"]
    assert may["capabilities"]["drop"] == ["ALL"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {each["name"] for each in container["volumeMounts"]} <= {
        *(each["name"] for each in pod["volumes"]),
        "data",
    }


@pytest.mark.parametrize(("name", "configuration"), OF_POD.items())
def test_pods_name_the_ports_that_their_configuration_opens(name, configuration):
    (pod,) = pods(DEPLOY / "kubernetes" / name)
    assert {port["containerPort"] for port in pod["containers"][0]["ports"]} == ports(configuration)


@pytest.mark.parametrize(("name", "configuration"), OF_POD.items())
def test_pods_get_more_time_than_a_drain_takes(name, configuration):
    (pod,) = pods(DEPLOY / "kubernetes" / name)
    drain = yaml.safe_load((DEPLOY / configuration).read_text())["drain_seconds"]
    assert pod["terminationGracePeriodSeconds"] > drain + 5 + 4  # preStop's sleep, and what a drain may hang


def test_services_lead_to_ports_of_the_pods():
    (pod,) = pods(DEPLOY / "kubernetes" / "push.yaml")
    known = {port["name"] for port in pod["containers"][0]["ports"]}
    wanted = {
        port["targetPort"]
        for each in objects(DEPLOY / "kubernetes" / "push.yaml")
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    }
    assert wanted == known


def test_scaling_looks_at_the_group_and_topic_that_are_read():
    (scaled,) = objects(DEPLOY / "kubernetes" / "scale.yaml")
    topic = yaml.safe_load((DEPLOY / "container.yaml").read_text())["inputs"]["topic"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == topic["group"]
    assert trigger["metadata"]["topic"] in topic["topics"][0]
    (found,) = [each for each in objects(DEPLOY / "kubernetes" / "push.yaml") if each["kind"] == "StatefulSet"]
    assert scaled["spec"]["scaleTargetRef"] == {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": found["metadata"]["name"],
    }


def test_the_image_copies_what_is_there_and_does_not_run_as_root():
    text = (DEPLOY / "Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert sources
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001", last, re.MULTILINE)
    assert int(re.findall(r"^EXPOSE .*?(\d+)$", last, re.MULTILINE)[0]) in ports("container.yaml")


def test_compose_mounts_and_publishes_what_the_configuration_needs():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["aiologs"]
    published = {int(each.rpartition(":")[2]) for each in service["ports"]}
    assert published == ports("container.yaml")
    assert (DEPLOY / service["volumes"][1].partition(":")[0]).exists()
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN


def test_the_unit_leaves_more_time_than_a_drain_takes():
    assert float(unit()["TimeoutStopSec"]) > DRAIN + 4


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit_and_little_exposed(tmp_path):
    # systemd knows notify-reload since 253; the command need not be installed here.
    text = UNIT.read_text().replace("notify-reload", "notify").replace("/usr/bin/aiologs", "/bin/true")
    copy = tmp_path / "aiologs.service"
    copy.write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", copy]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-200:]

"""One of two real nodes hangs or is killed while records flow, and comes back."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest

from tests.crash.daemon import Daemon, wait_until
from tests.integration.cluster import Cluster
from tests.integration.conftest import missing
from tests.services import services

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]

RATE = 200
"""Records a second."""
BEFORE, AWAY = 3.0, 12.0
"""Seconds."""
AT_ONCE = 20.0
"""Seconds without a new document, at most: some for a node to be missed, and what a slow machine adds. A request that
waits for its timeout takes 60.
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Any]]:
    """A cluster of our own, for its nodes are treated badly. The first is the one that the other can't do without."""
    with ExitStack() as stack:
        if reason := services.why_not():
            missing("AIOLOGS_TEST_ELASTICSEARCH", reason)
        started, wait = services.provider().cluster(stack, nodes=2)
        wait()
        yield started


@pytest.fixture
def cluster(nodes: list[Any]) -> Cluster:
    return Cluster(nodes[0].url)


class Flow:
    """Records that a daemon reads from a file, and what the cluster has of them."""

    def __init__(self, folder: Any, cluster: Cluster, hosts: list[str], **output: Any) -> None:
        self.cluster, self.index, self.lines = cluster, f"{cluster.prefix}flow", 0
        self.daemon = Daemon(
            folder,
            {"es": {"type": "elasticsearch", "hosts": hosts, "setup": "off", **output}},
            stages=[{"route": {"default": self.index}}],
        )
        self._flows = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self.daemon.start()
        self._flows.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.clear()
        self._thread.join()
        self.daemon.close()

    def _write(self) -> None:
        with (self.daemon.logs / "app.log").open("a", buffering=1) as log:
            while self._flows.is_set():
                log.write(json.dumps({"n": self.lines}) + "\n")
                self.lines += 1
                time.sleep(1 / RATE)

    def stored(self) -> int:
        """As many as were acknowledged to the daemon."""
        return int(self.daemon.balance()["es"]["stored"])

    def pause_of(self, seconds: float) -> float:
        """The longest time without a new document within these seconds, and until there are some again."""
        began = last = time.monotonic()
        longest, before = 0.0, self.stored()
        while (now := time.monotonic()) < began + seconds or last < began + seconds:
            if (count := self.stored()) > before:
                longest, last, before = max(longest, now - last), now, count
            assert now - last < 90, self.daemon.log[-3000:]
            time.sleep(0.1)
        return longest

    def all_came_once(self) -> None:
        self._flows.clear()
        self._thread.join()
        wait_until(lambda: self.cluster.count(self.index) >= self.lines, "all is stored")
        assert self.cluster.numbers(self.index) == list(range(self.lines))
        fates = self.daemon.balance()["es"]
        assert fates["stored"] + fates["already"] == self.lines
        self.daemon.stop()


def coordinated(cluster: Cluster, node: str = "node-2") -> int:
    """The bytes of bulk requests that came to a node; since it was started."""
    found = cluster.ask("GET", f"_nodes/{node}/stats/indexing_pressure?timeout=2s")["nodes"].values()
    return sum(each["indexing_pressure"]["memory"]["total"]["coordinating_in_bytes"] for each in found)


def test_a_node_that_hangs_is_left_out_and_used_again(tmp_path, nodes, cluster, told):
    # Its shard is on the first node: the cluster itself waits half a minute for the shards of a node that hangs.
    cluster.index("flow", {"index.routing.allocation.require._name": "node-1"})
    hanging = nodes[1]
    with Flow(tmp_path, cluster, [hanging.url, nodes[0].url]) as flow:
        wait_until(lambda: coordinated(cluster) > 0, "both are used")
        time.sleep(BEFORE)
        hanging.pause()
        try:
            pause = flow.pause_of(AWAY)
        finally:
            hanging.resume()
        wait_until(lambda: coordinated(cluster) >= 0, "it is back in the cluster")
        began, before = time.monotonic(), coordinated(cluster)
        wait_until(lambda: coordinated(cluster) > before, "it is used again")
        back = time.monotonic() - began
        flow.all_came_once()
    told(f"{flow.lines:,} records, a node hung {AWAY:g} s: none for {pause:.1f} s; used again {back:.1f} s after")
    assert pause < AT_ONCE
    assert f"node {hanging.url} is left out until it answers" in flow.daemon.log
    assert f"node {hanging.url} answers again" in flow.daemon.log


def test_a_node_that_is_killed_is_left_out_and_used_again(tmp_path, nodes, cluster, told):
    cluster.index("flow", {"number_of_replicas": 1})
    cluster.ask("GET", f"_cluster/health/{cluster.prefix}flow?wait_for_status=green&timeout=60s")
    killed = nodes[1]
    with Flow(tmp_path, cluster, [killed.url, nodes[0].url]) as flow:
        wait_until(lambda: coordinated(cluster) > 0, "both are used")
        time.sleep(BEFORE)
        killed.kill()
        pause = flow.pause_of(AWAY)
        killed.start()
        began = time.monotonic()
        wait_until(lambda: coordinated(cluster) > 0, "it is used again", 120)
        back = time.monotonic() - began
        flow.all_came_once()
    told(f"{flow.lines:,} records, a node killed: none for {pause:.1f} s; used again {back:.1f} s after its start")
    assert pause < AT_ONCE
    assert f"node {killed.url} answers again" in flow.daemon.log


def test_the_second_node_is_learned_from_the_first(tmp_path, nodes, cluster):
    cluster.index("flow")
    before = coordinated(cluster)
    with Flow(tmp_path, cluster, [nodes[0].url], sniff=True) as flow:
        wait_until(lambda: coordinated(cluster) > before, "the second is used")
        flow.all_came_once()

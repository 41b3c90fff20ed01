"""The official images of Elasticsearch and Kafka, through testcontainers."""

import gc
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from tests.services.ports import free_port, wait_for_http, wait_for_port
from tests.services.versions import ELASTICSEARCH, KAFKA, PASSWORD, SUPERUSER

NAME = "Docker"


@cache
def why_not() -> str | None:
    """Why Docker can't be used; None: it answers."""
    import docker  # type: ignore[import-untyped]

    # Its client leaves sockets open where nobody answers; they are to go here, not in the middle of a test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        reason = None
        try:
            docker.from_env(timeout=5).ping()
        except docker.errors.DockerException as error:
            reason = f"Docker does not answer ({str(error)[:100]})"
        gc.collect()
    return reason


def elasticsearch(stack: ExitStack, *, nodes: int = 1, security: bool = False) -> tuple[str, Callable[[], None]]:
    """Start a cluster; the URL of its first node, and what returns when all nodes answer."""
    started, wait = cluster(stack, nodes=nodes, security=security)
    return started[0].url, wait


def cluster(stack: ExitStack, *, nodes: int, security: bool = False) -> tuple[list["Server"], Callable[[], None]]:
    """The same, with all its nodes."""
    from testcontainers.core.network import Network

    network = stack.enter_context(Network())
    names = [f"es-{n + 1}" for n in range(nodes)]
    servers = [_node(stack, network, name, names, security=security) for name in names]
    url = servers[0].url
    if security:
        address = urlsplit(url)
        return servers, partial(wait_for_port, str(address.hostname), int(address.port or 0))
    return servers, partial(wait_for_http, f"{url}/_cluster/health?wait_for_status=yellow&wait_for_nodes={nodes}")


class Server:
    """A container; a test may treat it badly. The names are those of `servers.Server`."""

    def __init__(self, container: Any, url: str) -> None:
        self.url = url
        wrapped = container.get_wrapped_container()
        self.start, self.kill = wrapped.start, wrapped.kill
        self.pause, self.resume = wrapped.pause, wrapped.unpause


def _node(stack: ExitStack, network: Any, name: str, names: list[str], *, security: bool) -> Server:
    from testcontainers.core.container import DockerContainer

    # A port of Docker's choice would be another one after `kill` and `start`.
    container = DockerContainer(f"elasticsearch:{ELASTICSEARCH}").with_bind_ports(9200, port := free_port())
    container.with_network(network).with_network_aliases(name)
    formation = (
        {"discovery.type": "single-node"}
        if len(names) == 1
        else {"cluster.initial_master_nodes": names[0], "discovery.seed_hosts": ",".join(names)}
    )
    settings = formation | {
        "node.name": name,
        "xpack.security.enabled": str(security).lower(),
        "xpack.security.http.ssl.enabled": "false",
        "xpack.security.transport.ssl.enabled": "false",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        "indices.lifecycle.poll_interval": "1s",
        "ES_JAVA_OPTS": "-Xms1g -Xmx1g",
    }
    for setting, value in settings.items():
        container.with_env(setting, value)
    stack.enter_context(container)
    if security:
        # The image knows `elastic`; the tests' name for who may do everything is that of the other way, too.
        add = f"bin/elasticsearch-users useradd {SUPERUSER} -p {PASSWORD} -r superuser"
        container.exec(["bash", "-c", add])
    return Server(container, f"http://{container.get_container_host_ip()}:{port}")


def kafka(stack: ExitStack) -> tuple[str, Callable[[], None]]:
    """Start a single broker; its address, and what returns when it answers."""
    from testcontainers.core.container import DockerContainer

    # The broker tells its clients where it is, so the port must be known before it starts.
    port = free_port()
    container = DockerContainer(f"apache/kafka:{KAFKA}").with_bind_ports(9092, port)
    host = container.get_container_host_ip()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_NUM_PARTITIONS": "4",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    for name, value in settings.items():
        container.with_env(name, value)
    stack.enter_context(container)
    return f"{host}:{port}", partial(wait_for_port, host, port)

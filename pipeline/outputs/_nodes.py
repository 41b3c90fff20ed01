"""Which node of a cluster a request goes to: each in turn of those that answer.

A node that fails to answer is left out while another one answers: for a second, then two, four, at most 30, and then
it is asked something small (`GET /`) before documents are risked on it again. A node may also hang, with connections
that stay open: who gets no answer for a while asks the same thing beside, and where that finds none, goes elsewhere
long before its time is up. With a single node left there is no choice, and requests themselves find out.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from elastic_transport import (
    AiohttpHttpNode,
    BaseNode,
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
    NodePool,
    TransportError,
)

log = logging.getLogger("aiologs.output")

PATIENCE_SECONDS = 1.0
"""After so long without an answer, a node is asked whether it is still there; and again after as long."""
PROBE_SECONDS = 3.0
"""A node that takes longer for the smallest of answers is not there."""
ABSENCE_SECONDS = 30.0
"""The longest time after which a node that did not answer is asked again."""


_TLS = re.compile(r" ssl:(\w+|<[^>]*>)")


def reason(error: Exception) -> str:
    """What an error of the client says, without the TLS context that aiohttp names also where there is none."""
    return _TLS.sub("", str(getattr(error, "message", error))) or type(error).__name__


class _Quiet(AiohttpHttpNode):
    def _log_request(self, *_: Any, **__: Any) -> None:
        """Nothing: the client's would decode each body as soon as any log handler exists."""


class Node(_Quiet):
    """One node; made by `Nodes`."""

    nodes: Nodes

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        # Of its own, or it would wait for one of those that hang.
        self._prober = _Quiet(config.replace(connections_per_node=1, request_timeout=PROBE_SECONDS))
        self._probing: asyncio.Task[bool] | None = None

    async def perform_request(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Status and body of the answer; raises `TransportError`, also when the node hangs while others answer."""
        request = asyncio.ensure_future(super().perform_request(*args, **kwargs))
        try:
            while not (await asyncio.wait({request}, timeout=PATIENCE_SECONDS))[0]:
                if self.nodes.others(self) and not await asyncio.shield(self.probe()) and not request.done():
                    raise ConnectionTimeout(f"{self.base_url} hangs")
            return request.result()
        finally:
            if not request.done():
                request.cancel()
                await asyncio.wait({request})

    def probe(self) -> asyncio.Task[bool]:
        """Ask whether it is there; who asks meanwhile shares the answer."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name=f"probe {self.base_url}")
        return self._probing

    async def _probe(self) -> bool:
        try:
            answer = await self._prober.perform_request("GET", "/", headers=HttpHeaders(self.nodes.headers))
        except (TransportError, ValueError) as error:  # a redirect to nonsense is a ValueError
            self.nodes.probed(self, reason(error))
            return False
        self.nodes.probed(self, None if answer.meta.status < 500 else f"it answers {answer.meta.status}")
        return answer.meta.status < 500

    async def close(self) -> None:  # type: ignore[override]
        """Close its connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})
        await self._prober.close()
        await super().close()


@dataclass(slots=True)
class _Absence:
    """A node that did not answer, until a request to it succeeds."""

    failures: int = 0
    until: float = 0.0
    """When it is asked again, in the event loop's time; infinity: it has answered a probe, and is used again."""
    told: bool = False


class Nodes(NodePool):
    """The nodes of one cluster; see the module's documentation. `name` and `headers` are set before it is used."""

    name: str
    headers: Mapping[str, str]

    def __init__(self, node_configs: list[NodeConfig], *args: Any, **kwargs: Any) -> None:
        super().__init__(node_configs, *args, **kwargs)
        self._absent: dict[NodeConfig, _Absence] = {}
        self._removed: set[NodeConfig] = set()
        self._turn = 0
        for node in self.all():
            cast("Node", node).nodes = self

    def add(self, node_config: NodeConfig) -> None:
        """Use this one, too."""
        super().add(node_config)
        self._removed.discard(node_config)
        for node in self.all():
            cast("Node", node).nodes = self

    def remove(self, node_config: NodeConfig) -> None:
        """Use this one no more."""
        self._removed.add(node_config)

    def get(self) -> BaseNode:
        """The next one that answers; where none does, the next one."""
        (present, absent), now = self._split(), _now()
        for node in absent if present else ():
            if self._absent[node.config].until <= now:
                node.probe()
        self._turn += 1
        nodes = present or absent
        return nodes[self._turn % len(nodes)]

    def others(self, node: Node) -> bool:
        """Whether there is another one that answers."""
        return any(each is not node for each in self._split()[0])

    def _split(self) -> tuple[list[Node], list[Node]]:
        nodes = [cast("Node", node) for node in self.all() if node.config not in self._removed]
        absent = [node for node in nodes if self._is_absent(node)]
        return [node for node in nodes if node not in absent], absent

    def _is_absent(self, node: BaseNode) -> bool:
        absence = self._absent.get(node.config)
        return absence is not None and absence.until < float("inf")

    # --- how it went ---

    def mark_live(self, node: BaseNode) -> None:
        """It has answered a request."""
        self._absent.pop(node.config, None)

    def mark_dead(self, node: BaseNode, *_: Any) -> None:
        """It has not answered a request, or with an error of its own."""
        absence, now = self._absent.setdefault(node.config, _Absence()), _now()
        if absence.failures and now < absence.until < float("inf"):
            return  # of several that failed at once, the first has counted
        absence.until = now + min(2.0**absence.failures, ABSENCE_SECONDS)
        absence.failures += 1

    def probed(self, node: Node, trouble: str | None) -> None:
        """It was asked whether it is there; `trouble`: why it seems not to be."""
        absence = self._absent.get(node.config)
        if trouble is not None:
            self.mark_dead(node)
            absence = self._absent[node.config]
            if not absence.told and self.others(node):
                absence.told = True
                log.warning("output %s: node %s is left out until it answers: %s", self.name, node.base_url, trouble)
        elif absence is not None:
            if absence.told:
                absence.told = False
                log.info("output %s: node %s answers again", self.name, node.base_url)
            absence.until = float("inf")


def _now() -> float:
    return asyncio.get_running_loop().time()

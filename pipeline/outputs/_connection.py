"""The transport of the official Elasticsearch client, used for what it is good at: nodes, connections, TLS.

Bodies and answers pass as the bytes they are: through `AsyncElasticsearch.bulk` a request of 1 MB costs 4.4 ms of CPU,
this way 1.2 ms. The client around it, of which nothing would be called here, takes 60 ms and 8 MB to import; what is
left takes a tenth of a second, so this module is imported only when an output starts. The plain media types sent here
are understood by every Elasticsearch from 7.14 on; the client's own name version 9.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, cast

# The package first: a module in it is imported without waiting for a thread that is just importing the package.
import aiohttp  # noqa: F401
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from elastic_transport import AsyncTransport, NodeConfig, SerializerCollection, TransportError
from elastic_transport.client_utils import url_to_node_config

from pipeline.outputs._answers import FILTER, Failed, Kind, failed
from pipeline.outputs._nodes import Node, Nodes, reason

# It would warn at every try of a node that is away; an outage is told once, by the output.
logging.getLogger("elastic_transport.node_pool").setLevel(logging.ERROR)

_TARGET = f"/_bulk?filter_path={FILTER}"


class _Body(Payload):
    """A body in pieces, each of which goes to the socket as it is: aiohttp would put them and the head together."""

    def __init__(self, value: Sequence[bytes]) -> None:
        super().__init__(value, content_type="application/x-ndjson")
        self._size = sum(map(len, value))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        writer.send_headers()
        for piece in self._value:
            await writer.write(piece)


class _Bytes(SerializerCollection):
    """Leaves bodies and answers alone, whatever their media type says."""

    def __init__(self) -> None:
        """Nothing is serialized, so there are no serializers."""

    def dumps(self, data: Any, mimetype: str | None = None) -> Any:  # noqa: ARG002 - the client's signature
        return _Body(data)

    def loads(self, data: bytes, mimetype: str | None = None) -> bytes:  # noqa: ARG002
        return data


class Connection:
    """Sends requests to the nodes of one cluster, in turn; those of documents are not retried here.

    `name` is the output's, `timeout` in seconds, `most` how many connections each node gets.
    """

    def __init__(
        self,
        name: str,
        hosts: Sequence[str],
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        *,
        timeout: float,
        most: int,
    ) -> None:
        nodes = [_node(host, tls).replace(request_timeout=timeout, connections_per_node=most) for host in hosts]
        self._transport = AsyncTransport(nodes, node_class=Node, node_pool_class=Nodes, meta_header=False)
        self._transport.serializers = _Bytes()
        self._headers = {"accept": "application/json", **headers}
        self._nodes = cast("Nodes", self._transport.node_pool)
        self._nodes.name, self._nodes.headers = name, self._headers
        self._given, self._sniffed = nodes, set[NodeConfig]()

    async def bulk(self, body: Sequence[bytes], headers: Mapping[str, str]) -> tuple[int, bytes, bool]:
        """Status and body of the answer, and whether it says to be Elasticsearch's; raises `Failed` without one."""
        return await self._request("POST", _TARGET, body, {"content-type": "application/x-ndjson", **headers})

    async def about(self) -> tuple[int, bytes, bool]:
        """The answer to `GET /`; raises `Failed` without one."""
        return await self._anywhere("GET", "/", None, {})

    async def ask(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and body of the answer to any other request, with a JSON body or none; raises `Failed` without one."""
        headers = {} if body is None else {"content-type": "application/json"}
        status, answer, _ = await self._anywhere(method, target, None if body is None else [body], headers)
        return status, answer

    async def sniff(self) -> None:
        """Use the nodes that the cluster has now, beside those that were given; raises `Failed`."""
        target = "/_nodes/_all/http?filter_path=nodes.*.roles,nodes.*.http.publish_address"
        status, answer = await self.ask("GET", target, None)
        if status != 200:
            raise failed(status, answer)
        try:
            nodes = orjson.loads(answer)["nodes"].values()
            # A node that is a master only is to be left alone.
            found = {self._node(each["http"]["publish_address"]) for each in nodes if each["roles"] != ["master"]}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Failed(Kind.ODD, "the answer does not tell the nodes") from None
        found -= {*self._given}
        for node in found - self._sniffed:
            self._nodes.add(node)
        for node in self._sniffed - found:
            self._nodes.remove(node)
        self._sniffed = found

    def _node(self, address: str) -> NodeConfig:
        """A node at `ip:port`, or `name/ip:port`, for the rest as the ones that were given."""
        name, _, rest = address.rpartition("/")
        host, _, port = rest.rpartition(":")
        return self._given[0].replace(host=name or host.strip("[]"), port=int(port))

    async def _anywhere(
        self, method: str, target: str, body: Sequence[bytes] | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, bool]:
        """The answer of the first node that gives one: nobody else would ask again, as with bulk requests."""
        for _ in range(len(self._nodes) - 1):
            with contextlib.suppress(Failed):
                return await self._request(method, target, body, headers)
        return await self._request(method, target, body, headers)

    async def _request(
        self, method: str, target: str, body: Sequence[bytes] | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, bool]:
        try:
            meta, answer = await self._transport.perform_request(
                method, target, body=body, max_retries=0, headers={**self._headers, **headers}
            )
        except (TransportError, ValueError) as error:  # a redirect to nonsense is a ValueError
            said = reason(error)
            _let_go(error)
        else:
            return meta.status, answer, "x-elastic-product" in meta.headers
        raise Failed(Kind.AWAY, said)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _let_go(error: BaseException | None) -> None:
    """Forget where an error, and those behind it, came from.

    The client's frames hold the body and stand in a cycle with their error: the body of each failed request would stay
    until the garbage collector comes by.
    """
    while error:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _node(host: str, tls: ssl.SSLContext | None) -> NodeConfig:
    node = url_to_node_config(host, use_default_ports_for_scheme=True)
    return node.replace(ssl_context=tls if node.scheme == "https" else None)

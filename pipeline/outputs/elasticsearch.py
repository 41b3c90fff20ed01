"""Writes to Elasticsearch (7.14 and newer; OpenSearch with a warning) with bulk requests.

    outputs:
      es:
        type: elasticsearch
        hosts: ["https://es1:9200", "https://es2:9200"]
        api_key: "${ES_API_KEY}"
        ca: /etc/aiologs/ca.pem

Every document is sent as `create` with an id made from its record's place in its source, so that whatever is sent
again is answered with 409, "already there", and never stored twice. Each document of an answer is looked at:

- What the cluster has no time for (429) is sent again, with growing random pauses. While nothing at all is taken, for
  instance since the cluster is away or the API key does not do, inputs wait, the daemon is not ready and /status says
  why.
- Documents for a read-only index, as lifecycles make them of old days: what the index, or a replay index of its day,
  has is already there. What they lack goes, with `read_only: replay_index`, to a replay index of that day,
  `aio-logs-2026.08.01-1`, which is deleted when the day's index is; with `add` into the index itself, whose block is
  lifted and ten seconds later restored, also when the daemon was killed meanwhile: at its next start. `set_aside` and
  `park` add nothing. To look up takes the privileges `read` and `view_index_metadata`, `add` also `manage`.
- What stands in the way of one index only (it is closed, missing; shards are not there; it is read-only and what to do
  does not work) is waited for `park_after` seconds. If others are stored meanwhile, its documents are parked on disk
  and tried again later, and documents that come for that index later are parked without waiting.
- A field of another type than the index wants is moved into `conflict`, a list of `{"field": "user.id", "value": "x"}`
  with texts, and its document is sent again; `exists: conflict` finds such documents. Later ones of that index are
  repaired before they are sent. `conflicts: set_aside` leaves documents as they are.
- What will never be taken (more fields than the index may have, for instance) is set aside with the reason.
- A request that is too large for the server (413), or is refused as a whole for one document, is halved until the
  document that does it is found; it is set aside. The same happens where a request finds no answer, or no sensible
  one, three times in a row though others get through.
- What Elasticsearch itself fails on (500) while its neighbours are stored, four times, is set aside.

A node that gives no answer, or hangs, is left out while others answer, and asked now and then, at the latest after 30
seconds, whether it is there again. Where the cluster
answers 429, is slower than a quarter of `timeout`, or not in time, fewer requests are under way at once, down to one,
and with each round of good answers one more, up to `concurrency`.

Ids are unique in one index only: with rollover, data streams, or another routing than at the first time, a record that
is read again is stored again. Without ids (`document_id: false`) every repeat is stored again, also of a request whose
answer was lost.

Metrics: `bulk_requests_total{output,status}`, `bulk_retries_total{output,reason}` in documents,
`read_only_documents_total{output,fate}`, `documents_repaired_total{output}`,
`failure_store_total{output}`, `bulk_concurrency{output}`, `output_blocked{output}`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.contract import Context, Payload, Written
from pipeline.outputs import _access as access
from pipeline.outputs._answers import Failed, Fates, Kind, fates
from pipeline.outputs._conflicts import Conflicts
from pipeline.outputs._conflicts import Mode as ConflictMode
from pipeline.outputs._health import Health
from pipeline.outputs._read_only import Mode, ReadOnly
from pipeline.outputs._sender import Pauses, Sender
from pipeline.outputs._slots import Slots
from pipeline.outputs.bulk import Request, requests
from pipeline.setup.start import Start

if TYPE_CHECKING:
    from pipeline.outputs._connection import Connection

log = logging.getLogger("aiologs.output")

SNIFF_SECONDS = 60.0


class Elasticsearch:
    """See the module's documentation."""

    class Options(BaseModel, extra="forbid"):
        """Where and how to write."""

        hosts: list[str] = Field(
            default=["http://localhost:9200"], min_length=1, description="URLs of nodes of one cluster, used in turn."
        )
        api_key: SecretStr | None = Field(
            default=None, description="An API key: encoded as Kibana shows it, or `id:key`. Empty: none."
        )
        username: str | None = Field(default=None, description="For basic authentication, instead of an API key.")
        password: SecretStr | None = Field(default=None, description="The user's password.")
        ca: Path | None = Field(
            default=None, description="PEM file: the authorities to trust; null: those of the operating system."
        )
        certificate: Path | None = Field(default=None, description="PEM file: a client certificate to show.")
        key: Path | None = Field(default=None, description="PEM file: its private key; null: beside the certificate.")
        verify: bool = Field(default=True, description="Whether the server's certificate must be valid: keep it so.")
        document_id: bool = Field(
            default=True, description="Whether ids are sent; without them nothing recognizes a repeat."
        )
        compress: Literal["gzip"] | None = Field(default=None, description="Compress requests, at gzip's level 1.")
        max_request_bytes: int = Field(
            default=4 << 20, ge=1024, description="A request is no larger, before compression, unless a document is."
        )
        concurrency: int = Field(
            default=4, ge=1, le=64, description="Requests under way at once, at most: fewer while the cluster is slow."
        )
        sniff: bool = Field(
            default=False, description="Learn the other nodes of the cluster each minute, and use them too."
        )
        timeout: float = Field(default=60.0, gt=0, description="Seconds to wait for the answer to a request.")
        retry_first: float = Field(
            default=1.0, gt=0, description="The first pause before a retry is up to so many seconds; each next twice."
        )
        retry_most: float = Field(default=60.0, gt=0, description="The longest pause, in seconds.")
        park_after: float = Field(
            default=5.0, ge=0, description="Seconds after which documents of a blocked index are parked on disk."
        )
        read_only: Mode = Field(
            default="replay_index",
            description="What a read-only index lacks goes into a replay index of its day, is added with the block"
            " lifted for some seconds, is set aside, or is parked.",
        )

        conflicts: ConflictMode = Field(
            default="move",
            description="A field of another type than its index wants is moved into `conflict`, or its document is set"
            " aside.",
        )

        setup: Literal["check", "apply", "off"] = Field(
            default="check",
            description="At the start: tell what lifecycle policies and templates the cluster lacks; or give it them, "
            "as `aiologs setup apply` does, except what was changed by hand, before the first document; or neither.",
        )
        mode: Literal["daily", "data_stream", "rollover"] = Field(
            default="daily",
            description="What `route` names: an index a day (`aio-logs-{day}`), or a data stream or an alias for "
            "`setup` to make (`aio-logs`). With the latter two a record that is read again may be stored again.",
        )
        definitions: Path | None = Field(
            default=None, description="A folder to set up from, in place of the one shipped (config/elasticsearch)."
        )

        @field_validator("hosts")
        @classmethod
        def _urls(cls, hosts: list[str]) -> list[str]:
            for host in hosts:
                url = urlsplit(host)
                if url.scheme not in {"http", "https"} or not url.hostname:
                    raise ValueError("a host is a URL such as https://localhost:9200")
                if url.username or url.password:
                    raise ValueError("credentials belong into username and password, or api_key, not into the URL")
            return hosts

        @field_validator("api_key")
        @classmethod
        def _encoded(cls, key: SecretStr | None) -> SecretStr | None:
            plain = key.get_secret_value() if key else ""
            return SecretStr(access.base64(plain) if ":" in plain else plain) if plain else None

        @model_validator(mode="after")
        def _credentials(self) -> Elasticsearch.Options:
            if self.api_key and self.username:
                raise ValueError("either api_key or username and password")
            if bool(self.username) != (self.password is not None):
                raise ValueError("username and password go together")
            if self.key and not self.certificate:
                raise ValueError("key needs the certificate that it belongs to")
            return self

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._name, self._count = options, context.name, context.count
        self._context = context
        self._health = Health(context.name, context.gauge)
        self._slots = Slots(
            options.concurrency,
            options.timeout / 4,
            lambda limit: context.gauge("bulk_concurrency", limit, {"output": context.name}),
        )
        pauses = Pauses(options.retry_first, options.retry_most, options.park_after)
        self._read_only = ReadOnly(options.read_only, self.ask, context, ids=options.document_id)
        self._conflicts = Conflicts() if options.conflicts == "move" else None
        self._sender = Sender(context, self._send, self._read_only, self._conflicts, self._health, pauses)
        self._known = False
        self._opening: asyncio.Task[Connection]
        self._greeting: asyncio.Task[None]
        self._setup = Start(context.name, options, self._ask_setup, self._health.failed)
        self._sniffing: asyncio.Task[None] | None = None

    @property
    def blocked(self) -> str | None:
        """Why nothing at all is taken now; None: something is, or nothing was tried."""
        return self._health.blocked

    async def start(self) -> None:
        """Check the files that are named; the client is imported beside the rest of the start."""
        tls = access.tls(self._options, self._name)
        self._opening = asyncio.create_task(self._open(tls), name=f"output {self._name}: open")
        self._greeting = asyncio.create_task(self._greet(), name=f"output {self._name}: greet")
        if self._options.sniff:
            self._sniffing = asyncio.create_task(self._sniff(), name=f"output {self._name}: sniff")
        self._read_only.start()
        self._setup.begin()

    async def _open(self, tls: ssl.SSLContext | None) -> Connection:
        module: Any = await asyncio.to_thread(importlib.import_module, "pipeline.outputs._connection")
        options = self._options
        connection: Connection = module.Connection(
            self._name,
            options.hosts,
            access.headers(options),
            tls,
            timeout=options.timeout,
            most=options.concurrency + 1,
        )
        return connection

    async def _greet(self) -> None:
        """Tell at the start who is there; nobody waits for it."""
        try:
            status, answer, _ = await (await asyncio.shield(self._opening)).about()
            about = orjson.loads(answer)
            log.info("output %s: cluster %s, %s", self._name, about["cluster_name"], about["version"]["number"])
        except Failed as failure:
            log.warning("output %s: no server answers yet: %s", self._name, failure.reason)
        except (ValueError, LookupError, TypeError):
            # A key that may only write is refused here, and needs no more than that.
            log.info("output %s: the server does not say who it is (it answers %d)", self._name, status)

    async def stop(self) -> None:
        """Close the connections."""
        await self._setup.end()
        background = {self._greeting, self._sniffing} if self._sniffing else {self._greeting}
        for task in background:
            task.cancel()
        await asyncio.wait({self._opening, *background})
        await self._read_only.stop()
        await self._opening.result().close()

    async def write(self, payload: Payload) -> Written:
        """See `contract.Output`."""
        written = Written()
        count = sum(documents.count for documents in payload)
        self._health.waiting += count
        if self._conflicts and self._conflicts.known(payload):
            payload, repaired = self._conflicts.prepare(payload)
            self._count("documents_repaired", repaired, {"output": self._name})
        try:
            await self._setup.wait()
            await self._sender.store(requests(payload, self._options.max_request_bytes), written)
        finally:
            self._health.waiting -= count
        return written

    async def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Any other request, for `indices`: status and body of the answer; raises `Failed` without one."""
        connection = await asyncio.shield(self._opening)
        return await connection.ask(method, target, body)

    async def _ask_setup(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            return await self.ask(method, target, body)
        except Failed as failure:
            raise ConnectionError(failure.reason) from failure

    async def _send(self, request: Request) -> Fates:
        """One request and its answer."""
        async with self._slots:
            sent, good = asyncio.get_running_loop().time(), False
            try:
                result = await self._exchange(request)
                good = all(again.kind is not Kind.BUSY for again in result.again)
            except Failed as failure:
                good = failure.kind not in {Kind.BUSY, Kind.AWAY}
                raise
            finally:
                self._slots.judge(sent, good=good)
        return result

    async def _exchange(self, request: Request) -> Fates:
        connection = await asyncio.shield(self._opening)
        body, headers = request.body(ids=self._options.document_id), {}
        if self._options.compress:
            body, headers = [await asyncio.to_thread(_gzip, b"".join(body))], {"content-encoding": "gzip"}
        started = perf_counter()
        status, answer, genuine = await connection.bulk(body, headers)
        self._context.observe("bulk_seconds", perf_counter() - started, {"output": self._name})
        self._count("bulk_requests", 1, {"output": self._name, "status": str(status)})
        if status == 200 and not self._known:
            self._known = True
            if not genuine:
                log.warning("output %s: the server does not say to be Elasticsearch; it is used as if", self._name)
        return fates(request, status, answer)

    async def _sniff(self) -> None:
        """Learn the cluster's nodes now and then."""
        connection = await asyncio.shield(self._opening)
        while True:
            try:
                await connection.sniff()
            except Failed as failure:
                log.warning("output %s: the nodes of the cluster can't be learned: %s", self._name, failure.reason)
            await asyncio.sleep(SNIFF_SECONDS)


def _gzip(body: bytes) -> bytes:
    from isal import igzip  # noqa: PLC0415 - only where it is asked for

    return bytes(igzip.compress(body, 1))

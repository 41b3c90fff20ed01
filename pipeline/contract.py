"""Every type that crosses a boundary between the parts of aiologs. Read this first.

A record's way: an **input** reads records and hands a `Batch` of them to `deliver()`; **delivery** gives its
bytes to the **chain** (decode → stages → encode, in a worker process), writes the `Documents` that come back
to every **output**, and returns. That return is the acknowledgement: every record of the batch is now stored,
parked or set aside, durably. There are no acknowledgement callbacks.

It is longer than other files since it is the one place for all of them: who knows it knows how the parts fit.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import orjson

if TYPE_CHECKING:
    import asyncio

Event = dict[str, Any]
"""What orjson gives and takes. Reserved keys: `@index` (where it goes) and `@id` (its document id).
`@metadata`, which Beats send, is there for stages and is not stored."""

INDEX, ID, METADATA = "@index", "@id", "@metadata"
RESERVED = (INDEX, ID)


@dataclass(slots=True)
class Batch:
    """Undecoded records as an input read them.

    Kept until it is acknowledged: it is the truth for a second run and for dead letters.
    """

    input: str
    """The input's name in the configuration; it selects the decoder."""
    block: bytes
    """The records, one after the other."""
    identity: str
    """With a record's position it gives the document id: the same on every re-read of the same record.
    JSON-safe ASCII without quotes."""
    base: int = 0
    """Where the block begins in its source, in bytes of uncompressed text."""
    ends: array[int] | None = None
    """The offset in `block` behind each record (type code "Q"); None: records end at each newline."""
    positions: Sequence[int] | None = None
    """Where each record stands in its source; None: `base` + the offset of its first byte in `block`."""
    ids: Sequence[str] | None = None
    """Document ids that the client gave, one a record; None: identity and position make them."""
    origin: Mapping[str, str | int] = field(default_factory=dict)
    """What is true of every record of the batch, under ECS names: `host.name`, `log.file.path` …
    A record that has the field (or the object it stands in) keeps its own."""
    refuse: bool = False
    """Records that the chain can't process are only reported in the outcome, not set aside:
    for inputs whose client gets the answer."""
    _count: int = field(default=-1, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """How many records it has, blank lines among them."""
        if self.ends is not None:
            return len(self.ends)
        if self._count < 0:
            self._count = sum(map(bool, BytesIO(self.block)))  # in a third of the time that counting newlines takes
        return self._count

    def records(self) -> list[bytes]:
        """The records without their newline and a carriage return before it; an empty line is an empty record."""
        return [line[:-1] for line in self.cut()[0]]

    def places(self) -> Sequence[int]:
        """Where each record stands in its source, in the order of `records()`."""
        return self.cut()[1]

    def cut(self) -> tuple[list[bytes], Sequence[int]]:
        """`records()`, with a newline behind each, and `places()`."""
        lines, starts = self._cut()
        places = [self.base + start for start in starts] if self.positions is None else self.positions
        if self.ends is None and b"\r" in self.block:
            lines = [line[:-2] + b"\n" if line.endswith(b"\r\n") else line for line in lines]
        return lines, places

    def document_ids(self) -> list[str]:
        """The document id of each record, in the order of `records()`."""
        if self.ids is not None:
            return list(self.ids)
        identity = self.identity
        return [f"{identity}-{place}" for place in self.places()]

    def starts(self) -> list[int]:
        """The offset of each record in the block."""
        return self._cut()[1]

    def slice(self, start: int, end: int, starts: Sequence[int] | None = None) -> Batch:
        """The records from `start` up to `end` of `records()`, at least one, as a batch of their own; `starts()` may be
        given by who takes several.
        """
        starts = self.starts() if starts is None else starts
        begin, stop = starts[start], starts[end] if end < len(starts) else len(self.block)
        return replace(
            self,
            block=self.block[begin:stop],
            base=self.base + begin,
            ends=None if self.ends is None else array("Q", (each - begin for each in self.ends[start:end])),
            positions=None if self.positions is None else self.positions[start:end],
            ids=None if self.ids is None else self.ids[start:end],
        )

    def _cut(self) -> tuple[list[bytes], list[int]]:
        """The records as they stand in the block, with a newline behind each, and the offset of each."""
        if self.ends is not None:
            starts = [0, *self.ends[:-1]] if self.ends else []
            return [self.block[start:end] + b"\n" for start, end in zip(starts, self.ends, strict=True)], starts
        lines = [*BytesIO(self.block)]  # which finds newlines in half the time that `split` takes
        starts = [*accumulate(map(len, lines), initial=0)][: len(lines)]
        if lines and not self.block.endswith(b"\n"):
            lines[-1] += b"\n"
        return lines, starts


class Refusal(NamedTuple):
    """A record that was not stored: where it stands in its batch (0-based) and why, for the client."""

    record: int
    reason: str


@dataclass(slots=True)
class Outcome:
    """How a batch ended. Whatever `refused` does not name is stored, already there, parked, dropped or set aside."""

    refused: list[Refusal] = field(default_factory=list)


class Full(Exception):
    """Delivery has no room now; `retry_after` says in how many seconds to ask again."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"no room for more records; try again in {retry_after:g} s")
        self.retry_after = retry_after


class Deliver(Protocol):
    """What an input hands its batches to."""

    def __call__(self, batch: Batch, *, wait: bool = True) -> Awaitable[Outcome]:
        """Return when every record of the batch is durable; with `wait=False` raise `Full` instead of waiting
        for room.
        """
        ...


class Positions(Protocol):
    """The durable key-value store of one input: where it stands in each of its sources; or of one output."""

    def load(self) -> dict[str, dict[str, Any]]:
        """All entries as they were last committed."""
        ...

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Set an entry; it is written with the next commit tick (a fraction of a second later)."""
        ...

    def remove(self, key: str) -> None:
        """Forget an entry, with the next commit tick."""
        ...

    damaged: bool
    """True after the stored positions were lost to damage: read again from the beginning, whatever `start:` says."""


async def _at_once() -> None:
    pass


@dataclass(slots=True)
class Context:
    """What the engine gives an input or output beside its options."""

    name: str
    """Its name in the configuration."""
    host: str
    """The name of this host, as it goes into identities and documents."""
    positions: Positions
    gauge: Callable[[str, float, Mapping[str, str]], None] = lambda *_: None
    """Set a gauge of the metrics: its name without prefix, the value, labels."""
    count: Callable[[str, int, Mapping[str, str]], None] = lambda *_: None
    """Add to a counter of the metrics: its name without prefix and `_total`, how many, labels."""
    once: bool = False
    """Work off what is there, then return from `run`."""
    live: Mapping[str, dict[str, Any]] | None = None
    """The positions of the daemon that reads, or has read, the same sources: what it has a name for is called the same,
    and with `once`, what may still grow is left to it. None: this is the daemon."""
    decode: str = "json"
    """The name of the decoder that an input's records go through."""
    settled: Callable[[], Awaitable[None]] = _at_once
    """Return when what was put into the positions by now is on the disk."""
    observe: Callable[[str, float, Mapping[str, str]], None] = lambda *_: None
    """Add to a histogram of the metrics: its name without prefix, the seconds, labels."""
    forget: Callable[[str, Mapping[str, str]], None] = lambda *_: None
    """Forget a series of a gauge: what it measured is gone."""


@runtime_checkable
class Input(Protocol):
    """Reads records from somewhere. Its class has `Options` (pydantic) and is built as `Class(options, context)`.

    Optional, looked up on the instance: `listening` (asyncio.Event), set when clients can connect; the daemon is not
    ready before. `sockets` (list of socket.socket): what it listens on; where it is filled before `run`, it listens on
    these, and closes them.
    """

    async def run(self, deliver: Deliver, stop: asyncio.Event) -> None:
        """Hand batches to `deliver` until `stop` is set; then cease reading, await what is under way and return.

        A listener accepts nobody more at once, and takes for a moment what clients send that can not know of it yet.

        Only the deadline of the daemon cancels it. An exception ends the daemon with a message.
        """
        ...


@runtime_checkable
class Decoder(Protocol):
    """A stage that can also stand at the head of the chain, as an input's `decode:`."""

    def decode(self, records: list[bytes]) -> list[Event]:
        """One event a record, in order, or several where a record holds several (then it is asked record by
        record). Raises on a record that it can't read.
        """
        ...


Edit = tuple[int, int, bytes, Sequence[str]]
"""Bytes of a block to be replaced: from, up to, by what (without a newline), and which rules count for it, each once a
secret. Edits are in ascending order and don't overlap."""


@runtime_checkable
class Stage(Protocol):
    """Takes a batch's events and returns them: changed in place, fewer, or more.

    Its class has `Options` (pydantic, extra="forbid") and is built as `Class(options)`. It has no error API: it
    raises, and the chain runs that batch again record by record, so that only the bad record is set aside. So it
    is a function of its events: what it makes up, it derives from `@id`. It does no I/O when called.

    Optional, looked up on the instance:

    - `reads` and `adds` (frozensets of top-level field names): it reads only these fields, changes none of them,
      and only sets those that it adds. When every stage says so, the chain decodes just those fields and splices
      what is added into the record's own bytes, which costs half as much.
      A field of which it reads what is inside is named with a dot as well: `headers.*`, `request.method`.
    - `fill(columns)`, beside these two: the same as a call, for `pipeline.columns.Columns` instead of events; cheaper.
    - `touches(block) -> list[tuple[int, Any]]`: the offsets in undecoded bytes (ascending) at which it may have to
      change something, each with a mark for `edits`; a record without one it would leave alone. Such a stage changes
      events in place, returns them all, and is only given events decoded whole. It may not have `reads` and `adds`.
    - `edits(block, hits, spared) -> tuple[list[Edit], list[int]]`, beside `touches`: how to change JSON records, one a
      line, at these offsets exactly as calling the stage would; and the offsets at which it takes more, or the text is
      that of a key in `spared` (bytes; not what stands deeper in it).
    - `counts` (dict[str, int]): what it counted, by rule; the chain takes and clears it with every batch.
    - `refresh()`: called between batches, about every ten seconds: the place to notice a changed file.
    - `gauges() -> dict[str, float]`: values for the metrics, by name without prefix; asked about every ten seconds.
    """

    def __call__(self, events: list[Event]) -> list[Event]:
        """Change the events of a batch."""
        ...


@dataclass(slots=True)
class Documents:
    """The documents of one batch for one index, in the form of a bulk body."""

    index: str
    body: bytes
    """NDJSON: an action line `{"create":{"_index":…,"_id":…}}`, its document, and so on, each with a newline."""
    count: int

    def pairs(self) -> Iterator[tuple[str, bytes]]:
        """Each document's id and its JSON."""
        lines = iter(self.body.split(b"\n"))
        for action in lines:
            if action:
                yield orjson.loads(action)["create"]["_id"], next(lines)


def bulk(index: str, pairs: Sequence[tuple[str, bytes]]) -> Documents:
    """Documents of one index from ids and JSON: the reverse of `Documents.pairs`."""
    lines = [line for id_, document in pairs for line in (action(index, id_), document)]
    return Documents(index, b"\n".join([*lines, b""]), len(pairs))


def action(index: str, id_: str) -> bytes:
    """The action line of one document, without a newline."""
    return b'{"create":{"_index":' + orjson.dumps(index) + b',"_id":' + orjson.dumps(id_) + b"}}"


Payload = list[Documents]
"""All the documents of a batch, one entry an index."""


@dataclass(slots=True, frozen=True)
class Refused:
    """A document that an output will never take, and why."""

    index: str
    id: str
    document: bytes
    reason: str


@dataclass(slots=True)
class Written:
    """What an output did with a payload; `stored` + `already` + refused + the counts of `late` is its size."""

    stored: int = 0
    already: int = 0
    refused: list[Refused] = field(default_factory=list)
    late: list[tuple[Documents, str]] = field(default_factory=list)
    """What is not stored though its neighbours are (a blocked index), each with the reason: to be parked."""


@runtime_checkable
class Output(Protocol):
    """Stores documents. Its class has `Options` (pydantic) and is built as `Class(options, context)`."""

    async def start(self) -> None:
        """Open what is needed; raises `Unusable` where it can never work. It does not wait for a server."""
        ...

    async def write(self, payload: Payload) -> Written:
        """Store the payload durably. It retries for as long as nothing at all is taken (the server is away: the
        inputs wait), and returns what will never be stored and what is late while its neighbours are stored.
        """
        ...

    async def stop(self) -> None:
        """Close everything."""
        ...


class Unusable(Exception):
    """A part can't work as it is configured: the message says what, where and what to do."""

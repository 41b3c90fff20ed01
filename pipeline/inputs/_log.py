"""The logs that a file input knows, the files it reads them from, and what of both outlives the process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any, TypeVar

from pipeline.contract import Positions
from pipeline.inputs._scan import Key
from pipeline.inputs._text import Compressed, Plain
from pipeline.inputs.tail import START, Look, Mark, Place, Text, Verdict, compare
from pipeline.window import Window

K = TypeVar("K")

_DAY = 86_400
_STARTED = "started"


@dataclass(slots=True, eq=False)
class Log:
    """A text that is read once, from whatever file it stands in."""

    identity: str
    base: str
    """The identity without the count of re-creations."""
    recreated: int
    path: str = ""
    key: Key = (0, 0)
    place: Place = START
    """How far it was handed to delivery."""
    kept: Place = START
    """How far it was delivered: what is in the state."""
    seen: float = 0
    """When a file of it was last seen, in seconds since 1970; written once a day."""
    reader: "Source | None" = None
    window: Window[tuple[Place, int]] | None = None
    breaks: list[int] = field(default_factory=list)
    """Where a record of several lines was taken for complete because nothing more came. They are in the state before
    that record is delivered: read again after a crash, it must end there though it was continued since."""


@dataclass(slots=True, eq=False)
class Source:
    """A file on the disk."""

    key: Key
    path: str
    look: Look
    listed: bool = True
    """It stands under a name that the patterns match."""
    renamed: bool = False
    deleted: bool = False
    text: Plain | Compressed | None = None
    log: Log | None = None
    """The log that it is, or was judged to be a copy of; only the log's reader is read."""
    read: int = 0
    """How far it was read, under whatever identity."""
    tail: bytes = b""
    """The last bytes before `read`."""
    want: int = 0
    """How much to read at once where a batch's size is not enough for a line."""
    scanned: int = 0
    """How far an unfinished line was looked through for its end."""
    held: bool = False
    """Its last lines are a record that may go on."""
    exhausted: bool = False
    """There was no complete line left when it was last read."""
    queued: bool = False
    waiting: bool = False
    """To be judged again when its log's reader has come further."""
    covered: Look | None = None
    """As it was then, it held nothing but an unfinished line beyond its log's place."""
    ended: bool = False
    """Nothing in it is left to read, unless it changes; to be noted in the state when all is delivered."""
    grown: float = 0
    """When it was last seen to grow, on the event loop's clock."""
    judged: tuple[Any, ...] = ()
    """On what the last judgement stands; there is no other while this stays the same."""
    complaint: str = ""
    """What was last logged about it, so that it is said once."""

    def detach(self) -> None:
        """Forget which log it is: it may hold another one by now."""
        if self.log and self.log.reader is self:
            self.log.reader = None
        self.log = None
        self.read = self.want = self.scanned = 0
        self.tail = b""
        self.exhausted = self.waiting = self.ended = self.held = False
        self.judged, self.covered = (), None

    @property
    def reading(self) -> bool:
        """Whether its log is read from it."""
        return self.log is not None and self.log.reader is self


class Live:
    """The logs that the daemon knows, for a replay that has to give the same identities."""

    def __init__(self, positions: Mapping[str, dict[str, Any]]) -> None:
        self._alike: dict[str, list[Log]] = {}
        for identity, value in positions.items():
            if "offset" in value:
                log = _log(identity, value)
                self._alike.setdefault(log.base, []).append(log)

    def recreated(self, base: str, text: Text, least: int) -> int:
        """Which re-creation of a log a text is: the daemon's number of it or, where it knows none, the next one."""
        known = self._alike.get(base, [])
        for log in known:
            if compare(text, log.kept, copy=True) is not Verdict.OTHER:
                return log.recreated
        return max([least, *(log.recreated + 1 for log in known)])


class Memory:
    """The state of one file input: its logs by identity, and the files of which nothing is left to read.

    A log's entry is `identity: {path, device, inode, base, recreated, offset, head, tail, seen}`; a finished file's is
    `device:inode: {size, mtime, identity, seen}`.
    """

    def __init__(self, positions: Positions) -> None:
        stored = positions.load()
        self._positions = positions
        self.first = _STARTED not in stored and not positions.damaged
        """Nothing was ever read: the only time when `start: end` counts."""
        self._alike: dict[str, list[Log]] = {}
        self._in: dict[Key, list[Log]] = {}
        self.logs: dict[str, Log] = {}
        for identity, value in stored.items():
            if "offset" in value:
                self.add(_log(identity, value))
        self._finished = {key: value for key, value in stored.items() if "mtime" in value}
        if _STARTED not in stored:
            positions.put(_STARTED, {"at": int(time())})

    def add(self, log: Log) -> None:
        """Know a log from now on."""
        self.logs[log.identity] = log
        self._alike.setdefault(log.base, []).append(log)
        self._in.setdefault(log.key, []).append(log)

    def take(self, log: Log, source: Source) -> None:
        """Note which file a log stands in now."""
        _drop(self._in, log.key, log)
        log.path, log.key = source.path, source.key
        self._in.setdefault(log.key, []).append(log)
        if log.kept.offset:
            self.keep(log)

    def new(self, base: str) -> int:
        """Which re-creation of a log comes next."""
        return max((log.recreated + 1 for log in self._alike.get(base, ())), default=0)

    def has(self, base: str, recreated: int) -> bool:
        """Whether that re-creation of a log is known."""
        return any(log.recreated == recreated for log in self._alike.get(base, ()))

    def candidates(self, base: str, key: Key) -> list[Log]:
        """The logs that begin with the same line or were last seen in this file, the one read furthest first."""
        logs = {id(log): log for log in [*self._alike.get(base, ()), *self._in.get(key, ())]}
        return sorted(logs.values(), key=lambda log: -log.place.offset)

    def keep(self, log: Log) -> None:
        """Write a log's entry as far as it is delivered."""
        self._positions.put(log.identity, _entry(log))

    def finish(self, source: Source, log: Log) -> None:
        """Remember that nothing is left to read in a file, for as long as it doesn't change."""
        value = {"size": source.look.size, "mtime": source.look.mtime, "identity": log.identity, "seen": time()}
        self._finished[_name(source.key)] = value
        self._positions.put(_name(source.key), value)

    def finished(self, source: Source) -> Log | None:
        """The log of which this file holds nothing that was not read."""
        value = self._finished.get(_name(source.key))
        same = value and (value["size"], value["mtime"]) == source.look
        return self.logs.get(value["identity"]) if value and same else None

    def expire(self, sources: dict[Key, Source], after: float) -> None:
        """Note what is still there, and forget what was not seen for `after` seconds.

        Of logs that begin alike the last one is kept longest, since it holds the count.
        """
        now = time()
        present = {source.log.identity for source in sources.values() if source.log}
        for log in list(self.logs.values()):
            if log.identity in present:
                if now - log.seen > _DAY:
                    log.seen = now
                    self.keep(log)
            elif now - log.seen > after and (len(self._alike[log.base]) == 1 or log.recreated + 1 < self.new(log.base)):
                self._forget(log)
        here = {_name(key) for key in sources}
        for name, value in list(self._finished.items()):
            if name in here:
                if now - value["seen"] > _DAY:
                    value["seen"] = now
                    self._positions.put(name, value)
            elif now - value["seen"] > after:
                del self._finished[name]
                self._positions.remove(name)

    def _forget(self, log: Log) -> None:
        del self.logs[log.identity]
        _drop(self._alike, log.base, log)
        _drop(self._in, log.key, log)
        self._positions.remove(log.identity)


def _drop(index: dict[K, list[Log]], key: K, log: Log) -> None:
    """Take a log out of an index, and with the last one its list."""
    index[key].remove(log)
    if not index[key]:
        del index[key]


def printable(path: str) -> str:
    """A path as text that JSON can hold, whatever bytes are in it."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _name(key: Key) -> str:
    return f"{key[0]}:{key[1]}"


def _entry(log: Log) -> dict[str, Any]:
    place = log.kept
    return {
        "path": printable(log.path),
        "device": log.key[0],
        "inode": log.key[1],
        "base": log.base,
        "recreated": log.recreated,
        "offset": place.offset,
        "head": list(place.head),
        "tail": list(place.tail),
        "seen": log.seen,
        **({"breaks": log.breaks} if log.breaks else {}),
    }


def _log(identity: str, value: dict[str, Any]) -> Log:
    place = Place(value["offset"], Mark(*value["head"]), Mark(*value["tail"]))
    key = (value["device"], value["inode"])
    breaks = value.get("breaks", [])
    return Log(
        identity, value["base"], value["recreated"], value["path"], key, place, place, value["seen"], breaks=breaks
    )

"""What `aiologs replay` is told to read: words of the command line → sources."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from pipeline.contract import Unusable
from pipeline.identity import log_name

_TAR = re.compile(r"\.(?:tar(?:\.(?:gz|zst|bz2|xz))?|tgz|tbz2?|txz|tzst)$")
_UNREAD = re.compile(r"\.(?:bz2|xz|lz4|zip|Z)$")
_TOPIC = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)(?:@(?P<start>.*?)(?:\.\.(?P<end>.*))?)?")


@dataclass(frozen=True, slots=True)
class Files:
    """Log files, plain or compressed."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tar:
    """An archive of log files."""

    path: str


@dataclass(frozen=True, slots=True)
class Stdin:
    """The standard input."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of Kafka, from a time or an offset of each partition up to another one, or to what is there now."""

    name: str
    start: datetime | int | None
    end: datetime | int | None


@dataclass(frozen=True, slots=True)
class Index:
    """An index, a data stream or a pattern of names in Elasticsearch."""

    name: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The dead letters of `data_dir`, or those that `aiologs dead export` wrote."""

    file: str | None


Source = Files | Tar | Stdin | Topic | Index | Dead


def parse(words: Sequence[str]) -> list[Source]:
    """The sources that the words name, all plain files as one; raises `Unusable` for what is not there."""
    sources: list[Source] = []
    paths: dict[str, None] = {}
    for word in words:
        kind, _, rest = word.partition(":")
        if word == "-":
            sources.append(Stdin())
        elif kind == "kafka":
            sources.append(_topic(rest))
        elif kind == "elasticsearch" and rest:
            sources.append(Index(rest))
        elif kind == "dead":
            sources.append(Dead(rest or None))
        else:
            paths |= dict.fromkeys(_files(word))
    tars = [path for path in paths if _TAR.search(path)]
    plain = tuple(path for path in paths if not _TAR.search(path))
    return [*([Files(plain)] if plain else []), *map(Tar, tars), *sources]


def _files(word: str) -> list[str]:
    """The files that a path, a pattern or a folder stands for."""
    path = os.path.abspath(word)  # noqa: PTH100 - as identities are made of
    found = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    files = [each for one in found for each in _within(one)]
    if not files:
        raise Unusable(f"{word}: there is no such file (topics, indices and dead letters are kafka:…, see --help)")
    for each in files:
        if _UNREAD.search(each) and not _TAR.search(each):
            raise Unusable(f"{each}: of compressed files only .gz and .zst are read: unpack it, or pipe it into `-`")
        if not os.access(each, os.R_OK):
            raise Unusable(f"{each}: can't be read by this user")
    return files


def _within(path: str) -> Iterator[str]:
    if not os.path.isdir(path):  # noqa: PTH112
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names))  # noqa: PTH118


def _topic(text: str) -> Topic:
    match = _TOPIC.fullmatch(text)
    if not match:
        raise Unusable(f"kafka:{text}: not like kafka:TOPIC, kafka:TOPIC@START or kafka:TOPIC@START..END")
    return Topic(match["topic"], _place(match["start"]), _place(match["end"]))


def _place(text: str | None) -> datetime | int | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else moment(text)


def moment(text: str) -> datetime:
    """A point in time as people write it, in UTC where it has no zone; raises `Unusable`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Unusable(f"{text!r} is no time like 2026-11-20 or 2026-11-20T06:30:00Z") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def elsewhere(path: str, patterns: Sequence[str]) -> bool:
    """Whether a file does not stand where these patterns look: its documents would have other ids than live ones."""
    return not any(_matches(each, os.path.abspath(pattern)) for each in (path, log_name(path)) for pattern in patterns)  # noqa: PTH100


def _matches(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatch(path, pattern.replace("**/", "*"))
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def size(path: str) -> int:
    """The bytes of a file; 0 where it is gone."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0

"""Which files there are, and when something happens to them."""

import glob
import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pipeline.identity import log_name
from pipeline.inputs.tail import Look

Key = tuple[int, int]
"""A file's device and inode."""

log = logging.getLogger("aiologs.inputs.file")

_MAGIC = frozenset("*?[")


class Found(NamedTuple):
    """A regular file as it was found."""

    key: Key
    path: str
    look: Look
    links: int = 1
    listed: bool = True
    """It was found by its name, not as what became of a log that is followed."""


def look(path: str) -> Found | None:
    """What stands under a path, links followed; None where that is no regular file or can't be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116 — for ten thousand files at a time, pathlib is dear
    except OSError:
        return None
    return found(path, status) if stat.S_ISREG(status.st_mode) else None


def found(path: str, status: os.stat_result, *, listed: bool = True) -> Found:
    """A file from what `stat` says of it."""
    look = Look(status.st_size, status.st_mtime_ns)
    return Found((status.st_dev, status.st_ino), path, look, status.st_nlink, listed)


def scan(patterns: Iterable[str], exclude: Sequence[str]) -> dict[Key, Found]:
    """The files that match, each once: under a name of its own rather than under a link's."""
    files: dict[Key, Found] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 — as above
            here = None if excluded(path, exclude) else look(path)
            if here and (here.key not in files or os.path.islink(files[here.key].path)):  # noqa: PTH114
                files[here.key] = here
    return files


def excluded(path: str, exclude: Sequence[str]) -> bool:
    """Whether a path or its last part matches a pattern."""
    name = os.path.basename(path)  # noqa: PTH119 — as above
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in exclude)


def kin(wanted: dict[str, tuple[set[Key], set[str]]], exclude: Sequence[str]) -> list[Found]:
    """What became of files that are gone from their names, looked for in their folders.

    `wanted`: folder → (the files themselves, under whatever name; log names of which any rotation will do).
    """
    kindred = []
    for folder, (keys, names) in wanted.items():
        for path in _files(folder):
            here = look(path)
            if here and (here.key in keys or (log_name(path) in names and not excluded(path, exclude))):
                kindred.append(here._replace(listed=False))
    return kindred


def _files(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries]
    except OSError:
        return []


def roots(patterns: Iterable[str]) -> tuple[list[str], bool]:
    """The folders to watch for some patterns, and whether with all that is in them."""
    folders, deep = set(), False
    for pattern in patterns:
        parts = Path(pattern).parts
        fixed = next((n for n, part in enumerate(parts) if _MAGIC & set(part)), len(parts) - 1)
        folder = Path(*parts[: min(fixed, len(parts) - 1)])
        # Never watch all of the machine; the poll finds those files.
        if folder != Path(folder.anchor) and folder.is_dir():
            folders.add(str(folder))
            deep = deep or fixed < len(parts) - 1
    return sorted(folders), deep


async def watch(patterns: Sequence[str], changed: Callable[[set[str], bool], None]) -> None:
    """Report changes until cancelled: the paths written to, and whether names came or went.

    Where the system can't watch, it says so once and the poll remains. A folder that comes later is watched only
    after a restart; until then the poll finds what is in it.
    """
    from watchfiles import Change, awatch  # noqa: PLC0415 — takes 0.1 s to import

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it says how many changes it saw, every time
    folders, deep = roots(patterns)
    if not folders:
        return
    try:
        async for changes in awatch(*folders, watch_filter=None, step=50, debounce=200, recursive=deep):
            changed({path for _, path in changes}, any(kind is not Change.modified for kind, _ in changes))
    except (OSError, RuntimeError) as error:
        log.warning("can't watch %s (%s): new lines are only noticed at each poll", ", ".join(folders), error)

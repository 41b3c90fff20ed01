"""What aiologs says about itself: the standard library's logging, as JSON lines or as text for a terminal.

JSON lines carry ECS names (https://www.elastic.co/guide/en/ecs/current/ecs-log.html). Who logs something gives the
details as `extra`, under ECS names where there are any: `log.warning("file was truncated", extra={"file.path": path})`.
The contents of events never belong into a message: they may hold secrets.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal, TextIO

import orjson
from pydantic import BaseModel, Field

from pipeline.contract import Unusable

Level = Literal["debug", "info", "warning", "error", "critical"]


class LogOptions(BaseModel, extra="forbid", frozen=True):
    """The section `log:` of the configuration."""

    level: Level = Field(default="info", description="The least level that is written.")
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="JSON lines, or text for people; auto: text in a terminal, else JSON."
    )
    file: Path | None = Field(default=None, description="Write into this file instead of the standard error stream.")
    max_bytes: int = Field(default=10_000_000, ge=1, description="The file is rotated at this size.")
    backups: int = Field(default=5, ge=0, description="How many rotated files are kept.")


QUIET = ("aiohttp.access", "aiokafka", "elastic_transport", "elasticsearch", "watchfiles")
"""Libraries that have a line for every request or retry."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Recent(logging.Handler):
    """Remembers the last warnings and errors, one of a kind, for /status. A kind is a message before its arguments
    are filled in, and its first argument: the input or output that it is about.
    """

    KINDS = 20
    """How many are remembered."""
    LENGTH = 500
    """Characters of a message."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: dict[tuple[str, str], dict[str, object]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Remember the message, as the latest."""
        args = record.args if isinstance(record.args, tuple) else ()
        kind = str(record.msg), str(args[0]) if args else ""
        before = self._found.pop(kind, {"times": 0})
        self._found[kind] = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage()[: self.LENGTH],
            "times": int(str(before["times"])) + 1,
        }
        while len(self._found) > self.KINDS:
            del self._found[next(iter(self._found))]

    def problems(self) -> list[dict[str, object]]:
        """All that is remembered, the latest first."""
        return [*reversed(self._found.values())]

    def of(self, part: str) -> dict[str, object] | None:
        """The latest about `input NAME` or `output NAME`."""
        found = (
            what
            for (message, name), what in reversed(self._found.items())
            if message.replace("%s", name, 1).startswith(part)
        )
        return next(found, None)


RECENT = Recent()
"""What this process has complained about lately."""


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up(options: LogOptions, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to one place; may be called again after a reload.

    Raises `Unusable` where the file can't be written to.
    """
    logging.basicConfig(
        level=options.level.upper(), handlers=[_handler(options, stream or sys.stderr), RECENT], force=True
    )
    logging.captureWarnings(capture=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def try_file(path: Path) -> None:
    """Make the file; raises `Unusable` where it can't be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise Unusable(f"log: can't write to {path}: {error.strerror}") from error


def _handler(options: LogOptions, stream: TextIO) -> logging.Handler:
    handler: logging.Handler
    if options.file is None:
        handler, terminal = logging.StreamHandler(stream), stream.isatty()
    else:
        try_file(options.file)
        handler = RotatingFileHandler(
            options.file, maxBytes=options.max_bytes, backupCount=options.backups, encoding="utf-8"
        )
        terminal = False
    text = options.format == "text" or (options.format == "auto" and terminal)
    handler.setFormatter(Text(colour=terminal and "NO_COLOR" not in os.environ) if text else Json())
    handler.addFilter(Repeats())
    return handler


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class Json(logging.Formatter):
    """One JSON object a line, with ECS names."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, object] = {
            "@timestamp": _stamp(record.created),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            "process.pid": record.process,
            **_extra(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error.type"] = type(record.exc_info[1]).__name__
            line["error.message"] = str(record.exc_info[1])
            line["error.stack_trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Text(logging.Formatter):
    """`12:30:15 warning file was truncated  file.path=/var/log/x.log`, in local time."""

    COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}  # noqa: RUF012 - a table

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback where there is one."""
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        details = "".join(f"  {key}={value}" for key, value in _extra(record).items())
        level = record.levelname.lower()
        if self._colour:
            level = f"\x1b[{self.COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
            details = f"\x1b[2m{details}\x1b[0m" if details else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info and record.exc_info[1] else ""
        return f"{when} {level} {record.getMessage()}{details}{trace}"


class Repeats(logging.Filter):
    """Lets the first messages of a kind through, then one a while with the number of those held back.

    A kind is a logger, a level and a message before its arguments are filled in. So an output that is away for an
    hour, or a file of a million bad lines, fills no disk. Messages below warning are not counted.
    """

    BURST = 5
    """How many pass in a while."""
    WHILE = 10.0
    """In seconds."""
    KINDS = 1000
    """How many kinds are remembered; a program that makes up messages must not fill the memory."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is to be written; adds `repeated` to the first one after some were held back."""
        if record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, str(record.msg))
        since, n = self._seen.get(kind, (0.0, 0))
        now = time.monotonic()
        if n and now - since < self.WHILE:
            self._seen[kind] = since, n + 1
            return n < self.BURST
        if len(self._seen) >= self.KINDS:
            self._seen.clear()
        self._seen[kind] = now, 1
        if n > self.BURST:
            record.repeated = n - self.BURST
        return True

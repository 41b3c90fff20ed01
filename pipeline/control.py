"""The control socket: how commands such as `aiologs dead retry` reach the daemon that runs on a `data_dir`.

`data_dir/control.sock` is a Unix socket for its owner only. A request is a line of JSON, `{"command": NAME, …}` with
the command's parameters; so is the answer: `{"ok": true, …}` or `{"ok": false, "error": MESSAGE}`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from pipeline.contract import Unusable
from pipeline.database import StorageError

log = logging.getLogger("aiologs.control")

NAME = "control.sock"
LINE_BYTES = 1 << 20
_PATH_BYTES = 107
"""What a Unix socket's address holds (unix(7))."""

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class NoDaemon(Exception):
    """No daemon listens in this `data_dir`."""


class Control:
    """The daemon's end. The lock on `data_dir` is held: a socket that is already there is a dead daemon's."""

    def __init__(self, data_dir: Path, handlers: Mapping[str, Handler]) -> None:
        self._path, self._handlers = data_dir / NAME, handlers
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; raises `Unusable` where that can't be."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)
            with _address(self._path) as address:
                sock.bind(address)
            self._path.chmod(0o600)  # nobody can connect before it listens
        except OSError as error:
            sock.close()
            raise Unusable(f"{self._path}: {error.strerror or error}") from error
        self._server = await asyncio.start_unix_server(self._connected, sock=sock, limit=LINE_BYTES)

    async def stop(self) -> None:
        """Stop listening, and end what is under way."""
        if self._server:
            self._server.close()
            for task in self._connections:
                task.cancel()
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101 - a task runs this
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            # ValueError: the line is too long.
            with suppress(ConnectionError, ValueError):
                while line := await reader.readline():
                    writer.write(orjson.dumps(await self._answer(line), default=str) + b"\n")
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
            handler = self._handlers.get(request.pop("command"))
            if handler is None:
                return _error("this daemon does not know the command")
            return {"ok": True, **await handler(request)}
        except (Unusable, StorageError) as error:
            return _error(str(error))
        except Exception as error:
            log.exception("a command failed")
            return _error(f"{type(error).__name__}: {error}")


def _error(message: str) -> dict[str, Any]:
    return {"ok": False, "error": message}


def ask(data_dir: Path, command: str, **parameters: Any) -> dict[str, Any]:
    """Have the running daemon do something and return its answer.

    Raises `NoDaemon` where none runs, `Unusable` with the message where it refuses or may not be asked.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            with _address(data_dir / NAME) as address:
                sock.connect(address)
            sock.sendall(orjson.dumps({"command": command, **parameters}, default=str) + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoDaemon(str(data_dir)) from error
    except OSError as error:
        raise Unusable(f"{data_dir / NAME}: {error.strerror or error}") from error
    if not line:
        raise Unusable(f"{data_dir / NAME}: the daemon has ended without an answer")
    answer: dict[str, Any] = orjson.loads(line)
    if not answer.pop("ok"):
        raise Unusable(answer["error"])
    return answer


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The socket's address: its path or, where that is too long for one, one through an open folder."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

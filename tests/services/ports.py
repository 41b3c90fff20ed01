"""Free ports, and waiting for what listens on them."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

SECONDS = 180.0
"""How long a server may take to start on a busy machine."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for_port(host: str, port: int, check: Callable[[], None] = lambda: None) -> None:
    """Return when somebody listens; `check` is called meanwhile and may raise."""

    def connect() -> None:
        socket.create_connection((host, port), 1).close()

    _wait(connect, f"{host}:{port}", check)


def wait_for_http(url: str, check: Callable[[], None] = lambda: None) -> None:
    """Return when the URL answers well."""

    def get() -> None:
        urllib.request.urlopen(url, timeout=30).close()

    _wait(get, url, check)


def _wait(attempt: Callable[[], None], what: str, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        check()
        try:
            attempt()
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} does not answer within {SECONDS:g} s: {error}") from error
            time.sleep(0.25)
        else:
            return

"""Free ports, and waiting for what listens on them."""

import os
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress

SECONDS = 180.0
"""How long a server may take to start on a busy machine."""


_MINE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6


def free_port() -> int:
    """A port that nobody listens on; below those that the kernel chooses for clients: one that connects while a server
    is not up yet, or away, could get the port itself, and keep it. Each process of a parallel run has ports of its own.
    """
    while True:
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := random.randrange(20_000, 22_000) + 2_000 * _MINE))
            return port


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

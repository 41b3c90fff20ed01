"""Runs a command with the addresses of a real Elasticsearch and a real Kafka in its environment.

AIOLOGS_TEST_ELASTICSEARCH (a URL) and AIOLOGS_TEST_KAFKA (host:port) are used where they are set. What is missing is
started: with Docker from the official images; else, with Maven and a JDK 21 or newer, from Maven Central. Where
neither is there, the command gets AIOLOGS_TEST_NO_SERVICES, the reason to skip its tests with. Whatever was started
is stopped at the end, however that comes.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, ModuleType

from tests.services import containers, servers

Started = tuple[str, Callable[[], None]]
"""A server's address, and what returns when it answers."""

VARIABLES = {"elasticsearch": "AIOLOGS_TEST_ELASTICSEARCH", "kafka": "AIOLOGS_TEST_KAFKA"}


def main(command: list[str]) -> int:
    """Run the command; its exit code."""
    with ExitStack() as stack:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, _end)
        environment = os.environ | start([name for name in VARIABLES if not os.environ.get(VARIABLES[name])], stack)
        with _child(command, environment) as child:
            return child.wait()


def start(missing: list[str], stack: ExitStack) -> dict[str, str]:
    """Start what is missing, all at once where it is installed; the variables for the command."""
    if not missing:
        return {}
    if reason := why_not():
        return {"AIOLOGS_TEST_NO_SERVICES": reason}
    module = provider()
    print(f"starting {' and '.join(missing)} with {module.NAME}", file=sys.stderr, flush=True)  # noqa: T201
    started: dict[str, Started] = {VARIABLES[name]: getattr(module, name)(stack) for name in missing}
    for _, wait in started.values():
        wait()
    return {variable: address for variable, (address, _) in started.items()}


def why_not() -> str | None:
    """Why no server can be started here; None: it can."""
    reasons = [containers.why_not(), servers.why_not()]
    return "; ".join(reason for reason in reasons if reason) if all(reasons) else None


def provider() -> ModuleType:
    """What starts servers here."""
    return servers if containers.why_not() else containers


@contextmanager
def _child(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, ended with us."""
    child = subprocess.Popen(command, env=environment)
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

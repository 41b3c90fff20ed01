"""`check --connect`: whether the servers and files that a configuration names can be reached from here.

What to try is known by the names of options: `paths` and `path` are files, `brokers` are Kafka's addresses, `hosts`
are URLs of Elasticsearch, `tls` names certificates. What listens is not tried: the daemon itself may hold the address.
"""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from glob import glob
from http.client import HTTPException
from pathlib import Path
from typing import Any

import orjson

from pipeline.config import Config, InputPart, OutputPart
from pipeline.contract import Unusable
from pipeline.setup.cluster import authorization, tls

SECONDS = 5.0
"""How long each server may take to answer."""

Result = tuple[str, str | None]
"""What was tried, with what was learned, and what is wrong with it."""


def probe(config: Config) -> Iterator[Result]:
    """Try everything that the inputs and outputs name, and whether `data_dir` can be written to."""
    yield _writable("data_dir", config.data_dir)
    parts: list[InputPart | OutputPart] = [*config.inputs.values(), *config.outputs.values()]
    for part in parts:
        for option, attempt in _ATTEMPTS.items():
            value = getattr(part.options, option, None)
            for each in value if isinstance(value, list) else [value] if value else []:
                yield attempt(part.name, each, part.options)


def _files(name: str, pattern: Any, _: Any) -> Result:
    found = glob(str(pattern), recursive=True)  # noqa: PTH207 - pathlib's has no absolute patterns
    unreadable = [path for path in found if not os.access(path, os.R_OK)]
    what = f"{name}: {pattern}: {len(found)} file{'s' * (len(found) != 1)}"
    return what, f"no permission to read {', '.join(unreadable[:3])}" if unreadable else None


def _output_file(name: str, path: Any, _: Any) -> Result:
    return _writable(name, Path(path).parent)


def _writable(name: str, folder: Path) -> Result:
    """Whether a folder can be written to, or made where it is missing."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    problem = None
    if not existing.is_dir():
        problem = f"{existing} is no folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission to write to {existing}"
    return f"{name}: {folder}", problem


def _broker(name: str, address: Any, _: Any) -> Result:
    host, _, port = str(address).rpartition(":")
    what = f"{name}: {address}"
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, ValueError) as error:
        return what, f"no answer: {error}"
    return f"{what}: answers", None


def _elasticsearch(name: str, url: Any, options: Any) -> Result:
    what = f"{name}: {url}"
    request = urllib.request.Request(str(url), headers=authorization(options))  # noqa: S310 - the operator's own URL
    try:
        with urllib.request.urlopen(request, timeout=SECONDS, context=tls(options)) as answer:  # noqa: S310
            about = orjson.loads(answer.read())
        return f"{what}: cluster {about['cluster_name']}, version {about['version']['number']}", None
    except urllib.error.HTTPError as error:
        return what, f"answers {error.code} {error.reason}: look at the credentials"
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return what, f"no answer as Elasticsearch gives: {str(getattr(error, 'reason', None) or error).strip()}"


def _tls(name: str, options: Any, _: Any) -> Result:
    """Whether certificates and keys can be used."""
    try:
        options.context()
    except Unusable as error:
        return name, str(error)
    return f"{name}: TLS: {options.certificate or options.ca or 'the authorities of this system'}", None


_ATTEMPTS: dict[str, Callable[[str, Any, Any], Result]] = {
    "paths": _files,
    "path": _output_file,
    "brokers": _broker,
    "hosts": _elasticsearch,
    "tls": _tls,
}

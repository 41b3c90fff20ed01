"""Writes documents to the standard output: indented and in colour for people, as JSON lines for programs.

    outputs:
      show: {type: console}

In a terminal each document is preceded by its index and id. Nothing is kept, so what is read again after a restart is
written again.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

import orjson
from pydantic import BaseModel, Field

from pipeline.contract import Context, Payload, Unusable, Written


class Console:
    """See the module's documentation."""

    class Options(BaseModel, extra="forbid"):
        """How to write."""

        format: Literal["auto", "pretty", "ndjson"] = Field(
            default="auto", description="Indented for people, or a line each; auto: by whether it is a terminal."
        )

    def __init__(self, options: Options, context: Context) -> None:
        self._name = context.name
        self._pretty = options.format == "pretty" or (options.format == "auto" and sys.stdout.isatty())
        self._one = asyncio.Lock()

    async def start(self) -> None:
        """Nothing has to be opened."""

    async def write(self, payload: Payload) -> Written:
        """See `contract.Output`; raises `Unusable` when nobody reads any more."""
        text = (_pretty if self._pretty else _lines)(payload)
        async with self._one:
            try:
                await asyncio.to_thread(_print, text)
            except (BrokenPipeError, ValueError) as error:
                raise Unusable(f"output {self._name}: the standard output is closed: {error}") from error
        return Written(stored=sum(documents.count for documents in payload))

    async def stop(self) -> None:
        """Nothing has to be closed."""


def _print(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _lines(payload: Payload) -> bytes:
    return b"".join(document + b"\n" for documents in payload for _, document in documents.pairs())


def _pretty(payload: Payload) -> bytes:
    return b"".join(
        _heading(documents.index, id_) + _coloured(document)
        for documents in payload
        for id_, document in documents.pairs()
    )


def _heading(index: str, id_: str) -> bytes:
    heading = f"{index}  {id_}"
    return (f"\x1b[2m{heading}\x1b[0m\n" if sys.stdout.isatty() else f"{heading}\n").encode()


def _coloured(document: bytes) -> bytes:
    text = orjson.dumps(orjson.loads(document), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if not sys.stdout.isatty():
        return text
    from rich.console import Console as Terminal  # noqa: PLC0415 - only a terminal needs it

    terminal = Terminal(force_terminal=True)
    with terminal.capture() as capture:
        terminal.print_json(text.decode(), indent=2)
    return capture.get().encode()

import io
import sys

import orjson
import pytest

from pipeline.contract import Context, Unusable, Written, bulk
from pipeline.outputs.console import Console

PAYLOAD = [bulk("logs", [("1", b'{"a":1}'), ("2", b'{"b":"x"}')]), bulk("errors", [("3", b"{}")])]


class Stdout(io.TextIOWrapper):
    """A standard output that may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), "utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        self.seek(0)
        return self.read()


@pytest.fixture
def stdout(monkeypatch):
    def make(*, terminal: bool) -> Stdout:
        made = Stdout(terminal=terminal)
        monkeypatch.setattr(sys, "stdout", made)
        return made

    return make


async def write(**options: str) -> Written:
    output = Console(Console.Options.model_validate(options), Context("show", "host", None))  # type: ignore[arg-type]
    await output.start()
    written = await output.write(PAYLOAD)
    await output.stop()
    return written


async def test_a_program_gets_json_lines(stdout):
    out = stdout(terminal=False)
    assert await write() == Written(stored=3)
    assert out.text == '{"a":1}\n{"b":"x"}\n{}\n'


async def test_a_terminal_gets_index_id_and_coloured_json(stdout):
    out = stdout(terminal=True)
    await write()
    assert "logs  1" in out.text
    assert "\x1b[" in out.text
    assert '"b"' in out.text


async def test_indented_json_without_colours_when_asked_for(stdout):
    out = stdout(terminal=False)
    await write(format="pretty")
    assert out.text.startswith('logs  1\n{\n  "a": 1\n}\n')
    assert "\x1b" not in out.text


async def test_json_lines_in_a_terminal_when_asked_for(stdout):
    out = stdout(terminal=True)
    await write(format="ndjson")
    assert [orjson.loads(line) for line in out.text.splitlines()] == [{"a": 1}, {"b": "x"}, {}]


async def test_when_nobody_reads_it_says_so(stdout):
    stdout(terminal=False).close()
    with pytest.raises(Unusable, match="output show: the standard output is closed"):
        await write(format="ndjson")

import asyncio
import json
import socket
from pathlib import Path

import pytest

from pipeline import control
from pipeline.contract import Unusable
from pipeline.control import Control, NoDaemon, ask
from pipeline.database import StorageError


async def echo(request):
    return {"got": dict(request)}


async def full(request):
    raise StorageError("the disk is full")


async def broken(request):
    raise LookupError("a mistake")


async def endless(request):
    await asyncio.Event().wait()


HANDLERS = {"echo": echo, "full": full, "broken": broken, "endless": endless}


@pytest.fixture
async def server(tmp_path):
    server = Control(tmp_path, HANDLERS)
    await server.start()
    yield tmp_path
    await server.stop()


async def asked(folder: Path, command: str, **parameters):
    return await asyncio.to_thread(ask, folder, command, **parameters)


async def raw(folder: Path, request: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_unix_connection(folder / control.NAME)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer.splitlines()


async def test_a_command_is_answered(server):
    assert await asked(server, "echo", a=1, b={"c": ["d"]}) == {"got": {"a": 1, "b": {"c": ["d"]}}}


async def test_only_the_owner_may_ask(server):
    assert (server / control.NAME).stat().st_mode & 0o777 == 0o600


async def test_a_refusal_is_raised_with_its_message(server, caplog):
    with pytest.raises(Unusable, match="the disk is full"):
        await asked(server, "full")
    with pytest.raises(Unusable, match="does not know the command"):
        await asked(server, "nothing")
    assert caplog.messages == []


async def test_a_mistake_is_in_the_log_too(server, caplog):
    with pytest.raises(Unusable, match="LookupError: a mistake"):
        await asked(server, "broken")
    assert "a command failed" in caplog.text
    assert await asked(server, "echo") == {"got": {}}


async def test_several_commands_come_on_one_connection(server):
    lines = await raw(server, b'{"command":"echo","n":1}\n{"command":"echo","n":2}\n')
    assert [json.loads(line)["got"]["n"] for line in lines] == [1, 2]


@pytest.mark.parametrize("request_", [b"\xff\n", b"[]\n", b"{}\n", b'{"command":[]}\n', b"\n", b'{"command":"echo"'])
async def test_garbage_is_refused_and_the_next_command_answered(server, request_):
    [line] = await raw(server, request_)
    assert json.loads(line)["ok"] is False
    assert await asked(server, "echo") == {"got": {}}


async def test_a_line_that_is_too_long_ends_the_connection(server, monkeypatch):
    assert await raw(server, b"x" * (control.LINE_BYTES + 1)) == []
    assert await asked(server, "echo") == {"got": {}}


async def test_a_client_that_goes_away_is_no_trouble(server):
    _, writer = await asyncio.open_unix_connection(server / control.NAME)
    writer.write(b'{"command":"echo"}\n' * 10_000)
    writer.transport.abort()
    assert await asked(server, "echo") == {"got": {}}


async def test_who_asks_is_told_when_the_daemon_ends(tmp_path):
    server = Control(tmp_path, HANDLERS)
    await server.start()
    waiting = asyncio.create_task(asked(tmp_path, "endless"))
    while not server._connections:
        await asyncio.sleep(0)
    await server.stop()
    with pytest.raises(Unusable, match="has ended without an answer"):
        await waiting
    assert not (tmp_path / control.NAME).exists()
    with pytest.raises(NoDaemon):
        ask(tmp_path, "echo")


async def test_the_socket_of_a_killed_daemon_is_no_daemon_and_no_hindrance(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / control.NAME))
    with pytest.raises(NoDaemon):
        ask(tmp_path, "echo")
    server = Control(tmp_path, HANDLERS)
    await server.start()
    assert await asked(tmp_path, "echo") == {"got": {}}
    await server.stop()


async def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    with pytest.raises(NoDaemon):
        ask(folder, "echo")
    server = Control(folder, HANDLERS)
    await server.start()
    assert (folder / control.NAME).is_socket()
    assert await asked(folder, "echo") == {"got": {}}
    await server.stop()
    assert not (folder / control.NAME).exists()


async def test_what_cannot_be_is_unusable(tmp_path):
    (tmp_path / "file").touch()
    server = Control(tmp_path / "file", HANDLERS)
    with pytest.raises(Unusable, match=r"control\.sock: Not a directory"):
        await server.start()
    await server.stop()
    with pytest.raises(Unusable, match=r"control\.sock: Not a directory"):
        ask(tmp_path / "file", "echo")

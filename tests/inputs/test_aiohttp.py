"""The server of aiohttp, with sockets that send it what is no HTTP."""

import asyncio
import gc
import types

import pytest

from pipeline.contract import Context
from pipeline.inputs import _aiohttp
from pipeline.inputs._peers import Peers
from pipeline.inputs.http import Http

PEERS = Peers(Http.Options(listen=":0"), Context("web", "host", None))


async def answered(request):
    raise AssertionError(request)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01" + b"x" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 20_000])
async def test_what_is_no_http_stays_no_longer_than_its_connection(sent):
    server = _aiohttp.server(_aiohttp.web(), answered, PEERS, set(), 9)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(sent)
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
            writer.close()
            await writer.wait_closed()
        while server.connections:
            await asyncio.sleep(0.001)
        frames = [each for each in gc.get_objects() if isinstance(each, types.FrameType)]
        assert not [frame for frame in frames if frame.f_code.co_name in {"data_received", "feed_data"}]
    finally:
        gc.enable()
        listening.close()
        await listening.wait_closed()

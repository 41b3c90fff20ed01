import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import admin as module
from pipeline.admin import Admin
from pipeline.contract import Unusable
from pipeline.metrics import Metrics
from tests.services.ports import free_port


class Rig:
    """An admin server, and what it is to tell."""

    def __init__(self, address: str | None = "127.0.0.1:0") -> None:
        self.reasons: list[str] = []
        self.metrics = Metrics()
        self.admin = Admin(address, self.metrics, self.status, lambda: self.reasons)

    def status(self) -> dict[str, Any]:
        if self.reasons == ["broken"]:
            raise LookupError("a mistake")
        return {"version": "1", "where": Path("/"), "what": {1}}

    async def send(self, request: bytes, *, end: bool = False) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin.port)
        writer.write(request)
        if end:
            writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET", head: str = "") -> tuple[int, dict[str, str], bytes]:
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        first, _, body = answer.partition(b"\r\n\r\n")
        status, *headers = first.decode().split("\r\n")
        return int(status.split()[1]), dict(line.split(": ") for line in headers), body


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.admin.start()
    yield rig
    await rig.admin.stop()


async def test_health_does_not_depend_on_readiness(rig):
    rig.reasons = ["output es: does not answer"]
    assert (await rig.get("/healthz"))[::2] == (200, b"ok\n")


async def test_readiness_is_503_with_the_reasons(rig):
    assert (await rig.get("/readyz"))[::2] == (200, b"ready\n")
    rig.reasons = ["starting", "output es: blocked"]
    assert (await rig.get("/readyz"))[::2] == (503, b"starting\noutput es: blocked\n")


async def test_metrics_are_prometheus_text_or_openmetrics_for_who_asks(rig):
    rig.metrics.count("records", 3, {"input": "app"})
    status, headers, body = await rig.get("/metrics?x=1")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'aiologs_records_total{input="app"} 3.0' in body
    status, headers, body = await rig.get("/metrics", head="ACCEPT: application/openmetrics-text;version=1.0.0\r\n")
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")


async def test_status_is_json_whatever_is_in_it(rig):
    status, headers, body = await rig.get("/status")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body)["version"] == "1"


async def test_head_is_get_without_the_body(rig):
    status, headers, body = await rig.get("/healthz", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "3", b"")


async def test_what_there_is_not_is_404_and_says_what_there_is(rig):
    status, _, body = await rig.get("/")
    assert status == 404
    assert b"/metrics" in body


async def test_other_methods_are_405(rig):
    status, headers, _ = await rig.get("/status", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


async def test_a_mistake_is_500_and_in_the_log(rig, caplog):
    rig.reasons = ["broken"]
    assert (await rig.get("/status"))[0] == 500
    assert "a mistake" in caplog.text
    assert (await rig.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n", b"\xff\x00 / HTTP/1.1\r\n\r\n"],
)
async def test_garbage_is_400(rig, request_):
    assert (await rig.send(request_)).startswith(b"HTTP/1.1 400 ")


async def test_a_request_that_is_cut_off_is_400(rig):
    assert (await rig.send(b"GET / HTTP/1.1\r\n", end=True)).startswith(b"HTTP/1.1 400 ")


async def test_a_head_that_is_too_large_is_431(rig):
    assert (await rig.send(b"GET / HTTP/1.1\r\nX: " + b"x" * module.HEAD_BYTES)).startswith(b"HTTP/1.1 431 ")


async def test_a_slow_client_is_cut_off(rig, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    with pytest.raises(ConnectionResetError):
        raise ConnectionResetError if await rig.send(b"GET / HT") == b"" else AssertionError


async def test_a_client_that_goes_away_is_no_trouble(rig, caplog):
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", rig.admin.port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        writer.transport.abort()
    assert (await rig.get("/healthz"))[0] == 200
    assert caplog.messages == []


@given(st.binary(max_size=300) | st.binary(max_size=50).map(lambda data: b"GET /healthz HTTP/1.1\r\n" + data))
def test_any_bytes_are_answered_and_the_next_request_too(data):
    async def run() -> None:
        rig = Rig()
        await rig.admin.start()
        answer = await rig.send(data, end=True)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
        assert (await rig.get("/healthz"))[0] == 200
        await rig.admin.stop()

    asyncio.run(run())


async def test_stop_ends_who_is_connected():
    rig = Rig()
    await rig.admin.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.admin.port)
    while not rig.admin._connections:
        await asyncio.sleep(0)
    await rig.admin.stop()
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", rig.admin.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
async def test_addresses(host):
    port = free_port()
    rig = Rig(f"{host}:{port}")
    await rig.admin.start()
    assert rig.admin.port == port
    assert (await rig.get("/healthz"))[0] == 200
    await rig.admin.stop()


async def test_without_an_address_there_is_no_server():
    rig = Rig(None)
    await rig.admin.start()
    assert rig.admin.port == 0
    await rig.admin.stop()


@pytest.mark.parametrize("address", ["{port}", "192.0.2.1:9600", "no.such.host.invalid:9600"])
async def test_an_address_that_cannot_be_had_is_said_so(rig, address):
    other = Rig(address.format(port=f"127.0.0.1:{rig.admin.port}"))
    with pytest.raises(Unusable, match=r"^admin: .*; `admin:` takes another address, or null$"):
        await other.admin.start()
    await other.admin.stop()


def test_no_http_library_is_imported():
    program = "import sys, pipeline.admin; sys.exit(bool({'aiohttp', 'http.server'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Real clients, unmodified, send to the real daemon: what they hold to be delivered is in the store."""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pylogbeat
import pytest
from elasticsearch import AsyncElasticsearch, Elasticsearch, helpers
from logstash_async.handler import AsynchronousLogstashHandler
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from tests.crash.daemon import wait_until
from tests.integration.daemon import Receiver

INPUTS: dict[str, dict[str, Any]] = {
    "web": {"type": "http", "auth": {"basic": {"user": "word"}, "api_keys": ["a2V5OndvcmQ="]}},
    "logstash": {"type": "http", "compatible": "logstash"},
    "ship": {"type": "beats"},
    "lines": {"type": "tcp"},
    "syslog": {"type": "tcp", "decode": "syslog"},
    "devices": {"type": "udp", "decode": "syslog"},
}
COUNT = 200
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = Receiver(tmp_path_factory.mktemp("daemon"), INPUTS)
    daemon.start()
    yield daemon
    daemon.stop()
    daemon.close()


def messages(text: str, count: int = COUNT) -> list[str]:
    return [f"{text} {n:06}" for n in range(count)]


def stored(daemon: Receiver, text: str) -> list[str]:
    return [each["message"] for each in daemon.found(text)]


def until_stored(daemon: Receiver, text: str, count: int = COUNT) -> None:
    """For clients that are not told when their records are stored."""
    wait_until(lambda: len(daemon.found(text)) >= count, f"{text} is stored")
    assert stored(daemon, text) == messages(text, count)


@pytest.fixture
def log():
    """An application's logger."""
    logger = logging.getLogger("tests.app")
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def tool(name: str) -> str:
    """A program of the machine."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


# --- python-logstash-async ---


@pytest.mark.parametrize(
    ("transport", "to", "options"),
    [
        ("HttpTransport", "web", {"username": "user", "password": "word", "ssl_enable": False}),
        ("HttpTransport", "logstash", {"ssl_enable": False}),
        ("TcpTransport", "lines", {}),
        ("BeatsTransport", "ship", {}),
    ],
)
def test_python_logstash_async(daemon, log, tmp_path, transport, to, options):
    text = f"logstash_async {transport} {to}"
    ssl_enable = options.pop("ssl_enable", False)
    handler = AsynchronousLogstashHandler(
        "127.0.0.1",
        daemon.ports[to],
        str(tmp_path / "queue.db"),
        transport=f"logstash_async.transport.{transport}",
        ssl_enable=ssl_enable,
        **options,
    )
    log.addHandler(handler)
    for message in messages(text):
        log.warning(message)
    log.error("%s %06d", text, COUNT, exc_info=ValueError("an error"))
    handler.close()
    until_stored(daemon, text, COUNT + 1)
    last = daemon.found(text)[-1]
    assert "ValueError: an error" in str(last)
    assert last["level"] == "ERROR"


# --- Lumberjack ---


def test_pylogbeat(daemon):
    with pylogbeat.PyLogBeatClient("127.0.0.1", daemon.ports["ship"], timeout=10) as client:
        client.send([])
        for n in range(0, COUNT, 50):
            client.send([{"message": message, "n": n} for message in messages("pylogbeat")[n : n + 50]])
        assert stored(daemon, "pylogbeat") == messages("pylogbeat")


@pytest.fixture(scope="module")
def golumber(tmp_path_factory):
    """Elastic's own client."""
    program = tmp_path_factory.mktemp("golumber") / "golumber"
    build = [tool("go"), "build", "-o", program, "."]
    made = subprocess.run(build, cwd=HERE / "golumber", check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return program


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("level", [0, 3])
def test_go_lumber(daemon, golumber, level, kind):
    text, windows, size = f"go-lumber {level} {kind}", 3, 2048
    address = f"127.0.0.1:{daemon.ports['ship']}"
    command = [golumber, address, text, str(windows), str(size), str(level), *([kind] if kind == "async" else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == windows * size
    assert stored(daemon, text) == messages(text, windows * size)


# --- OpenTelemetry ---


@pytest.mark.parametrize("compression", Compression)
def test_opentelemetry_sdk(daemon, compression):
    text = f"opentelemetry {compression.value}"
    exporter = OTLPLogExporter(
        f"{daemon.url()}/v1/logs", headers={"authorization": "ApiKey a2V5OndvcmQ="}, compression=compression
    )
    provider = LoggerProvider(Resource.create({"service.name": "shop"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    log = provider.get_logger("app")
    for n, message in enumerate(messages(text)):
        log.emit(
            timestamp=1_763_596_800_000_000_000 + n,
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body=message,
            attributes={"n": n, "user": {"id": "u1"}},
        )
    assert provider.force_flush()
    assert stored(daemon, text) == messages(text)
    provider.shutdown()
    assert "shop" in str(daemon.found(text)[0])


# --- Elasticsearch's client ---


def actions(text: str) -> list[dict[str, object]]:
    return [{"_index": "any", "_id": f"{text}-{n}", "message": each} for n, each in enumerate(messages(text))]


def test_elasticsearch_bulk_helper(daemon):
    with Elasticsearch(daemon.url(), basic_auth=("user", "word")) as client:
        for _ in range(2):  # sent again, nothing is stored twice
            assert helpers.bulk(client, actions("es sync"), chunk_size=70) == (COUNT, [])
            assert stored(daemon, "es sync") == messages("es sync")
        bad = [{"_op_type": "delete", "_index": "any", "_id": "1"}]
        _, errors = helpers.bulk(client, bad, raise_on_error=False)
        assert "only adds documents" in str(errors)
    assert "es sync-0" in daemon.ids()


def test_elasticsearch_async_bulk_helper(daemon):
    async def send():
        async with AsyncElasticsearch(daemon.url(), api_key="a2V5OndvcmQ=", http_compress=True) as client:
            return await helpers.async_bulk(client, actions("es async"), chunk_size=70)

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert loop.run_until_complete(send()) == (COUNT, [])
    assert stored(daemon, "es async") == messages("es async")


# --- syslog ---


@pytest.mark.parametrize(
    ("kind", "to", "end"),
    [
        (socket.SOCK_DGRAM, "devices", "\0"),
        (socket.SOCK_STREAM, "syslog", "\0"),
        (socket.SOCK_STREAM, "syslog", "\n"),
    ],
)
def test_syslog_handler(daemon, log, kind, to, end):
    text = f"SysLogHandler {to} {end!r}"
    handler = logging.handlers.SysLogHandler(("127.0.0.1", daemon.ports[to]), "local3", kind)
    if end != "\0":
        handler.append_nul = False
        handler.setFormatter(logging.Formatter("%(message)s\n"))
    log.addHandler(handler)
    for message in messages(text):
        log.error(message)
    handler.close()
    until_stored(daemon, text)
    document = daemon.found(text)[0]
    assert document["level"] == "err"
    assert document["log"]["syslog"]["facility"]["name"] == "local3"


@pytest.mark.parametrize("form", [["--rfc3164"], ["--rfc5424"], ["--rfc5424=notq,nohost"]])
@pytest.mark.parametrize(
    ("transport", "to"), [(["--udp"], "devices"), (["--tcp"], "syslog"), (["--tcp", "--octet-count"], "syslog")]
)
def test_logger(daemon, tmp_path, transport, to, form):
    text = " ".join(["logger", *transport, *form])
    command = [tool("logger"), "--server", "127.0.0.1", "--port", str(daemon.ports[to]), *transport, *form]
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{message}\n" for message in messages(text)))
    subprocess.run([*command, "--tag", "app", "--priority", "auth.warning", "--file", lines], check=True, timeout=60)
    until_stored(daemon, text)
    document = daemon.found(text)[0]
    assert (document["level"], document["process"]["name"]) == ("warning", "app")


# --- curl ---

CURL = {
    "lines": ("application/x-ndjson", '{{"message":"{0} 000000"}}\n{{"message":"{0} 000001"}}\n', ["-u", "user:word"]),
    "array": ("application/json", '[{{"message":"{0} 000000"}}, {{"message":"{0} 000001"}}]', ["-u", "user:word"]),
    "text": ("text/plain", "{0} 000000\n{0} 000001\n", ["-H", "x-api-key: a2V5OndvcmQ="]),
    "chunked": ("text/plain", "{0} 000000\n{0} 000001\n", ["-u", "user:word", "-H", "Transfer-Encoding: chunked"]),
    "waits": ("text/plain", "{0} 000000\n{0} 000001\n", ["-u", "user:word", "-H", "Expect: 100-continue"]),
}


@pytest.mark.parametrize("name", CURL)
def test_curl(daemon, name):
    kind, body, options = CURL[name]
    text = f"curl {name}"
    command = [tool("curl"), "-sS", "--fail-with-body", "-H", f"Content-Type: {kind}", *options]
    subprocess.run(
        [*command, "--data-binary", "@-", daemon.url()], input=body.format(text).encode(), check=True, timeout=60
    )
    assert stored(daemon, text) == messages(text, 2)


def test_curl_without_a_password_is_told_so(daemon):
    command = [tool("curl"), "-sS", "-o", os.devnull, "-w", "%{http_code}", "-d", "{}", daemon.url()]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "401"

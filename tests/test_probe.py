import http.server
import os
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from pipeline.chain import StageSpec
from pipeline.config import Config, OutputPart
from pipeline.dead import Limits
from pipeline.inputs._brokers import ClientTLS
from pipeline.log import LogOptions
from pipeline.probe import probe
from pipeline.tls import TLS
from pipeline.yaml_positions import Mark


@pytest.fixture
def tried(tmp_path):
    """Probe an output with some options; gives the results without the one about data_dir."""

    def run(**options: Any) -> list[tuple[str, str | None]]:
        part = OutputPart("es", "x", SimpleNamespace(**options), Mark(1, 1))  # type: ignore[arg-type]
        return [*probe(configured(tmp_path, part))][1:]

    return run


def configured(data_dir: Path, *parts: OutputPart) -> Config:
    return Config(
        path=Path("x"),
        text="",
        data_dir=data_dir,
        workers=0,
        admin=None,
        host="h",
        reload="on_signal",
        drain_seconds=1,
        dead_letters=Limits(),
        log=LogOptions(),
        inputs={},
        stages=list[StageSpec](),
        outputs={part.name: part for part in parts},
        tests=[],
        marks={},
        test_marks=[],
    )


@pytest.fixture
def elasticsearch():
    """A server that answers as told and keeps what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status, body = 200, b'{"cluster_name": "c", "version": {"number": "9.2.0"}}'
        asked: ClassVar[list[str | None]] = []

        def do_GET(self):
            self.asked.append(self.headers.get("Authorization"))
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", handler=Handler)
        server.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_the_data_dir_is_tried_where_it_exists_and_where_it_must_be_made(tmp_path):
    assert [*probe(configured(tmp_path))] == [(f"data_dir: {tmp_path}", None)]
    missing = tmp_path / "a" / "b"
    assert [*probe(replace(configured(tmp_path), data_dir=missing))] == [(f"data_dir: {missing}", None)]


def test_a_folder_that_can_not_be_written_to_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert [*probe(configured(tmp_path))] == [(f"data_dir: {tmp_path}", f"no permission to write to {tmp_path}")]


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path):
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        problem = f"{tmp_path / 'a'} is no folder"
        assert [*probe(replace(configured(tmp_path), data_dir=folder))] == [(f"data_dir: {folder}", problem)]


def test_files_are_counted(tried, tmp_path):
    for name in ("a.log", "b.log"):
        (tmp_path / name).touch()
    assert tried(paths=[f"{tmp_path}/*.log", f"{tmp_path}/a*", "/nothing/*"]) == [
        (f"es: {tmp_path}/*.log: 2 files", None),
        (f"es: {tmp_path}/a*: 1 file", None),
        ("es: /nothing/*: 0 files", None),
    ]


def test_a_file_that_can_not_be_read_is_a_problem(tried, tmp_path, monkeypatch):
    (tmp_path / "a.log").touch()
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith(".log"))
    assert tried(paths=[f"{tmp_path}/*"]) == [
        (f"es: {tmp_path}/*: 1 file", f"no permission to read {tmp_path}/a.log"),
    ]


def test_the_folder_of_a_file_to_write_is_tried(tried, tmp_path):
    assert tried(path=tmp_path / "x" / "a.db") == [(f"es: {tmp_path}/x", None)]


def test_a_broker_that_answers(tried):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert tried(brokers=[address]) == [(f"es: {address}: answers", None)]


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "nowhere"])
def test_a_broker_that_does_not_answer(tried, address):
    ((what, problem),) = tried(brokers=[address.format(closed_port())])
    assert what.startswith("es: ")
    assert str(problem).startswith("no answer: ")


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({}, None),
        ({"api_key": SecretStr("abc"), "username": "u"}, "ApiKey abc"),
        ({"username": "u", "password": SecretStr("p")}, "Basic dTpw"),
    ],
)
def test_elasticsearch_is_asked_with_the_credentials(tried, elasticsearch, options, header):
    url = elasticsearch.url
    assert tried(hosts=[url], **options) == [(f"es: {url}: cluster c, version 9.2.0", None)]
    assert elasticsearch.handler.asked[-1] == header


def test_wrong_credentials_are_a_problem(tried, elasticsearch):
    elasticsearch.handler.status = 401
    ((_, problem),) = tried(hosts=[elasticsearch.url])
    assert problem == "answers 401 Unauthorized: look at the credentials"


@pytest.mark.parametrize("body", [b"hello", b"{}", b"[]", b'{"cluster_name": "c", "version": 9}'])
def test_another_server_is_not_taken_for_elasticsearch(tried, elasticsearch, body):
    elasticsearch.handler.body = body
    ((_, problem),) = tried(hosts=[elasticsearch.url])
    assert problem.startswith("no answer as Elasticsearch gives: ")


def test_what_does_not_speak_http_is_a_problem(tried):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"hello\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        ((_, problem),) = tried(hosts=[f"http://127.0.0.1:{server.getsockname()[1]}"])
        thread.join()
    assert problem == "no answer as Elasticsearch gives: hello"


def test_elasticsearch_that_is_away_is_a_problem(tried):
    ((_, problem),) = tried(hosts=[f"http://127.0.0.1:{closed_port()}"])
    assert "refused" in problem


def test_the_client_s_certificate_and_the_authority_are_used(tried, monkeypatch):
    seen: list[Any] = []

    class Context:
        check_hostname, verify_mode = True, ssl.CERT_REQUIRED

        def load_cert_chain(self, *files):
            seen.append(files)

    def make(**options: Any) -> Context:
        seen.append(options)
        return context

    context = Context()
    monkeypatch.setattr("ssl.create_default_context", make)
    url = f"https://127.0.0.1:{closed_port()}"
    tried(hosts=[url], ca="ca.pem", certificate="c.pem", key="k.pem")
    assert seen == [{"cafile": "ca.pem"}, ("c.pem", "k.pem")]
    assert context.check_hostname
    tried(hosts=[url], verify=False)
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


def test_a_certificate_that_is_not_there_is_a_problem(tried):
    ((_, problem),) = tried(hosts=["https://localhost"], ca="/no/such/ca.pem")
    assert "No such file" in problem


def test_the_certificate_of_a_listener_is_tried(tried, certified: tuple[Path, Path]):
    key, certificate = certified
    assert tried(tls=TLS(certificate=certificate, key=key)) == [(f"es: TLS: {certificate}", None)]
    key.unlink()
    problem = f"TLS: {certificate} and {key}: No such file or directory"
    assert tried(tls=TLS(certificate=certificate, key=key)) == [("es", problem)]


def test_the_authorities_of_brokers_are_tried(tried, tmp_path):
    assert tried(tls=ClientTLS()) == [("es: TLS: the authorities of this system", None)]
    ((_, problem),) = tried(tls=ClientTLS(ca=tmp_path / "none"))
    assert problem is not None
    assert f"TLS: {tmp_path}/none: " in problem

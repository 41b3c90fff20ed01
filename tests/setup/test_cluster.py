"""Asking a cluster, host by host."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.outputs.elasticsearch import Elasticsearch
from pipeline.setup.cluster import Away, Cluster, Refused, connect

AWAY = "http://127.0.0.1:9"


@contextmanager
def server(status: int, answer: bytes) -> Iterator[tuple[str, list]]:
    """Answers every request alike; its URL and the requests that came."""
    requests: list = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            requests.append((self.command, self.path, dict(self.headers), body))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - the names that http.server wants

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}", requests
        finally:
            http.shutdown()
            thread.join()


def cluster(*hosts: str, **options) -> Cluster:
    return connect(Elasticsearch.Options(hosts=list(hosts), **options), seconds=5)


def error(type_: str, reason: str, **more) -> bytes:
    return json.dumps({"error": {"type": type_, "reason": reason, **more}, "status": 400}).encode()


def test_a_request_carries_its_body_and_who_asks():
    with server(200, b'{"acknowledged":true}') as (url, requests):
        assert cluster(url, api_key="id:key").ask("PUT", "_ilm/policy/a", {"a": 1}) == {"acknowledged": True}
    ((method, path, headers, body),) = requests
    assert (method, path, body) == ("PUT", "/_ilm/policy/a", b'{"a":1}')
    assert headers["Authorization"] == "ApiKey aWQ6a2V5"


def test_the_next_host_is_asked_when_one_is_away():
    with server(200, b"{}") as (url, requests):
        assert cluster(AWAY, url).ask("GET", "") == {}
    assert len(requests) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_server_is_away(status):
    with server(status, b"") as (url, _), pytest.raises(Away, match=str(status)):
        cluster(url).ask("GET", "")


def test_all_hosts_are_named_when_none_answers():
    with pytest.raises(Away, match=r"127\.0\.0\.1:9: .*; http://127\.0\.0\.1:9: "):
        cluster(AWAY, AWAY).ask("GET", "")


def test_what_is_no_json_is_no_answer_of_elasticsearch():
    with server(200, b"<html>") as (url, _), pytest.raises(Away):
        cluster(url).ask("GET", "")


def test_what_is_missing_is_what_the_caller_says():
    with server(404, b"{}") as (url, _):
        assert cluster(url).ask("GET", "x") is None
        assert cluster(url).ask("GET", "x", missing={}) == {}


def test_a_refusal_tells_the_innermost_reason():
    body = error("illegal_argument_exception", "outer", caused_by={"type": "x", "reason": "inner"})
    with server(400, body) as (url, _), pytest.raises(Refused) as refused:
        cluster(url).ask("PUT", "_ilm/policy/a?x=1", {})
    assert str(refused.value) == "PUT /_ilm/policy/a: outer: inner"
    assert (refused.value.status, refused.value.type) == (400, "illegal_argument_exception")


@pytest.mark.parametrize(("status", "hint"), [(401, "api_key, or username"), (403, "role.json")])
def test_a_refusal_for_want_of_rights_says_what_to_do(status, hint):
    body = error("security_exception", "action [x] is unauthorized")
    with server(status, body) as (url, _), pytest.raises(Refused, match=hint):
        cluster(url).ask("GET", "")


def test_an_answer_of_something_else_is_shown():
    with server(418, b"teapot") as (url, _), pytest.raises(Refused, match="answers 418: teapot"):
        cluster(url).ask("GET", "")

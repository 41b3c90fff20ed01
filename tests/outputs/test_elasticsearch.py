import asyncio
import gc
import logging
import ssl
import subprocess
import sys
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contract import Context, Output, Unusable, Written, bulk
from pipeline.outputs.elasticsearch import Elasticsearch
from tests.fake_elasticsearch import (
    BROKEN,
    CLOSED,
    READ_ONLY,
    REJECTED,
    Cut,
    Each,
    FakeElasticsearch,
    Hang,
    Items,
    Reset,
    Status,
)
from tests.memory import Memory

FAST = {"retry_first": 0.001, "retry_most": 0.01, "park_after": 0.05}


class Outputs:
    """Makes outputs that write to the fake, and stops them."""

    def __init__(self, fake: FakeElasticsearch) -> None:
        self.gauges = defaultdict[str, list[float]](list)
        self.fake, self.counted, self._made = fake, Counter[tuple[str, str]](), list[Elasticsearch]()

    async def __call__(self, **options: Any) -> Elasticsearch:
        settings = Elasticsearch.Options(**({"hosts": [self.fake.url]} | FAST | options))
        context = Context("es", "host", Memory(), self._gauge, self._count)
        output = Elasticsearch(settings, context)
        await output.start()
        self._made.append(output)
        return output

    def _gauge(self, name: str, value: float, _: Any) -> None:
        self.gauges[name].append(value)

    def _count(self, name: str, n: int, labels: Any) -> None:
        self.counted[name, labels.get("status") or labels.get("reason") or ""] += n

    async def stop(self) -> None:
        for output in self._made:
            await output.stop()


@pytest.fixture
async def fake():
    async with FakeElasticsearch() as fake:
        yield fake


@pytest.fixture
async def make(fake):
    outputs = Outputs(fake)
    yield outputs
    await outputs.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a real server's sockets do."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def docs(count: int, index: str = "logs") -> list[Any]:
    return [bulk(index, [(f"{index}-{n}", b'{"n":%d}' % n) for n in range(count)])]


async def test_it_is_an_output(make):
    assert isinstance(await make(), Output)


async def test_documents_are_stored_once(make, fake):
    output = await make()
    assert await output.write(docs(3)) == Written(stored=3)
    assert await output.write(docs(4)) == Written(stored=1, already=3)
    assert fake.documents["logs", "logs-3"] == b'{"n":3}'
    assert len(fake.log) == 4
    assert make.counted["bulk_requests", "200"] == 2


async def test_an_empty_payload_asks_nobody(make, fake):
    assert await (await make()).write([]) == Written()
    assert fake.requests == []


async def test_what_is_sent_is_what_any_version_understands(make, fake):
    await (await make()).write(docs(1))
    headers = fake.requests[0].headers
    assert headers["content-type"] == "application/x-ndjson"
    assert headers["accept"] == "application/json"
    assert headers["user-agent"].startswith("aiologs/")
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"api_key": "abc="}, "ApiKey abc="),
        ({"api_key": "id:key"}, "ApiKey " + b64encode(b"id:key").decode()),
        ({"api_key": ""}, None),
        ({"username": "elastic", "password": "pä"}, "Basic " + b64encode("elastic:pä".encode()).decode()),
    ],
)
async def test_credentials_go_with_each_request(make, fake, options, header):
    await (await make(**options)).write(docs(1))
    assert fake.requests[0].headers.get("authorization") == header


async def test_a_large_body_is_sent_as_it_is(make, fake):
    payload = [bulk("logs", [("1", b'"%s"' % (b"x" * (3 << 20)))])]
    assert await (await make()).write(payload) == Written(stored=1)


async def test_bodies_can_be_compressed(make, fake):
    assert await (await make(compress="gzip")).write(docs(100)) == Written(stored=100)
    assert fake.requests[0].headers["content-encoding"] == "gzip"
    assert fake.requests[0].size < len(docs(100)[0].body) / 3


async def test_ids_can_be_left_to_elasticsearch(make, fake):
    output = await make(document_id=False)
    await output.write(docs(2))
    assert await output.write(docs(2)) == Written(stored=2)
    assert fake.requests[0].ids == [None, None]


async def test_no_more_requests_than_allowed_are_under_way(make, fake):
    hang = Hang()
    fake.always = hang
    output = await make(concurrency=2)
    writes = [asyncio.create_task(output.write(docs(1, f"i{n}"))) for n in range(6)]
    await until(lambda: len(fake.requests) == 2)
    await asyncio.sleep(0.05)
    assert len(fake.requests) == 2
    fake.always = None
    hang.release.set()
    assert [each.stored for each in await asyncio.gather(*writes)] == [1] * 6


@pytest.mark.parametrize("trouble", [Reset(), Cut(), Hang(), Status(503)])
async def test_the_body_of_a_failed_request_is_not_left_to_the_garbage_collector(make, fake, trouble):
    output, payload = await make(timeout=0.2), docs(3)
    await output.write(docs(1))
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(payload[0].body)
        fake.next(trouble)
        assert (await output.write(payload)).refused == []
        await until(lambda: sys.getrefcount(payload[0].body) == before)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "trouble",
    [
        Status(429),
        Status(502, b"<html>bad gateway", {"content-type": "text/html"}),
        Status(503, b"", {"content-type": "nonsense"}),
        Status(401),
        Status(404, b"no such page", {"content-type": "application/octet-stream"}),
        Status(200, b"{}"),
        Status(302, b"", {"location": "/"}),
        Status(302, b"", {"location": "http://["}),
        Reset(),
        Cut(),
        Items(0),
        Items(2),
        Items(4),
        Each({1: REJECTED}),
        Each({0: REJECTED, 1: BROKEN, 2: REJECTED}),
    ],
)
async def test_nothing_is_lost_nor_stored_twice_when_a_request_goes_wrong(make, fake, trouble):
    fake.next(trouble, trouble)
    output = await make()
    written = await output.write(docs(3))
    assert written.stored + written.already == 3
    assert len(fake.log) == 3
    assert output.blocked is None
    assert sum(n for (name, _), n in make.counted.items() if name == "bulk_retries") > 0


async def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_the_timeout(make, fake):
    fake.next(Hang())
    assert await (await make(timeout=0.3)).write(docs(2)) == Written(already=2)
    assert make.counted["bulk_retries", "away"] >= 2


async def test_a_cluster_that_is_away_is_waited_for(make, fake):
    output = await make()
    await fake.stop()
    write = asyncio.create_task(output.write(docs(2)))
    await until(lambda: output.blocked)
    assert "Cannot connect" in output.blocked
    await fake.start()
    assert await write == Written(stored=2)
    assert output.blocked is None


async def test_another_node_takes_over(make, fake):
    output = await make(hosts=["http://127.0.0.1:9", fake.url])
    assert await output.write(docs(2)) == Written(stored=2)


async def test_a_blocked_index_is_parked_and_the_others_are_stored(make, fake):
    fake.indices |= {"old": READ_ONLY, "shut": CLOSED}
    written = await (await make()).write(docs(2) + docs(2, "old") + docs(1, "shut"))
    assert written.stored == 2
    assert {documents.index: documents.count for documents, _ in written.late} == {"old": 2, "shut": 1}
    assert "lift the block" in written.late[0][1]


async def test_a_node_that_dies_is_left_out_and_used_again_when_it_is_back(make, fake):
    async with FakeElasticsearch() as other:
        output = await make(hosts=[fake.url, other.url])
        await other.stop()
        for n in range(5):
            assert await output.write(docs(3, f"while-{n}")) == Written(stored=3)
        assert not other.requests
        await other.start()
        async with asyncio.timeout(20):
            while not other.requests:
                await output.write(docs(1, f"then-{len(fake.requests)}"))
                await asyncio.sleep(0.1)


async def test_sniffing_finds_the_other_nodes(make, fake):
    async with FakeElasticsearch() as other:
        fake.nodes = [fake.url, other.url]
        output = await make(sniff=True)
        async with asyncio.timeout(20):
            while not other.requests:
                await output.write(docs(1, f"logs-{len(fake.requests)}"))
                await asyncio.sleep(0.01)


async def test_a_busy_cluster_gets_fewer_requests_at_once(make, fake):
    output = await make(max_request_bytes=1024, concurrency=8)
    fake.next(*(Status(429) for _ in range(4)))
    assert await output.write(docs(300)) == Written(stored=300)
    seen = make.gauges["bulk_concurrency"]
    assert (seen[0], min(seen)) == (8, 4)


async def test_what_the_mapping_refuses_is_returned_with_the_reason(make, fake, caplog):
    fake.long_fields = {"n"}
    payload = [bulk("logs", [("1", b'{"n":1}'), ("2", b'{"n":"secret"}')])]
    written = await (await make(conflicts="set_aside")).write(payload)
    (refused,) = written.refused
    assert (written.stored, refused.id, refused.document) == (1, "2", b'{"n":"secret"}')
    assert "failed to parse field [n] of type [long]" in refused.reason
    assert "secret" not in caplog.text


async def test_a_field_of_another_type_is_moved_beside_and_later_ones_before_they_are_sent(make, fake, caplog):
    fake.long_fields = {"n"}
    output = await make()
    assert await output.write([bulk("logs", [("1", b'{"n":1}'), ("2", b'{"n":"secret"}')])]) == Written(stored=2)
    assert fake.documents["logs", "2"] == b'{"conflict":[{"field":"n","value":"secret"}]}'
    requests = len(fake.requests)
    assert await output.write([bulk("logs", [("3", b'{"n":"x"}'), ("4", b'{"n":4}')])]) == Written(stored=2)
    assert len(fake.requests) == requests + 1
    assert fake.documents["logs", "4"] == b'{"n":4}'
    assert make.counted["documents_repaired", ""] == 2
    assert "index logs: field n is to be: long" in caplog.text
    assert "secret" not in caplog.text


async def test_too_large_requests_are_halved_and_a_too_large_document_is_refused(make, fake):
    fake.max_content_length = 1000
    pairs = [(f"{n}", b'"%s"' % (b"x" * (100 if n != 5 else 2000))) for n in range(20)]
    written = await (await make()).write([bulk("logs", pairs)])
    assert (written.stored, [each.id for each in written.refused]) == (19, ["5"])
    assert "413" in written.refused[0].reason


async def test_one_bad_id_does_not_keep_the_others_out(make, fake):
    pairs = [(f"{n}" * (600 if n == 3 else 1), b"{}") for n in range(8)]
    written = await (await make()).write([bulk("logs", pairs)])
    assert (written.stored, len(written.refused)) == (7, 1)
    assert "too long" in written.refused[0].reason


async def test_a_large_payload_is_sent_in_several_requests(make, fake):
    assert await (await make(max_request_bytes=1024)).write(docs(100)) == Written(stored=100)
    assert len(fake.requests) > 3


# --- start and stop ---


async def test_the_start_tells_who_is_there(make, caplog):
    caplog.set_level(logging.INFO)
    output = await make()
    await output._greeting
    assert "output es: cluster fake, 9.2.0" in caplog.text


async def test_the_start_does_not_need_a_server(make, fake, caplog):
    await fake.stop()
    output = await make()
    await output._greeting
    assert "no server answers yet" in caplog.text
    assert output.blocked is None
    await fake.start()


async def test_the_start_does_not_need_the_right_to_ask(make, caplog):
    caplog.set_level(logging.INFO)
    output = await make()
    (await output._opening)._transport.serializers.loads = lambda *_: b"{}"
    await output._greeting
    assert "does not say who it is (it answers 200)" in caplog.text


async def test_another_product_is_warned_of_once_and_used(make, fake, caplog):
    fake.headers = {}
    output = await make()
    for n in range(2):
        assert await output.write(docs(1, f"i{n}")) == Written(stored=1)
    assert caplog.text.count("does not say to be Elasticsearch") == 1


async def test_it_can_be_stopped_at_once(fake):
    output = Elasticsearch(Elasticsearch.Options(hosts=[fake.url]), Context("es", "host", Memory()))
    await output.start()
    await output.stop()


def test_the_client_is_not_imported_for_the_configuration():
    code = "import pipeline.outputs.elasticsearch, sys; print({'elasticsearch', 'aiohttp'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- TLS ---


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 with its key."""
    pem = tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(pem), "-out", str(tmp_path / "only.pem")]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "only.pem").read_text())
    return pem


@pytest.fixture
async def https(certificate):
    """A fake that wants a client certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    async with FakeElasticsearch(context) as fake:
        yield fake


async def test_tls_with_a_private_authority_and_a_client_certificate(make, https, certificate):
    output = await make(hosts=[https.url], ca=certificate, certificate=certificate)
    assert await output.write(docs(2)) == Written(stored=2)


async def test_a_server_that_is_not_trusted_gets_nothing(make, https, certificate):
    output = await make(hosts=[https.url], certificate=certificate)
    write = asyncio.create_task(output.write(docs(2)))
    await until(lambda: output.blocked)
    assert "certificate verify failed" in output.blocked
    write.cancel()


async def test_trust_can_be_waived_with_a_warning(make, https, certificate, caplog):
    output = await make(hosts=[https.url], certificate=certificate, verify=False)
    assert await output.write(docs(2)) == Written(stored=2)
    assert "verify is off" in caplog.text


@pytest.mark.parametrize("options", [{"ca": "/missing"}, {"certificate": "/missing"}, {"ca": __file__}])
async def test_files_that_do_not_do_are_told_at_the_start(options):
    output = Elasticsearch(Elasticsearch.Options(**options), Context("es", "host", Memory()))
    with pytest.raises(Unusable, match=f"output es: can't use {next(iter(options.values()))}"):
        await output.start()


# --- options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": []}, "at least 1"),
        ({"hosts": ["localhost:9200"]}, "a host is a URL"),
        ({"hosts": ["http://"]}, "a host is a URL"),
        ({"hosts": ["http://elastic:secret@host"]}, "not into the URL"),
        ({"api_key": "k", "username": "u", "password": "p"}, "either api_key or"),
        ({"username": "u"}, "go together"),
        ({"password": "p"}, "go together"),
        ({"key": "k.pem"}, "key needs the certificate"),
        ({"host": "x"}, "Extra inputs"),
    ],
)
def test_options_that_make_no_sense_are_told(options, message):
    with pytest.raises(ValidationError, match=message):
        Elasticsearch.Options(**options)


def test_secrets_are_not_shown():
    options = Elasticsearch.Options(api_key="id:very-secret")
    assert "secret" not in repr(options).replace("SecretStr", "")

import asyncio
import base64
import contextlib
import gc
import gzip
import socket
from types import FrameType

import aiohttp
import orjson
import pytest

from pipeline.contract import Batch, Context, Full, Outcome, Refusal, Unusable
from pipeline.inputs import _bodies, _listen
from pipeline.inputs.http import Http

pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")


class Deliver:
    """Stores everything; refuses records that begin with `!`, as a chain would."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.stored: dict[str, bytes] = {}
        self.full = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Batch, *, wait: bool = True) -> Outcome:
        assert not wait
        if self.full:
            raise Full(2.6)
        await self.gate.wait()
        self.batches.append(batch)
        outcome = Outcome()
        for n, (id_, record) in enumerate(zip(batch.document_ids(), batch.records(), strict=True)):
            if record.startswith(b"!") and batch.refuse:
                outcome.refused.append(Refusal(n, "it begins with !"))
            else:
                self.stored[id_] = record
        return outcome


class Server:
    def __init__(self, **options) -> None:
        self.deliver, self.stop = Deliver(), asyncio.Event()
        self.counts: list[tuple] = []
        decode = options.pop("decode", "json")
        context = Context("web", "host", None, count=lambda *what: self.counts.append(what), decode=decode)
        self.input = Http(Http.Options(listen="127.0.0.1:0", **options), context)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.input.run(self.deliver, self.stop))
        while not self.input.endpoint.ports and not self.task.done():
            await asyncio.sleep(0.001)
        self.url = f"http://127.0.0.1:{self.input.endpoint.ports[0]}"
        self.client = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        self.stop.set()
        await self.task

    async def post(self, data: bytes, kind: str = "application/x-ndjson", path: str = "/", **headers: str):
        given = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.client.post(self.url + path, data=data, headers=given) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if body.startswith(b"{") else body, response.headers


async def test_records_are_stored_when_the_answer_is_200():
    async with Server() as server:
        status, body, headers = await server.post(b'{"a":1}\n{"b":2}\n')
        assert (status, body) == (200, {"stored": 2})
        assert list(server.deliver.stored.values()) == [b'{"a":1}', b'{"b":2}']
        assert len(headers["x-correlation-id"]) == 32


async def test_there_is_no_answer_before_the_records_are_stored():
    async with Server() as server:
        server.deliver.gate.clear()
        task = asyncio.create_task(server.post(b"{}"))
        await asyncio.sleep(0.05)
        assert not task.done()
        server.deliver.gate.set()
        assert (await task)[0] == 200


async def test_bad_lines_are_named_and_the_good_ones_taken():
    async with Server() as server:
        status, body, _ = await server.post(b"{}\n!bad\n{}\n")
        assert status == 400
        assert body == {"stored": 2, "errors": [{"line": 2, "reason": "it begins with !"}]}
        assert server.counts == [("http_errors", 1, {"input": "web", "status": "400"})]


@pytest.mark.parametrize("options", [{"malformed": "set_aside"}, {"compatible": "logstash"}])
async def test_bad_lines_may_be_set_aside_instead(options):
    async with Server(**options) as server:
        status, body, _ = await server.post(b"!bad\n")
        assert (status, body) == (200, b"ok" if "compatible" in options else {"stored": 1})
        assert not server.deliver.batches[0].refuse


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3_x", True), ("no spaces", False), ("x" * 129, False)])
async def test_a_correlation_id_is_echoed_or_made(given, kept):
    async with Server() as server:
        _, _, headers = await server.post(b"{}", x_correlation_id=given)
        assert (headers["x-correlation-id"] == given) is kept


async def test_a_request_sent_again_with_its_key_gives_the_same_ids():
    async with Server() as server:
        for _ in range(2):
            await server.post(b"{}\n{}\n", Idempotency_Key="k1")
        await server.post(b"{}\n", Idempotency_Key="k2")
        assert len(server.deliver.stored) == 3


async def test_records_with_a_time_sent_again_give_the_same_ids_and_others_random_ones():
    async with Server() as server:
        for _ in range(2):
            await server.post(b'{"@timestamp":"x"}\n{"@timestamp":"x"}\n')
        assert len(server.deliver.stored) == 2
        for _ in range(2):
            await server.post(b"{}")
        assert len(server.deliver.stored) == 4


async def test_bulk_requests_are_answered_as_elasticsearch_does():
    bulk = b'{"create":{"_index":"i","_id":"mine"}}\n{"x":1}\n{"index":{}}\n!bad\n{"delete":{"_id":"1"}}\n'
    async with Server() as server:
        status, body, headers = await server.post(
            bulk, "application/vnd.elasticsearch+x-ndjson; compatible-with=9", "/_bulk"
        )
        assert status == 200
        assert headers["X-Elastic-Product"] == "Elasticsearch"
        assert [item[next(iter(item))]["status"] for item in body["items"]] == [201, 400, 400]
        assert server.deliver.stored == {"mine": b'{"x":1}'}


async def test_otlp_logs_are_answered_with_a_partial_success():
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": "x"}}]}]}]}
    async with Server() as server:
        assert (await server.post(orjson.dumps(logs), "application/json", "/v1/logs"))[:2] == (200, {})
        [record] = server.deliver.stored.values()
        assert orjson.loads(record)["message"] == "x"
        status, body, _ = await server.post(b"", "application/x-protobuf", "/v1/logs")
        assert (status, body) == (200, b"")


async def test_clients_of_elasticsearch_and_load_balancers_are_greeted():
    async with Server() as server, server.client.get(server.url + "/") as response:
        assert response.headers["X-Elastic-Product"] == "Elasticsearch"
        assert (await response.json())["version"]["number"] == "9.2.0"
        async with server.client.head(server.url + "/") as head:
            assert head.status == 200
        async with server.client.get(server.url + "/nowhere") as missing:
            assert missing.status == 404
        async with server.client.delete(server.url + "/") as wrong:
            assert (wrong.status, wrong.headers["Allow"]) == (405, "POST, PUT, GET, HEAD")


async def test_compressed_bodies_are_inflated_and_bombs_refused():
    async with Server(max_body_bytes=1 << 20) as server:
        assert (await server.post(gzip.compress(b"{}\n"), Content_Encoding="gzip"))[:2] == (200, {"stored": 1})
        assert (await server.post(gzip.compress(bytes(8 << 20)), Content_Encoding="gzip"))[0] == 413
        assert (await server.post(b"x", Content_Encoding="br"))[0] == 415
        assert (await server.post(b"x", Content_Encoding="gzip"))[0] == 400


async def test_a_body_that_is_too_large_is_refused_with_and_without_a_length():
    async def chunks():
        for _ in range(3):
            yield b"x" * 50

    async with Server(max_body_bytes=100) as server:
        assert (await server.post(b"x" * 101))[0] == 413
        headers = {"Content-Type": "text/plain"}
        async with server.client.post(server.url, data=chunks(), headers=headers) as response:
            assert response.status == 413


async def test_a_client_that_sends_its_body_too_slowly_is_told_off():
    async with Server(body_seconds=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nContent-Type: text/plain\r\n\r\nab")
        assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_connection_without_a_request_is_closed():
    async with Server(idle_seconds=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        writer.write(b"POST / HT")
        async with asyncio.timeout(60):
            assert not await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(("size", "answer"), [(2, b"HTTP/1.1 100 Continue"), (1 << 40, b"HTTP/1.1 413 ")])
async def test_a_client_that_asks_before_it_sends_is_told_at_once(size, answer):
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert (await reader.readline()).startswith(answer)
        writer.write(b"{}")
        if size == 2:
            assert await reader.readline() == b"\r\n"
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/1.1\r\nx\r\n\r\n"]
)
async def test_what_is_no_request_is_answered_and_leaves_no_traceback(head, caplog):
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        writer.write(head)
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
    assert not caplog.records


@pytest.mark.parametrize("body", [b"2\r\n{", b"zz\r\n"])
async def test_a_client_that_breaks_off_its_body_leaves_no_traceback(body, caplog):
    async with Server() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        while not server.input._intake.held:
            await asyncio.sleep(0.001)
        writer.write(body)
        await asyncio.sleep(0.02)
        writer.transport.abort()
        while server.input._intake.held:
            await asyncio.sleep(0.001)
        assert not server.deliver.batches
    assert not caplog.records


async def test_an_error_of_ours_is_logged(monkeypatch, caplog):
    async with Server() as server:
        monkeypatch.setattr(server.input, "_answer", None)
        assert (await server.post(b"{}"))[0] == 500
    assert "Error handling request" in caplog.text


async def test_more_connections_than_allowed_are_closed_at_once():
    async with Server(connections=1) as server:
        assert (await server.post(b"{}"))[0] == 200  # the session keeps its connection
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        async with asyncio.timeout(60):
            assert not await reader.read()
        writer.close()


async def test_without_room_the_answer_is_429_and_says_when_to_come_back():
    async with Server() as server:
        server.deliver.full = True
        status, body, headers = await server.post(b"{}")
        assert (status, headers["Retry-After"]) == (429, "3")
        assert "no room" in body["error"]


async def test_bodies_that_are_not_answered_yet_take_no_more_room_than_they_may():
    async with Server(in_flight=1000) as server:
        large = gzip.compress(b"\n" * 2000)
        assert (await server.post(large, Content_Encoding="gzip"))[0] == 200  # alone it may be larger
        server.deliver.gate.clear()
        task = asyncio.create_task(server.post(b'{"a":1}'))
        while not server.input._intake.held:
            await asyncio.sleep(0.001)
        for body, headers in ((b" " * 2000, {}), (large, {"Content_Encoding": "gzip"})):
            status, _, answered = await server.post(body, **headers)
            assert (status, answered["Retry-After"]) == (429, "1")
        server.deliver.gate.set()
        assert (await task)[0] == 200
        assert (server.input._intake.held, server.input._intake._sizes) == (0, {})


async def test_an_address_leaves_room_for_others():
    async with Server(in_flight=1000, peer_share=0.1) as server:
        server.deliver.gate.clear()
        task = asyncio.create_task(server.post(b"[" + b" " * 200 + b"]"))
        while not server.input._intake.held:
            await asyncio.sleep(0.001)
        status, body, answered = await server.post(b'{"a":1}')
        assert (status, answered["Retry-After"]) == (429, "1")
        assert "127.0.0.1 has as many bytes in flight as one address may" in body["error"]
        assert ("peers_held_back", 1, {"input": "web"}) in server.counts
        server.deliver.gate.set()
        assert (await task)[0] == 200
        assert (await server.post(b'{"a":1}'))[0] == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [(gzip.compress(bytes(8 << 20)), "gzip", 413), (b"[" + b"1 " * 100_000, "", 400), (b"[1", "", 400)],
    ids=["inflated", "split in a thread", "split at once"],
)
async def test_a_refused_body_is_kept_by_no_traceback(body, encoding, status):
    async with Server() as server:
        gc.collect()
        gc.disable()
        try:
            assert (await server.post(body, "application/json", Content_Encoding=encoding or "identity"))[0] == status
            await asyncio.sleep(0)
            kept = [each.f_code.co_name for each in gc.get_objects() if isinstance(each, FrameType)]
        finally:
            gc.enable()
        assert not {"_in_thread", "work", "read", "_sent", "_parsed", "_take"} & {*kept}


async def test_large_bodies_are_worked_on_beside_the_event_loop():
    async with Server() as server, server.input._intake._working:
        task = asyncio.create_task(server.post(b'{"a":1}\n' * 20_000))
        assert (await server.post(b"{}"))[0] == 200
        assert not task.done()
        server.input._intake._working.release()
        assert (await task)[:2] == (200, {"stored": 20_000})
        await server.input._intake._working.acquire()


async def test_bodies_of_clients_that_are_gone_are_not_inflated(monkeypatch):
    monkeypatch.setattr(_bodies, "inflate", None)
    async with Server() as server, server.input._intake._inflating, server.input._intake._inflating:
        _, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
        writer.write(head)
        while not server.input._intake.held:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        await asyncio.sleep(0.02)
        server.input._intake._inflating.release()
        while server.input._intake.held:
            await asyncio.sleep(0.001)
        await server.input._intake._inflating.acquire()
        assert not server.deliver.batches


async def test_while_stopping_requests_under_way_end_well_and_new_ones_get_503():
    async with Server() as server:
        await server.post(b"{}")
        server.deliver.gate.clear()
        task = asyncio.create_task(server.post(b'{"last":1}'))
        await asyncio.sleep(0.05)
        server.input._stopping = True
        status, _, headers = await server.post(b"{}")
        assert (status, headers["Retry-After"]) == (503, "1")
        server.stop.set()
        await asyncio.sleep(0.01)
        server.deliver.gate.set()
        assert (await task)[0] == 200


async def test_a_request_of_a_client_that_does_not_know_of_the_stop_is_answered_and_its_connection_closed():
    async with Server() as server:
        await server.post(b"{}")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        server.stop.set()
        await asyncio.sleep(0.03)
        status, _, headers = await server.post(b"{}")
        assert (status, headers["Connection"]) == (200, "close")
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        assert b"200 OK" in await reader.read()
        writer.close()
        await server.task
        assert len(server.deliver.batches) == 3


async def test_connections_without_a_request_are_closed_a_moment_after_the_stop(monkeypatch):
    monkeypatch.setattr(_listen, "_GRACE", 0.05)
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.input.endpoint.ports[0])
        await server.post(b"{}")
        server.stop.set()
        await server.task
        assert await reader.read() == b""
        writer.close()


BASIC = base64.b64encode(b"ana:word").decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401), ({"Authorization": "Bearer no"}, 401), ({"Authorization": "Bearer t1"}, 200),
        ({"Authorization": f"basic {BASIC}"}, 200), ({"Authorization": "ApiKey k1"}, 200), ({"x_api_key": "k1"}, 200),
        ({"x_api_key": "t1"}, 401), ({"Authorization": "Bearer"}, 401), ({"Authorization": "Bearer \u00e9"}, 401),
    ],
)  # fmt: skip
async def test_who_may_send_is_checked(headers, status):
    async with Server(auth={"basic": {"ana": "word"}, "bearer": ["t1"], "api_keys": ["k1"]}) as server:
        found, _, answered = await server.post(b"{}", **headers)
        assert found == status
        assert ("WWW-Authenticate" in answered) is (status == 401)


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [("application/xml", b"<a/>", 415), ("application/json", b"[{", 400), ("application/json", b"", 200)],
)
async def test_what_cannot_be_split_is_refused_and_nothing_is_nothing(kind, data, status):
    async with Server() as server:
        assert (await server.post(data, kind))[0] == status
        assert not server.deliver.batches


async def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        context = Context("web", "host", positions=None)
        with pytest.raises(Unusable, match=rf"input web: can't listen on 127\.0\.0\.1:{port}: Address already in use"):
            await Http(Http.Options(listen=f"127.0.0.1:{port}"), context).run(Deliver(), asyncio.Event())


async def test_with_a_disk_buffer_nothing_is_refused():
    async with Server(buffer="disk") as server:
        status, _, _ = await server.post(b'!\n{"a":1}\n')
        assert status == 200
        assert list(server.deliver.stored.values()) == [b"!", b'{"a":1}']


@pytest.mark.parametrize("buffer", ["memory", "disk"])
async def test_of_a_request_with_a_malformed_record_nothing_is_taken_where_that_is_asked_for(buffer):
    async with Server(malformed="refuse_all", buffer=buffer) as server:
        status, body, _ = await server.post(b'{"a":1}\n\n{bad\n[2]\n')
        assert (status, body["stored"]) == (400, 0)
        assert [error["line"] for error in body["errors"]] == [3, 4]
        assert body["errors"][0]["reason"].startswith("JSONDecodeError: ")
        assert body["errors"][1]["reason"] == "TypeError: must be a JSON object, not an array"
        assert not server.deliver.batches
        assert (await server.post(b'{"a":1}\n\n{"b":2}\n'))[:2] == (200, {"stored": 2})


async def test_bulk_requests_are_answered_by_record_in_any_case():
    async with Server(malformed="refuse_all") as server:
        data = b'{"create":{}}\n{"a":1}\n{"create":{}}\n!\n'
        status, body, _ = await server.post(data, path="/_bulk")
        assert (status, [item["create"]["status"] for item in body["items"]]) == (200, [201, 400])
        assert list(server.deliver.stored.values()) == [b'{"a":1}']


async def test_logstashs_clients_are_never_refused():
    async with Server(malformed="refuse_all", compatible="logstash") as server:
        assert (await server.post(b"{bad"))[:2] == (200, b"ok")
        assert list(server.deliver.stored.values()) == [b"{bad"]


async def test_what_is_empty_or_blank_does_not_count():
    async with Server() as server:
        assert (await server.post(b" ", "application/json"))[:2] == (200, {"stored": 0})
        assert (await server.post(b""))[:2] == (200, {"stored": 0})
        assert (await server.post(b"\n{}\n \r\n{}\n"))[:2] == (200, {"stored": 2})


async def test_a_body_with_too_many_records_is_refused_whatever_its_size():
    async with Server(max_records=3) as server:
        for kind, body in [("application/x-ndjson", b"\n" * 9), ("application/json", b"[1,2,3,4]")]:
            status, answer, _ = await server.post(body, kind)
            assert (status, answer) == (413, {"error": "the body has more than 3 records"})
        assert not server.deliver.batches


async def test_text_stays_as_it_is_where_the_input_decodes_text():
    async with Server(decode="text") as server:
        await server.post(b"one\ntwo\n", "text/plain")
        assert list(server.deliver.stored.values()) == [b"one", b"two"]


async def test_what_logstash_has_no_codec_for_is_taken_as_text_in_its_mode():
    async with Server(compatible="logstash") as server:
        status, body, _ = await server.post(b"a=1", "application/x-www-form-urlencoded")
        assert (status, body) == (200, b"ok")
        assert list(server.deliver.stored.values()) == [b'{"message":"a=1"}']

import gzip
import zlib
from contextlib import suppress
from itertools import pairwise

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs._bodies import Body, BodyError, bulk, bulk_answer, inflate, joined, split

LIMIT = 1 << 20


MOST = 100


def texts(body: Body) -> list[bytes]:
    if body.ends is None:
        return body.block.split(b"\n")
    ends = [0, *body.ends]
    return [body.block[a:b] for a, b in pairwise(ends)]


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl"])
def test_ndjson_is_taken_as_it_is(kind):
    body = split(kind, b'{"a":1}\n{"b":2}', MOST, text=False)
    assert (body.block, body.ends, body.count()) == (b'{"a":1}\n{"b":2}', None, 2)


def test_a_json_object_is_one_record_also_over_several_lines():
    assert texts(split("application/json", b'{\n "a": 1\n}', MOST, text=False)) == [b'{\n "a": 1\n}']


def test_each_element_of_a_json_array_is_a_record_in_its_own_bytes():
    body = split("application/vnd.x+json", b' [ {"a": 1.50}, {"b":\n[2]} , 3]', MOST, text=False)
    assert texts(body) == [b'{"a": 1.50}', b'{"b":\n[2]}', b"3"]
    assert body.count() == 3


def test_a_broken_array_is_refused_as_a_whole():
    with pytest.raises(BodyError, match="no valid JSON") as error:
        split("application/json", b'[{"a":1}, {', MOST, text=False)
    assert error.value.status == 400


def test_lines_of_text_become_messages_unless_the_input_decodes_text():
    data = "grüße\r\n\nzwei".encode()
    assert texts(split("text/plain", data, MOST, text=False)) == [
        '{"message":"grüße"}'.encode(),
        b'{"message":"zwei"}',
        b"",
    ]
    assert split("text/plain", data, MOST, text=True).block == data


def test_another_type_of_content_is_refused_with_what_to_send():
    with pytest.raises(BodyError, match="application/x-ndjson") as error:
        split("application/xml", b"<a/>", MOST, text=False)
    assert error.value.status == 415


BULK = b"""{"create":{"_index":"a","_id":"1"}}
{"x":1}
{"index":{}}
{"x":2}
{"delete":{"_id":"3"}}
{"update":{"_id":"4"}}
{"doc":{}}

{"create":{"_id":"5"}}
{"x":5}
"""


def test_a_bulk_request_gives_its_documents_with_their_ids():
    body = bulk(BULK, "default", MOST)
    assert texts(body) == [b'{"x":1}', b'{"x":2}', b'{"x":5}']
    assert body.ids == ["1", None, "5"]
    assert [(item.action, item.index, bool(item.error)) for item in body.items] == [
        ("create", "a", False), ("index", "default", False), ("delete", "default", True), ("update", "default", True),
        ("create", "default", False),
    ]  # fmt: skip


def test_a_bulk_answer_has_an_item_for_each_action():
    answer = orjson.loads(bulk_answer(bulk(BULK, "d", MOST), {1: "bad"}, 7))
    assert (answer["took"], answer["errors"]) == (7, True)
    assert [next(iter(item.values()))["status"] for item in answer["items"]] == [201, 400, 400, 400, 201]
    assert answer["items"][1]["index"]["error"] == {"type": "document_parsing_exception", "reason": "bad"}
    fine = orjson.loads(bulk_answer(bulk(BULK[:44], "d", MOST), {}, 0))
    assert not fine["errors"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nonsense\n{}\n", "action 1: malformed"), (b"[]\n{}\n", "action 1: malformed"),
        (b'{"create":{},"index":{}}\n', "action 1: malformed"), (b'{"upsert":{}}\n', "unknown action 'upsert'"),
        (b'{"create":1}\n', "unknown action"), (b'{"create":{}}\n', "document of the last action is missing"),
    ],
)  # fmt: skip
def test_a_bulk_request_that_cannot_be_understood_is_refused(data, message):
    with pytest.raises(BodyError, match=message) as error:
        bulk(data, "", MOST)
    assert error.value.status == 400


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@given(st.binary(), st.sampled_from(["gzip", "x-gzip", "deflate", "bare", "zstd", "gzip, zstd", "identity", ""]))
def test_every_encoding_gives_back_what_was_packed(data, encoding):
    packed = {
        "gzip": gzip.compress(data), "x-gzip": gzip.compress(data), "deflate": zlib.compress(data),
        "bare": bare_deflate(data), "zstd": zstandard.compress(data),
        "gzip, zstd": zstandard.compress(gzip.compress(data)),
        "identity": data, "": data,
    }[encoding]  # fmt: skip
    assert inflate(packed, encoding.replace("bare", "deflate"), LIMIT, 100) == data


def test_gzip_may_have_several_members():
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", LIMIT, 100) == b"ab"


@given(st.binary(min_size=1), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_damaged_bodies_are_refused_and_never_anything_else(data, encoding):
    with suppress(BodyError):
        inflate(data, encoding, LIMIT, 100)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_was_cut_off_is_refused(encoding):
    data = bytes(range(256)) * 50
    whole = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    with pytest.raises(BodyError, match="too early") as error:
        inflate(whole[:-20], encoding, LIMIT, 100)
    assert error.value.status == 400


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, zstandard.compress])
def test_a_bomb_is_refused_before_it_is_inflated(pack):
    encoding = {gzip.compress: "gzip", zlib.compress: "deflate", zstandard.compress: "zstd"}[pack]
    with pytest.raises(BodyError, match="larger than") as error:
        inflate(pack(bytes(64 << 20)), encoding, 32 << 20, 100)
    assert error.value.status == 413


def test_a_small_body_may_grow_to_a_mebibyte_whatever_its_ratio():
    assert len(inflate(gzip.compress(bytes(LIMIT)), "gzip", 32 << 20, 2)) == LIMIT


def test_an_unknown_encoding_is_refused():
    with pytest.raises(BodyError, match="'br'") as error:
        inflate(b"", "br", LIMIT, 1)
    assert error.value.status == 415


def test_records_are_joined_with_their_ends():
    assert joined([b"ab", b"", b"c"])[0] == b"abc"
    assert list(joined([b"ab", b"", b"c"])[1]) == [2, 2, 3]


@pytest.mark.parametrize(
    ("kind", "data"), [("application/json", b"[" + b"{}," * 200 + b"{}]"), ("text/plain", b"a\n" * 200)]
)
def test_what_has_far_too_many_records_is_refused_before_it_is_split(kind, data):
    with pytest.raises(BodyError, match="more than 100 records") as raised:
        split(kind, data, MOST, text=False)
    assert raised.value.status == 413


def test_a_bulk_request_is_read_no_further_than_it_may_have_actions():
    with pytest.raises(BodyError, match="more than 100 records"):
        bulk(BULK * 100 + b"no action\n", "", MOST)


def test_json_with_far_more_values_than_records_is_not_parsed():
    """A list of empty lists takes thirty times its size when it is parsed."""
    with pytest.raises(BodyError, match="more than 100000 JSON values") as raised:
        split("application/json", b"[" + b"[]," * 200_000 + b"[]]", MOST, text=False)
    assert raised.value.status == 413

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Documents, bulk
from pipeline.outputs._answers import Failed, Kind, fates, summary
from pipeline.outputs.bulk import Request


def payload(**indices: int) -> list[Documents]:
    """Documents `{"n":0}` … with ids `index-0` … for each index."""
    return [bulk(index, [(f"{index}-{n}", b'{"n":%d}' % n) for n in range(count)]) for index, count in indices.items()]


def answer(*items: dict[str, Any], errors: bool = True) -> bytes:
    return orjson.dumps({"errors": errors, "items": [{"create": item} for item in items]})


def error(status: int, type_: str = "x_exception", reason: str = "because", **more: Any) -> dict[str, Any]:
    return {"status": status, "error": {"type": type_, "reason": reason, **more}}


STORED = {"status": 201}


# --- answers about each document ---


@pytest.mark.parametrize(
    "text",
    [
        b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}',
        (
            b'{"took":30,"ingest_took":2,"errors":false,"items":[{"create":{"_index":"a","_id":"1","_version":1,"result":'
            b'"created","_shards":{"total":2,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}},'
            b'{"create":{"_id":"2","status":201}}]}'
        ),
        b'{ "errors" : false, "items" : [ {"create": {"status": 200}}, {"create": {"status": 201}} ] }',
    ],
)
def test_stored_documents_are_counted(text: bytes):
    result = fates(Request(payload(a=2)), 200, text)
    assert (result.stored, result.decided, result.again, result.indices) == (2, 2, [], {"a"})


def test_what_the_failure_store_took_is_stored_and_counted_apart():
    text = answer(STORED, {"status": 201, "failure_store": "used"}, errors=False)
    result = fates(Request(payload(a=2)), 200, text)
    assert (result.stored, result.failure_store) == (2, 1)


def test_a_version_conflict_means_that_it_is_there():
    text = answer(STORED, error(409, "version_conflict_engine_exception"))
    result = fates(Request(payload(a=2)), 200, text)
    assert (result.stored, result.already, result.decided) == (1, 1, 2)


AGAIN = [
    (error(429, "es_rejected_execution_exception"), Kind.BUSY),
    (error(429, "circuit_breaking_exception"), Kind.BUSY),
    (error(409, "some_other_conflict"), Kind.BUSY),
    ({}, Kind.BUSY),
    (error(503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];"), Kind.BUSY),
    (error(403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];"), Kind.READ_ONLY),
    (error(429, "cluster_block_exception", "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk];"), Kind.BLOCKED),
    (error(404, "index_not_found_exception", "no such index [a]"), Kind.BLOCKED),
    (error(400, "index_closed_exception", "closed"), Kind.BLOCKED),
    (error(400, "illegal_argument_exception", "pipeline with id [p] does not exist"), Kind.BLOCKED),
    (error(400, "illegal_argument_exception", "no write index is defined for alias [a]."), Kind.BLOCKED),
    (error(400, "validation_exception", "currently has [5]/[1] maximum normal shards open;"), Kind.BLOCKED),
    (error(503, "unavailable_shards_exception"), Kind.BLOCKED),
    (error(403, "some_other_exception"), Kind.BLOCKED),
    (error(403, "security_exception"), Kind.DENIED),
    (error(401, "some_exception"), Kind.DENIED),
    (error(500, "null_pointer_exception"), Kind.FAULT),
    ({"status": 500, "error": "NullPointerException[null]"}, Kind.FAULT),
]


@pytest.mark.parametrize(
    ("action", "privilege"),
    [
        ("indices:data/write/bulk[s]", "create_doc on the index, and auto_configure"),
        ("indices:admin/auto_create", "auto_configure on the index"),
        ("indices:admin/mapping/auto_put", "auto_configure on the index"),
        ("indices:data/read/mget", "read on the index"),
        ("indices:admin/settings/update", "manage on the index"),
        ("indices:monitor/settings/get", "view_index_metadata on the index"),
        ("cluster:admin/ilm/get", "read_ilm on the cluster"),
    ],
)
def test_a_refusal_for_want_of_a_privilege_names_it(action: str, privilege: str):
    reason = f"action [{action}] is unauthorized for API key id [x] of user [y] on indices [a]"
    (again,) = fates(Request(payload(a=1)), 200, answer(error(403, "security_exception", reason))).again
    assert again.kind is Kind.DENIED
    assert f"needs the privilege {privilege}" in again.reason
    whole = orjson.dumps({"error": {"root_cause": [], "type": "security_exception", "reason": reason}})
    with pytest.raises(Failed, match=f"needs the privilege {privilege}"):
        fates(Request(payload(a=1)), 403, whole)


@pytest.mark.parametrize(("item", "kind"), AGAIN)
def test_what_may_pass_is_to_be_sent_again(item: dict[str, Any], kind: Kind):
    result = fates(Request(payload(a=2)), 200, answer(STORED, item))
    (again,) = result.again
    assert (again.kind, again.documents) == (kind, bulk("a", [("a-1", b'{"n":1}')]))
    assert again.reason.startswith("index a: ")
    assert (result.stored, result.refused) == (1, [])


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        (error(403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];"), "read-only"),
        (error(429, "cluster_block_exception", "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk];"), "make room"),
        (error(400, "index_closed_exception", "closed"), "_open"),
        (error(404, "index_not_found_exception", "no such index [a]"), "create the index"),
        (error(403, "security_exception", "unauthorized"), "create_doc"),
        (error(400, "validation_exception", "currently has [5]/[1] maximum normal shards open;"), "max_shards"),
    ],
)
def test_the_reason_says_what_to_do(item: dict[str, Any], advice: str):
    result = fates(Request(payload(a=1)), 200, answer(item))
    assert advice in result.again[0].reason


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (
            error(
                400,
                "document_parsing_exception",
                "failed to parse field [n] of type [long]",
                caused_by={"type": "illegal_argument_exception", "reason": 'For input string: "x"'},
            ),
            (
                "document_parsing_exception: failed to parse field [n] of type [long];"
                ' caused by illegal_argument_exception: For input string: "x"'
            ),
        ),
        (error(404, "document_missing", "gone"), "document_missing: gone"),
        ({"status": 418, "error": "a text"}, "a text"),
        ({"status": 418}, "status 418"),
    ],
)
def test_what_will_never_be_taken_is_refused_with_its_reason(item: dict[str, Any], reason: str):
    result = fates(Request(payload(a=1, b=1)), 200, answer(STORED, item))
    (refused,) = result.refused
    assert (refused.index, refused.id, refused.document, refused.reason) == ("b", "b-0", b'{"n":0}', reason)
    assert (result.decided, result.indices) == (2, {"a"})


def test_documents_to_be_sent_again_are_grouped_by_index_and_kind():
    full, lost = error(429), error(503, "unavailable_shards_exception")
    result = fates(Request(payload(a=3, b=1)), 200, answer(full, lost, full, full))
    groups = [(again.documents.index, again.kind, again.documents.count) for again in result.again]
    assert groups == [("a", Kind.BUSY, 2), ("a", Kind.BLOCKED, 1), ("b", Kind.BUSY, 1)]
    assert [id_ for id_, _ in result.again[0].documents.pairs()] == ["a-0", "a-2"]


@given(st.lists(st.sampled_from([STORED, error(409, "version_conflict_x"), error(400), *(each for each, _ in AGAIN)])))
def test_every_document_has_one_fate(items: list[dict[str, Any]]):
    result = fates(Request(payload(a=len(items))), 200, answer(*items))
    assert result.decided + sum(again.documents.count for again in result.again) == len(items)


# --- answers about the whole request ---

UNKNOWN = [
    b"",
    b"<html>",
    b"[]",
    b"7",
    b"{}",
    b'{"items":7}',
    b'{"items":[7,7]}',
    b'{"items":[{},{}]}',
    b'{"items":[{"create":7},{"create":8}]}',
    answer(STORED, errors=False),
    answer(STORED, STORED, STORED, errors=False),
    answer(STORED, STORED, errors=False)[:-20],
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_answer_that_is_none_decides_nothing(text: bytes):
    with pytest.raises(Failed) as caught:
        fates(Request(payload(a=2)), 200, text)
    assert caught.value.kind is Kind.ODD


@given(st.binary(max_size=200), st.integers(200, 599))
def test_whatever_is_answered_is_judged(text: bytes, status: int):
    with pytest.raises(Failed):
        fates(Request(payload(a=2)), status, text)


@given(st.integers(0, 300))
def test_a_cut_answer_never_stores_more_than_it_says(length: int):
    whole = answer(*[STORED] * 9, errors=False)
    text = whole[:length]
    try:
        result = fates(Request(payload(a=9)), 200, text)
    except Failed:
        assert text.count(b"201") < 9
    else:
        assert result.stored == 9
        assert text.count(b"201") == 9


REFUSED_AS_A_WHOLE = (
    b'{"error":{"root_cause":[],"type":"action_request_validation_exception","reason":"no"},"status":400}'
)


@pytest.mark.parametrize(
    ("status", "text", "kind", "reason"),
    [
        (413, b"", Kind.TOO_LARGE, "larger"),
        (
            401,
            b'{"error":{"type":"security_exception","reason":"missing"}}',
            Kind.DENIED,
            "security_exception: missing",
        ),
        (403, b'{"error":"no"}', Kind.DENIED, "answers 403: no"),
        (429, b"", Kind.BUSY, "429"),
        (503, b"<html>proxy", Kind.BUSY, "<html>proxy"),
        (400, REFUSED_AS_A_WHOLE, Kind.MALFORMED, "action_request_validation_exception: no"),
        (400, b'{"root_cause":1,"error":{"type":"media_type_header_exception","reason":"x"}}', Kind.ODD, "media"),
        (400, b"<html>plain HTTP to the HTTPS port", Kind.ODD, "is that the address"),
        (404, b"\xff", Kind.ODD, "404"),
        (302, b"", Kind.ODD, "302"),
    ],
)
def test_the_status_of_a_request_says_what_to_do(status: int, text: bytes, kind: Kind, reason: str):
    with pytest.raises(Failed, match=r"answers \d+") as caught:
        fates(Request(payload(a=1)), status, text)
    assert caught.value.kind is kind
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        (
            (
                "document_parsing_exception: [1:6] failed to parse field [n] of type [long] in document with id 'x'."
                " Preview of field's value: 'secret'; caused by y: For input string: \"secret\""
            ),
            "document_parsing_exception: failed to parse field [n] of type [long]",
        ),
        ("a: failed. Preview of field's value: 'secret'", "a: failed"),
        ("a: b; caused by c: secret", "a: b"),
        ("a: b", "a: b"),
    ],
)
def test_a_summary_is_the_same_for_all_documents_and_shows_none(reason: str, short: str):
    assert summary(reason) == short

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Documents, bulk
from pipeline.outputs.bulk import Request, requests


def payload(**indices: int) -> list[Documents]:
    """Documents `{"n":0}` … with ids `index-0` … for each index."""
    return [bulk(index, [(f"{index}-{n}", b'{"n":%d}' % n) for n in range(count)]) for index, count in indices.items()]


def ids(*parts: Request) -> list[str]:
    return [id_ for part in parts for section in part.sections for id_, _ in section.pairs()]


def test_what_fits_is_one_request_of_the_very_sections():
    sections = payload(a=2, b=1)
    (request,) = requests(sections, 1 << 20)
    assert request.sections == sections
    assert b"".join(request.body()) == sections[0].body + sections[1].body
    assert request.count == 3


def test_nothing_to_send_is_no_request():
    assert requests([], 1000) == []
    assert requests([Documents("a", b"", 0)], 1000) == []


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)), st.integers(1, 400))
def test_requests_keep_every_document_in_order_and_the_limit(counts: dict[str, int], limit: int):
    parts = requests(payload(**counts), limit)
    assert ids(*parts) == [f"{index}-{n}" for index, count in counts.items() for n in range(count)]
    assert all(part.count == 1 or len(b"".join(part.body())) <= limit for part in parts)
    assert all(len(ids(part)) == part.count for part in parts)


def test_a_document_larger_than_the_limit_goes_alone():
    sections = [bulk("a", [("1", b"{}"), ("2", b'"%s"' % (b"x" * 500)), ("3", b"{}")])]
    assert [ids(part) for part in requests(sections, 100)] == [["1"], ["2"], ["3"]]


@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1))
def test_halves_are_all_documents_in_two_parts(counts: dict[str, int]):
    request = Request(payload(**counts))
    first, second = request.halves()
    assert ids(first, second) == ids(request)
    assert first.count == request.count // 2


def test_ids_can_be_left_out():
    request = Request(payload(a=2))
    assert (
        b"".join(request.body(ids=False)) == b'{"create":{"_index":"a"}}\n{"n":0}\n{"create":{"_index":"a"}}\n{"n":1}\n'
    )


def test_lines_are_index_action_and_document():
    assert list(Request(payload(a=1, b=1)).lines()) == [
        ("a", b'{"create":{"_index":"a","_id":"a-0"}}', b'{"n":0}'),
        ("b", b'{"create":{"_index":"b","_id":"b-0"}}', b'{"n":0}'),
    ]

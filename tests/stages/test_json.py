import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.json import Json

strict = Json(Json.Options())
lenient = Json(Json.Options(malformed="keep"))


def test_records_become_events_in_order():
    assert strict.decode([b'{"a":1}', b'{"b":[true,null,"\xc3\xa9"]}']) == [{"a": 1}, {"b": [True, None, "é"]}]
    assert strict.decode([]) == []


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


MALFORMED = [
    b"",
    b"plain text",
    b'{"a":1',
    b'{"a":1}}',
    b'{"a":1} {"b":2}',
    b"{'a':1}",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":1e999}',
    b'{"a":01}',
    b'{"a":"\t"}',
    b'{"a":1,}',
    b'{"a":"\\x"}',
    nested(1100),
    b"\xef\xbb\xbf",
    b"\xff\xfe{\x00}\x00",
]
NO_OBJECT = {
    b"[1]": "an array",
    b"null": "null",
    b'"a"': "a text",
    b"1": "a number",
    b"1.5": "a number",
    b"true": "a boolean",
}


@pytest.mark.parametrize("record", MALFORMED)
def test_what_is_no_json_is_an_error(record):
    with pytest.raises(orjson.JSONDecodeError):
        strict.decode([b"{}", record])


@pytest.mark.parametrize("record", NO_OBJECT)
def test_what_is_no_object_is_an_error(record):
    with pytest.raises(TypeError, match=f"must be a JSON object, not {NO_OBJECT[record]}"):
        strict.decode([b"{}", record])


@pytest.mark.parametrize("record", [*MALFORMED, *NO_OBJECT])
def test_what_is_malformed_is_kept_as_text_and_tagged_when_asked(record):
    first, event = lenient.decode([b'{"a":1}', record])
    assert first == {"a": 1}
    assert event["message"] == record.decode(errors="replace")
    assert event["tags"] == ["_malformed_json", "_not_utf8"] if b"\xff" in record else ["_malformed_json"]


ODD = {
    b'{"a":"caf\xe9","tags":["x"]}': {"a": "caf\ufffd", "tags": ["x", "_not_utf8"]},
    b'{"caf\xe9":1}': {"caf\ufffd": 1, "tags": ["_not_utf8"]},
    rb'{"a":"cut \ud83d"}': {"a": "cut \ufffd", "tags": ["_not_utf8"]},
    rb'{"a":"\uDE00 cut"}': {"a": "\ufffd cut", "tags": ["_not_utf8"]},
    rb'{"a":"\ud83d\ud83d\ude00"}': {"a": "\ufffd😀", "tags": ["_not_utf8"]},
    rb'{"a":"\ud83d","b":"\\ud83d \ud83d\ude00 \" \n"}': {"a": "\ufffd", "b": '\\ud83d 😀 " \n', "tags": ["_not_utf8"]},
    rb'{"a":"\ud83d\ude00"}': {"a": "😀"},
    b'\xef\xbb\xbf{"a":1}': {"a": 1},
    b'\xef\xbb\xbf{"@id":1}': {"id_original": 1},
    b' {"a": 1}\t': {"a": 1},
    b'{"a":1,"a":2}': {"a": 2},
    b'{"a":18446744073709551615,"b":-9223372036854775808}': {"a": 2**64 - 1, "b": -(2**63)},
    b'{"a":18446744073709551616}': {"a": 18446744073709551616.0},
    b'{"a":123456789012345678901234567890}': {"a": 1.2345678901234568e29},
    b'{"a":"\\u0000"}': {"a": "\x00"},
    b'{"@id":1,"@index":"x","@raw":null}': {"id_original": 1, "index_original": "x", "@raw": None},
    b'{"\\u0040id":1}': {"id_original": 1},
    b'{"@id":1,"id_original":2}': {"id_original": 2, "id_original_original": 1},
    b'{"a":{"@id":1}}': {"a": {"@id": 1}},
    b"{}": {},
}


@pytest.mark.parametrize("record", ODD)
@pytest.mark.parametrize("decoder", [strict, lenient])
@pytest.mark.parametrize("beside", [[], [b"\xef\xbb\xbf{}"]])
def test_what_is_odd_is_read_in_one_way(record, decoder, beside):
    assert decoder.decode([*beside, record])[-1] == ODD[record]


def test_deep_nesting_is_read_up_to_a_thousand_levels():
    (event,) = strict.decode([nested(1000)])
    assert list(event) == ["a"]


def test_tags_that_are_an_object_can_not_be_marked():
    with pytest.raises(TypeError, match="tags is an object"):
        strict.decode([b'{"a":"\xff","tags":{"x":1}}'])


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text().filter(lambda key: not key.startswith("@")), _JSON)))
def test_what_json_can_hold_is_decoded_as_it_was(events):
    assert strict.decode([orjson.dumps(event) for event in events]) == events


@given(st.binary() | st.text().map(str.encode) | st.binary().map(lambda part: b'{"a":"' + part + b'"}'))
def test_any_bytes_can_be_kept(record):
    (event,) = lenient.decode([record])
    assert orjson.dumps(event)


@given(st.text(alphabet='\\ud83cDE0a"n', max_size=30))
def test_half_pairs_are_mended_without_touching_anything_else(text):
    record = b'{"a":"' + text.encode() + b'"}'
    try:
        (event,) = strict.decode([record])
    except orjson.JSONDecodeError:
        return
    if "tags" in event:
        assert "\ufffd" in event["a"]
    else:
        assert event == orjson.loads(record)


def test_json_in_a_field_goes_into_the_event():
    stage = Json(Json.Options())
    event = {"message": '{"a":1,"level":"warn","@id":"x"}', "level": "info", "@id": "real"}
    assert stage([event]) == [{"a": 1, "level": "warn", "id_original": "x", "@id": "real"}]


def test_a_message_inside_the_message_takes_its_place():
    assert Json(Json.Options())([{"message": '{"message":"inner"}'}]) == [{"message": "inner"}]


@pytest.mark.parametrize("event", [{}, {"message": None}, {"message": {"a": 1}}, {"message": 5}])
def test_a_field_without_text_is_left_alone(event):
    assert Json(Json.Options())([dict(event)]) == [event]


@pytest.mark.parametrize("value", [1, [1, 2], {"b": 1}, "text", None])
def test_with_a_target_any_json_goes_there_and_the_field_stays(value):
    text = orjson.dumps(value).decode()
    stage = Json(Json.Options(field="log.original", target="parsed.body"))
    event = {"log": {"original": text}}
    assert stage([event]) == [{"log": {"original": text}, "parsed": {"body": value}}]


def test_repaired_text_in_a_field_is_tagged():
    assert Json(Json.Options())([{"message": r'{"a":"\ud83d"}'}]) == [{"a": "\ufffd", "tags": ["_not_utf8"]}]


@pytest.mark.parametrize("text", ["plain", "", "{", "[1]", "5"])
def test_text_that_is_no_object_is_an_error_or_kept_and_tagged(text):
    with pytest.raises((TypeError, orjson.JSONDecodeError)):
        Json(Json.Options())([{"message": text}])
    kept = Json(Json.Options(malformed="keep"))
    assert kept([{"message": text, "tags": ["a"]}]) == [{"message": text, "tags": ["a", "_malformed_json"]}]


@pytest.mark.parametrize("options", [{"malformed": "drop"}, {"field": ""}, {"target": "@id"}, {"target": ""}])
def test_a_wrong_option_is_an_error(options):
    with pytest.raises(ValidationError):
        Json.Options(**options)

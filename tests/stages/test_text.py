import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text import Text

decode = Text(Text.Options()).decode


@pytest.mark.parametrize("text", ["", "plain", "größer ✓", "a\tb", '{"a": 1}', "\x00"])
def test_a_record_is_a_message(text):
    assert decode([text.encode()]) == [{"message": text}]


def test_what_is_not_utf_8_is_replaced_and_tagged_and_the_others_are_not():
    assert decode([b"good", b"caf\xe9", "é".encode()]) == [
        {"message": "good"},
        {"message": "caf\ufffd", "tags": ["_not_utf8"]},
        {"message": "é"},
    ]


@given(st.lists(st.binary()))
def test_any_bytes_become_an_event_each(records):
    events = decode(records)
    assert [event["message"].encode() == record for event, record in zip(events, records, strict=True)] == [
        "tags" not in event for event in events
    ]

import pytest

from pipeline.bodies import Bodies, number_ids
from pipeline.contract import ID, INDEX, METADATA, Batch


def bodies(**more: object) -> Bodies:
    return Bodies(Batch("in", b"", "source", **more))  # type: ignore[arg-type]


def test_a_whole_event_is_written_without_what_is_reserved():
    index, line = bodies().encode({INDEX: "i", ID: "source-7", METADATA: {}, "a": 1})
    assert (index, b"".join(line)) == ("i", b'{"create":{"_index":"i","_id":"source-7"}}\n{"a":1}\n')


def test_an_id_of_a_client_is_escaped():
    _, line = bodies(ids=["x"]).encode({INDEX: "i", ID: 'a"b'})
    assert b'"_id":"a\\"b"' in b"".join(line)


def test_an_event_without_an_index_says_what_is_missing():
    with pytest.raises(ValueError, match="add a route stage"):
        bodies().encode({ID: "x"})


def test_lines_are_put_together_by_index_in_their_order():
    made = bodies()
    made.add_all(["i", "j", "i"], [(b"1\n", b"a\n"), (b"2\n", b"b\n"), (b"3\n", b"c\n")])
    made.add("j", (b"4\nd\n",))
    parts = [(part.index, part.body, part.count) for part in made.documents()]
    assert parts == [("i", b"1\na\n3\nc\n", 2), ("j", b"2\nb\n4\nd\n", 2)]


def test_the_beginning_of_action_lines_is_made_once_an_index():
    made = bodies()
    first = made.heads(["i", "i"])
    assert first == [b'{"create":{"_index":"i","_id":"source-'] * 2
    assert made.heads(["i"])[0] is first[0]


def test_events_of_one_record_get_numbered_ids():
    events = [{ID: "a"}, {ID: "b"}, {ID: "a"}]
    number_ids(events)
    assert [event[ID] for event in events] == ["a.1", "b", "a.2"]

from pipeline.failure import Failure, failure


def fails(text: str) -> Failure:
    try:
        number(text)
    except ValueError as error:
        return failure(3, "upper", error)
    raise AssertionError


def number(text: str) -> None:
    numbers = {"one": 1}
    try:
        numbers[text]
    except KeyError as error:
        raise ValueError(text) from error


def test_it_says_what_where_and_what_led_to_it():
    found = fails("then")
    assert (found.record, found.stage, found.reason) == (3, "upper", "ValueError: then")
    before, _, after = found.traceback.partition("That led to:")
    assert "KeyError: 'then'" in before
    assert ", in number" in after
    assert after.endswith("ValueError: then")


def test_the_same_reason_of_many_records_is_one_object_which_goes_to_the_daemon_once():
    one, other = fails("same"), fails("same")
    assert one.reason is other.reason
    assert one.traceback is other.traceback

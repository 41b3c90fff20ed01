import pytest
from pydantic import ValidationError

from stages.drop import Drop


def test_all_that_it_is_given_is_dropped():
    assert Drop(Drop.Options())([{"a": 1}, {}]) == []


@pytest.mark.parametrize("percent", [1, 25, 90])
def test_a_part_is_dropped_and_the_same_one_each_time(percent):
    events = [{"@id": f"log-{n * 560}"} for n in range(20_000)]
    kept = Drop(Drop.Options(percent=percent))(events)
    assert len(kept) == pytest.approx(200 * (100 - percent), rel=0.1)
    assert Drop(Drop.Options(percent=percent))(list(reversed(events))) == list(reversed(kept))


def test_what_a_small_part_drops_a_larger_one_drops_too():
    events = [{"@id": str(n)} for n in range(1000)]
    small, large = (Drop(Drop.Options(percent=percent))(events) for percent in (20, 60))
    assert all(event in small for event in large)


def test_it_needs_no_field():
    stage = Drop(Drop.Options())
    assert stage.reads == stage.adds == frozenset()


@pytest.mark.parametrize("percent", [0, -1, 101, "half"])
def test_a_wrong_percentage_is_an_error(percent):
    with pytest.raises(ValidationError):
        Drop.Options(percent=percent)

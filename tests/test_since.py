from unittest import mock

from pipeline.since import Since


def test_the_oldest_of_what_goes_on_is_told_and_what_has_ended_is_not():
    since = Since()
    with mock.patch("time.time", side_effect=[1.0, 2.0, 3.0]), since.during("a"):
        with since.during("a"), since.during("b"):
            assert since.oldest() == {"a": 1.0, "b": 3.0}
        assert since.oldest() == {"a": 1.0}
    assert since.oldest() == {}

import pytest

from pipeline.patterns import finder


def test_the_first_pattern_that_is_found_is_told():
    find = finder(["b+", "a", ""])
    assert [find(text) for text in (b"xbb", b"ab", b"a", b"x", b"")] == [0, 0, 1, 2, 2]


def test_without_patterns_nothing_is_found():
    assert finder([])(b"anything") == -1


def test_anchors_are_those_of_the_text():
    find = finder(["^b", "a$"])
    assert [find(text) for text in (b"b", b"ab", b"a", b"ba", b"a\nb")] == [0, -1, 1, 0, -1]


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)b", "a{1,99999}"])
def test_a_pattern_that_is_bad_or_not_linear_is_refused(pattern):
    with pytest.raises(ValueError, match=r"\w"):
        finder([pattern])


def test_a_pattern_that_would_take_others_for_ever_is_linear():
    assert finder(["^(a+)+$"])(b"a" * 100_000 + b"b") == -1

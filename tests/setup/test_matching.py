"""Which template an index is made by."""

import pytest

from pipeline.setup.matching import first, fits, sample


def test_the_highest_priority_wins():
    templates = {
        "a": {"index_patterns": ["x-*"], "priority": 1},
        "b": {"index_patterns": ["y", "x-y-*"], "priority": 2},
        "c": {"index_patterns": ["x-*"]},
    }
    assert first(templates, "x-y-z") == "b"
    assert first(templates, "x-z") == "a"
    assert first(templates, "z") is None


@pytest.mark.parametrize(
    ("index", "pattern", "fit"),
    [("a.b", "a.b", True), ("aXb", "a.b", False), ("a-b-c", "a-*-c", True), ("ac", "a*c", True), ("acd", "a*c", False)],
)
def test_only_the_star_is_special(index, pattern, fit):
    assert fits(index, [pattern]) is fit


@pytest.mark.parametrize("pattern", ["aio-logs-20*.*.*", "aio-logs-*-20*.*.*", "aio-logs-undated-0*", "aio-logs"])
def test_a_sample_is_of_its_pattern(pattern):
    assert fits(sample(pattern), [pattern])

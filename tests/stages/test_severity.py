from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.contract import Event
from stages.severity import Severity


def severity(level: object, **options: Any) -> Any:
    (event,) = Severity(Severity.Options(**options))([{"level": level}])
    return event["severity"]


WORDS = {
    "trace": 1, "silly": 1, "finest": 1,
    "debug": 5, "verbose": 6, "http": 6,
    "info": 9, "information": 9, "informational": 9, "notice": 10,
    "warn": 13, "warning": 13,
    "error": 17, "err": 17, "crit": 18, "alert": 19,
    "fatal": 21, "critical": 21, "emerg": 21, "emergency": 21, "panic": 21,
    "trace4": 4, "debug2": 6, "info3": 11, "warn4": 16, "error2": 18, "fatal4": 24,
    "E": 17, "w": 13,
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_has_its_number_in_any_letter_case(word):
    forms = [word, word.upper(), word.capitalize(), f" {word}\n", word.swapcase(), f"\x1b[32m{word}\x1b[39m"]
    assert {severity(form) for form in forms} == {WORDS[word]}


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ("pino", {10: 1, 20: 5, 30: 9, 35: 9, 40: 13, 50: 17, 60: 21, 69: 21}),
        ("python", {10: 5, 20: 9, 25: 9, 30: 13, 40: 17, 50: 21, 59: 21}),
        ("syslog", {0: 21, 1: 19, 2: 18, 3: 17, 4: 13, 5: 10, 6: 9, 7: 5}),
        ("otel", {1: 1, 9: 9, 24: 24}),
    ],
)
def test_a_number_means_what_the_option_says(numbers, known):
    assert {n: severity(n, numbers=numbers) for n in known} == known
    assert {n: severity(str(n), numbers=numbers) for n in known} == known


@pytest.mark.parametrize(
    "level", ["loud", "", None, 5, 70, -10, 0, 30.5, True, ["info"], {"a": 1}, "030303", "٣٠", "9" * 5000]
)
def test_an_unknown_level_is_0(level):
    assert severity(level) == 0


@pytest.mark.parametrize(("numbers", "level"), [("syslog", True), ("syslog", False), ("otel", True)])
def test_a_boolean_is_no_number(numbers, level):
    assert severity(level, numbers=numbers) == 0


def test_a_number_that_the_record_brings_stays_where_the_level_is_missing():
    stage = Severity(Severity.Options())
    own: list[Event] = [{"severity": 13}, {"severity": 13, "level": "loud"}, {"severity": 13, "level": "error"}]
    assert [event["severity"] for event in stage(own)] == [13, 13, 17]
    wrong: list[Event] = [{"severity": "ERROR"}, {"severity": 25}, {"severity": True}, {"severity": 0}]
    assert [event["severity"] for event in stage(wrong)] == [0, 0, 0, 0]


def test_field_and_target_may_be_named():
    stage = Severity(Severity.Options(field="log.level", target="n"))
    assert stage([{"log": {"level": "warn"}}, {"log.level": "warn"}]) == [
        {"log": {"level": "warn"}, "n": 13},
        {"log.level": "warn", "n": 13},
    ]
    assert stage.reads == {"log", "log.level", "n"}
    assert stage.adds == {"n"}


@pytest.mark.parametrize("options", [{"numbers": "winston"}, {"target": "a.b"}, {"target": "@id"}, {"field": ""}])
def test_a_wrong_option_is_an_error(options):
    with pytest.raises(ValidationError):
        Severity.Options(**options)

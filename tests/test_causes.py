from dataclasses import replace

import pytest

from pipeline.causes import Filters
from tests.test_dead import LETTER, REFUSED, letters


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (Filters(), ["a-1", "a-2", "b%1"]),
        (Filters(id="a-"), ["a-1", "a-2"]),
        (Filters(id="b%"), ["b%1"]),
        (Filters(id="%"), []),
        (Filters(input="web"), ["a-2"]),
        (Filters(stage="json"), ["a-1", "b%1"]),
        (Filters(reason="UNEXPECTED"), ["a-1", "b%1"]),
        (Filters(index="logs"), ["b%1"]),
        (Filters(output="es"), ["b%1"]),
        (Filters(input="app", stage="json", output="es"), ["b%1"]),
        (Filters(input="app", stage="geoip"), []),
    ],
)
async def test_letters_are_found_by_what_all_filters_say(dead, filters, ids):
    await dead.put(
        [
            replace(LETTER, id="a-1"),
            replace(LETTER, id="a-2", input="web", stage="geoip", reason="other"),
            replace(LETTER, id="b%1", output="es", index="logs"),
        ]
    )
    assert [letter.id for letter in await dead.list(filters)] == ids
    assert sum(group.count for group in await dead.summary(filters)) == len(ids)
    assert await dead.purge(filters) == len(ids)
    assert dead.count() == 3 - len(ids)


async def test_a_summary_has_one_line_a_cause_whatever_numbers_it_holds(dead):
    await dead.put(
        [
            *(replace(letter, reason=f"unexpected end at {letter.place}") for letter in letters(5)),
            REFUSED,
        ]
    )
    many, one = await dead.summary()
    assert (many.reason, many.stage, many.input, many.count) == ("unexpected end at N", "json", "app", 5)
    assert (many.first, many.last, many.sample) == (1000.0, 1004.0, "n-0")
    assert (one.reason, one.output, one.index, one.count, one.sample) == (REFUSED.reason, "es", "logs", 1, "i-9")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("ValueError: no number: 'hunter2'", "ValueError: no number: …"),
        ('ValueError: broken: "it\'s secret"', "ValueError: broken: …"),
        ("KeyError: 'userId'", "KeyError: 'userId'"),
        ("JSONDecodeError: end at line 1 column 17", "JSONDecodeError: end at line N column N"),
        (
            (
                "document_parsing_exception: [1:8] failed to parse field [at] of type [date] in document with id 'x'. "
                "Preview of field's value: 'hunter2'; caused by date_time_parse: [hunter2]"
            ),
            "document_parsing_exception: [N:N] failed to parse field [at] of type [date]",
        ),
    ],
)
async def test_a_summary_quotes_nothing_from_a_record(dead, reason, shown):
    await dead.put([replace(LETTER, reason=reason)])
    assert [group.reason for group in await dead.summary()] == [shown]

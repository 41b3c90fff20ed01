import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.yaml_positions import Mark, Problem, Tree, parse


def messages(text: str, **environment: str) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(problem.mark), problem.message) for problem in parse(text, environment).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("12:30", "12:30"),
        ("2026-11-20", "2026-11-20"),
        ("12", 12),
        ("-007", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("~", None),
        ("null", None),
        ("a:", {"a": None}),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("{1: {true: x}}", {"1": {"true": "x"}}),
        ("[a, [b]]", ["a", ["b"]]),
        ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
        ("", None),
    ],
)
def test_values_are_read_by_the_core_schema_of_yaml_1_2(text, value):
    tree = parse(text, {})
    assert not tree.problems
    assert tree.value == value
    assert type(tree.value) is type(value)


def test_every_value_and_key_knows_its_place():
    tree = parse("a:\n  - é: 1\n    bb: [x, yy]\n", {})
    assert tree.marks["a", 0, "é"] == Mark(2, 8)
    assert tree.marks["a", 0, "bb", 1] == Mark(3, 13)
    assert tree.keys["a", 0, "bb"] == Mark(3, 5)
    assert tree.key(("a", 0)) == tree.mark(("a", 0)) == Mark(2, 5)
    assert tree.mark(("a", 0, "nothing", 7)) == Mark(2, 5)
    assert Tree().mark(()) == Mark(1, 1)


def test_all_problems_are_found_at_once():
    text = "a: 1\na: 2\nb: ${NO}\nc: !odd x\n? [d]\n: 1\ne: !!int x\nf: &f [*f]\n"
    assert messages(text) == [
        ((2, 1), "the key 'a' is already there in line 1"),
        ((3, 4), "the environment variable NO is not set; give it a value, or write '${NO:-default}'"),
        ((4, 4), "the tag '!odd' means nothing here"),
        ((5, 3), "a key must be a single value"),
        ((7, 4), "invalid literal for int() with base 10: 'x'"),
        ((8, 4), "this alias stands inside of what it stands for"),
    ]


@pytest.mark.parametrize(
    ("text", "mark", "message"),
    [
        ("a: 'x", (1, 6), "no valid YAML: found unexpected end of stream while scanning a quoted scalar that began in"),
        ("a: b\n c: d", (2, 3), "no valid YAML: mapping values are not allowed in this context"),
        ("a: *x", (1, 4), "no valid YAML: found undefined alias"),
        ("a: 1\nb: é\x01", (2, 5), "no valid YAML: control characters are not allowed"),
        ("a: 1\n---\nb: 2", (2, 1), "no valid YAML: but found another document"),
        ("i:\n\ta: x", (2, 1), "indent with blanks, not with tabs"),
        ("i: {a: ${X}}", (1, 9), 'inside of {…} and […], write "${NAME}" with quotes'),
    ],
)
def test_a_mistake_in_the_syntax_has_its_place(text, mark, message):
    ((found, said),) = messages(text)
    assert found == mark
    assert message in said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x-${A}-${B}", "x-1-two: {}"),
        ("'${B}'", "two: {}"),
        ("${NO:-a b}", "a b"),
        ("${EMPTY:-x}", "x"),
        ("${NO:-}", ""),
        ("${EMPTY}", ""),
        ("$${A} costs $5", "${A} costs $5"),
    ],
)
def test_variables_are_replaced_in_values_and_never_parsed_again(text, value):
    tree = parse(f"a: {text}", {"A": "1", "B": "two: {}", "EMPTY": ""})
    assert tree.value == {"a": value}
    assert not tree.problems


def test_keys_are_left_as_they_are():
    assert parse("'${A}': 1", {"A": "x"}).value == {"${A}": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${", "'${' without '}'"),
        ("${A", "'${' without '}'"),
        ("${}", "'${}' names no variable"),
        ("${1A}", "'${1A}' names no variable"),
        ("${A-x}", "'${A-x}' names no variable"),
        (
            "${credential:key}",
            "'${credential:key}': systemd gives no credentials here; that takes LoadCredential= in the unit",
        ),
        ("${file:/no/such/file}", "can't read /no/such/file: No such file or directory"),
    ],
)
def test_what_is_no_variable_is_a_problem(text, message):
    ((_, said),) = messages(f"a: {text}", A="1")
    assert message in said


def test_a_file_gives_its_content_without_the_last_newline(tmp_path):
    (tmp_path / "secret").write_text("s e\ncret\n")
    assert parse(f"a: ${{file:{tmp_path}/secret}}", {}).value == {"a": "s e\ncret"}
    assert parse("a: ${credential:secret}", {"CREDENTIALS_DIRECTORY": str(tmp_path)}).value == {"a": "s e\ncret"}


def test_a_file_that_is_no_text_is_a_problem(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xff")
    ((_, said),) = messages(f"a: ${{file:{tmp_path}/secret}}")
    assert "can't decode byte 0xff" in said


def test_a_problem_is_shown_with_its_line_and_a_caret():
    shown = Problem(Mark(2, 4), "bad").show("f.yaml", "x\n\té:\x07z\n")
    assert shown == "f.yaml:2:4: bad\n    2 | \té:\N{REPLACEMENT CHARACTER}z\n      | \t  ^"


def test_a_problem_behind_the_end_is_shown_without_a_line():
    assert Problem(Mark(9, 1), "bad").show("f", "") == "f:9:1: bad"


@given(st.text(alphabet="ab:{}[]-&*!|>'\" \n\t${,#%@?", max_size=60) | st.text(max_size=60))
def test_any_text_gives_a_tree_whose_problems_can_be_shown(text):
    tree = parse(text, {})
    for problem in tree.problems:
        assert re.match(r"f:\d+:\d+: ", problem.show("f", text))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc é:-#$", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
)


@given(PLAIN)
def test_what_is_written_as_yaml_is_read_back(value):
    assert parse(yaml.safe_dump(value, allow_unicode=True), {}).value == value

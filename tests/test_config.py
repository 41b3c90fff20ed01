import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Config, ConfigError, load
from pipeline.contract import Unusable
from pipeline.settings import Settings
from pipeline.yaml_positions import Mark
from tests.made_up import parts

PART = """
from pydantic import BaseModel, Field, field_validator

class Rule(BaseModel, extra="forbid"):
    when: str
    index: str = ""

class Part:
    class Options(BaseModel, extra="forbid"):
        path: str = "x"
        size: int = 1
        deep: list[Rule] = []
        either: int | list[str] = 1

        @field_validator("path")
        @classmethod
        def _checked(cls, value):
            if value == "bad":
                raise ValueError("no such thing")
            return value
"""
NEEDS = PART.replace("path: str = 'x'", "").replace('path: str = "x"', "path: str")
LISTENER = PART.replace('path: str = "x"', 'path: str = "x"\n        listen: str')
DECODER = PART + "\n    def decode(self, records): return []\n"


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory):
    stages = {"json": DECODER, "text": DECODER, "tag": PART, "route": PART, "needs": NEEDS}
    inputs = {"file": PART, "tcp": LISTENER, "udp": LISTENER}
    with parts(tmp_path_factory.mktemp("parts"), inputs=inputs, stages=stages, outputs={"store": NEEDS}):
        yield


@pytest.fixture
def file(tmp_path):
    return tmp_path / "aiologs.yaml"


ENDS = "inputs: {app: {type: file}}\noutputs: {es: {type: store, path: y}}\n"


def loaded(file: Path, text: str, **environment: str) -> Config:
    file.write_text(text)
    return load(file, environment)


def mistakes(file: Path, text: str, **environment: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text, **environment)
    return [(problem.mark.line, problem.mark.column, problem.message) for problem in caught.value.problems]


def message(file: Path, text: str) -> str:
    ((_, _, said),) = mistakes(file, text)
    return said


def test_a_small_file_has_sensible_defaults(file):
    config = loaded(file, ENDS)
    assert config.data_dir == Path("/var/lib/aiologs")
    assert config.workers in {1, 2}
    assert config.admin == "127.0.0.1:9600"
    assert config.host
    assert config.log.level == "info"
    assert config.tests == []
    assert config.path == file


def test_a_whole_file_is_read(file):
    config = loaded(
        file,
        """
data_dir: var
workers: 0
admin: null
host: h1
log: {level: debug, format: json}
inputs:
  app: {type: file, path: a, decode: text}
  web:
    type: file
    decode: {json: {size: 2}}
stages:
  - tag
  - tag: {size: 3, when: 'level == "error"'}
  - tag: {name: mine}
  - needs: {path: p}
  - route:
outputs:
  es: {type: store, path: y}
tests:
  - {name: t, input: {a: 1}, source: web, expect: {a: 1}}
""",
    )
    assert (config.data_dir, config.workers, config.admin, config.host) == (Path("var"), 0, None, "h1")
    assert config.log.format == "json"
    app, web = config.inputs.values()
    assert (app.name, app.type, app.decode.type, app.mark) == ("app", "file", "text", Mark(8, 3))
    assert web.decode.options.model_dump()["size"] == 2
    assert [spec.name for spec in config.stages] == ["tag", "tag-2", "mine", "needs", "route"]
    assert config.stages[1].when == 'level == "error"'
    assert config.outputs["es"].options.model_dump()["path"] == "y"
    assert config.mark("tag-2") == Mark(14, 5)
    assert config.mark("text") == Mark(8, 3)
    assert config.mark("unheard of") == Mark(1, 1)
    assert config.test_marks == [Mark(21, 5)]
    assert config.tests[0].source == "web"


def test_the_chain_gets_the_stages_and_each_input_s_decoder(file):
    config = loaded(file, ENDS + "stages: [tag]")
    spec = config.chain_spec()
    assert spec.stages is config.stages
    assert spec.decoders == {"app": config.inputs["app"].decode}


def test_a_route_is_added_where_there_is_none(file):
    assert [spec.type for spec in loaded(file, ENDS + "stages: [tag]").stages] == ["tag", "route"]
    assert [spec.type for spec in loaded(file, ENDS + "stages: [route, tag]").stages] == ["route", "tag"]


def test_empty_sections_are_sections_that_are_not_there(file):
    config = loaded(file, ENDS + "stages:\ntests:\nlog:\nworkers:\n")
    assert [spec.type for spec in config.stages] == ["route"]


def test_names_of_stages_are_unique_whatever_is_given(file):
    config = loaded(file, ENDS + "stages: [{tag: {name: tag-2}}, tag, tag, tag]")
    assert [spec.name for spec in config.stages] == ["tag-2", "tag", "tag-3", "tag-4", "route"]


def test_variables_become_numbers_where_numbers_are_wanted(file):
    config = loaded(file, ENDS + 'workers: "${N}"\nadmin: "${A:-:1}"', N="7")
    assert (config.workers, config.admin) == (7, ":1")


def test_all_mistakes_are_told_at_once_with_the_nearest_name(file):
    text = """\
inputs:
  app: {type: fil, path: x}
stages:
  - tag: {sise: 2}
  - nedds
outptus: {}
"""
    assert mistakes(file, text) == [
        (1, 1, "there are no outputs; `aiologs stages --kind output` lists them"),
        (2, 15, "unknown input 'fil'; did you mean 'file'?"),
        (4, 11, "unknown key 'sise'; did you mean 'size'?"),
        (5, 5, "unknown stage 'nedds'; did you mean 'needs'?"),
        (6, 1, "unknown key 'outptus'; did you mean 'outputs'?"),
    ]


def test_a_mistake_is_shown_with_its_line_and_a_caret(file):
    file.write_text(ENDS + "stages:\n  - tag: {sise: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}:4:11: unknown key 'sise'; did you mean 'size'?\n    4 |   - tag: {{sise: 2}}\n      |           ^"
    )
    assert isinstance(caught.value, Unusable)


def test_a_message_about_a_place_looks_the_same(file):
    config = loaded(file, ENDS)
    assert (
        config.problem(Mark(1, 9), "no")
        == f"{file}:1:9: no\n    1 | inputs: {{app: {{type: file}}}}\n      |         ^"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: -1", (3, 10, "workers: Input should be greater than or equal to 0")),
        (
            "workers: ${NO}",
            (3, 10, "the environment variable NO is not set; give it a value, or write '${NO:-default}'"),
        ),
        (
            "admin: nowhere",
            (
                3,
                8,
                f"admin: this does not fit; wanted is: {Settings.model_fields['admin'].description}",
            ),
        ),
        ("log: {level: loud}", (3, 14, "log.level: Input should be 'debug', 'info', 'warning', 'error' or 'critical'")),
        ("log: {levle: info}", (3, 7, "unknown key 'levle'; did you mean 'level'?")),
        ("log: loud", (3, 6, "keys with values must stand here")),
        ("stages: tag", (3, 9, "stages: a list must stand here, in brackets")),
        ("stages: [1]", (3, 10, "a stage is its name, or one name with its options: `- tag: {add: [x]}`")),
        ("stages: [{}]", (3, 10, "a stage is its name, or one name with its options: `- tag: {add: [x]}`")),
        ("stages: [tag: 5]", (3, 15, "keys with values must stand here")),
        ("stages: [tag: {path: bad}]", (3, 22, "path: no such thing")),
        (
            "stages: [tag: {size: x}]",
            (3, 22, "size: Input should be a valid integer, unable to parse string as an integer"),
        ),
        ("stages: [tag: {deep: [{when: a, indx: b}]}]", (3, 33, "unknown key 'indx'; did you mean 'index'?")),
        ("stages: [tag: {deep: [{index: b}]}]", (3, 23, "'when' is missing")),
        ("stages: [tag: {deep: [x]}]", (3, 23, "keys with values must stand here")),
        ("stages: [needs]", (3, 10, "'path' is missing")),
        ("stages: [needs: {size: 1}]", (3, 10, "'path' is missing")),
        ("stages: [tag: {wen: a}]", (3, 16, "unknown key 'wen'; did you mean 'when'?")),
        ("stages: [tag: {name: 'a b'}]", (3, 22, "'a b' is no good name: only letters, digits and _ . -")),
        ("stages: [tag: {name: 5}]", (3, 22, "5 is no good name: only letters, digits and _ . -")),
        ("stages: [tag, tag: {name: tag}]", (3, 27, "another stage is named 'tag' already")),
        (
            "tests: [{name: a, input: b, expect: {}, source: ap}]",
            (3, 49, "there is no input 'ap'; did you mean 'app'?"),
        ),
    ],
)
def test_a_mistake_is_told_at_its_place(file, text, said):
    line, column, words = said
    ((found_line, found_column, found),) = mistakes(file, ENDS + text)
    assert (found_line, found) == (line, words)
    assert found_column == column


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app: {}", "an input needs a `type:`, one of file"),
        ("app: x", "an input needs a `type:`, one of file"),
        ("app: {type: [file]}", "an input needs a `type:`, one of file"),
        ("a b: {type: file}", "'a b' is no good name: only letters, digits and _ . - (it names metrics)"),
        ("app: {type: file, decod: json}", "unknown key 'decod'; did you mean 'decode'?"),
        ("app: {type: file, decode: jsn}", "unknown stage 'jsn'; did you mean 'json'?"),
        ("app: {type: file, decode: tag}", "the stage 'tag' can't decode; those that can: json, text"),
        ("app: {type: file, decode: [x]}", "a stage is its name, or one name with its options"),
        (
            "app: {type: file, decode: {json: {when: a}}}",
            "unknown key 'when'; there is 'deep', 'either', 'path', 'size'",
        ),
    ],
)
def test_a_mistake_in_an_input_is_told(file, text, said):
    assert message(file, f"outputs: {{es: {{type: store, path: y}}}}\ninputs: {{{text}}}").startswith(said)


def test_the_options_of_an_output_are_checked(file):
    text = "inputs: {app: {type: file}}\noutputs:\n  es: {type: store}\n  b: {type: store, path: x, tpye: 1}"
    assert mistakes(file, text) == [
        (3, 3, "'path' is missing"),
        (4, 29, "unknown key 'tpye'; did you mean 'type'?"),
    ]


def test_an_option_beside_its_stage_comes_with_the_advice_to_indent_it(file):
    said = message(file, ENDS + "stages:\n  - tag:\n    size: 1\n")
    assert said.endswith("; indent 'size' if it is an option of 'tag'")


def test_what_fits_no_branch_of_a_union_is_told_once(file):
    said = message(file, ENDS + "stages: [tag: {either: x}]")
    assert said == (
        "either: Input should be a valid integer, unable to parse string as an integer; "
        "or: either: a list must stand here, in brackets"
    )


@pytest.mark.parametrize("when", ["level = 1", "__import__('os')", "5", "[a]"])
def test_a_bad_condition_is_told_at_its_place(file, when):
    ((line, column, said),) = mistakes(file, ENDS + f"stages:\n  - tag: {{when: {when}}}")
    assert (line, column) == (4, 17)
    assert said.startswith("when: ")


def test_what_follows_from_a_missing_variable_is_not_told(file):
    assert message(file, ENDS + 'stages: [tag: {size: "${NO}"}]').startswith("the environment variable NO is not set")


def test_a_file_that_is_no_mapping(file):
    assert (1, 1, "keys with values must stand here") in mistakes(file, "- a")


def test_an_empty_file_lacks_everything(file):
    assert mistakes(file, "") == [
        (1, 1, "there are no inputs; `aiologs stages --kind input` lists them"),
        (1, 1, "there are no outputs; `aiologs stages --kind output` lists them"),
    ]


def test_inputs_of_the_wrong_form_are_told_once(file):
    assert message(file, "outputs: {es: {type: store, path: y}}\ninputs: [a]") == "keys with values must stand here"


def test_a_mistake_in_the_syntax_is_shown_in_the_same_form(file):
    ((line, column, said),) = mistakes(file, "inputs: {")
    assert (line, column) == (2, 1)
    assert said.startswith("no valid YAML: ")


LISTENERS = """
admin: {}
inputs:
  a: {{type: tcp, listen: '{}'}}
  b: {{type: {}, listen: '{}'}}
outputs: {{es: {{type: store, path: y}}}}
"""


@pytest.mark.parametrize(
    ("admin", "a", "type_", "b", "line", "who"),
    [
        ("null", "127.0.0.1:80", "tcp", "127.0.0.1:80", 5, "input 'a'"),
        ("null", ":80", "tcp", "127.0.0.1:80", 5, "input 'a'"),
        ("null", "[::1]:80", "tcp", "0.0.0.0:80", 5, "input 'a'"),
        ("127.0.0.1:80", "0.0.0.0:80", "tcp", ":81", 4, "`admin:`"),
    ],
)
def test_two_that_listen_on_one_port_are_told(file, admin, a, type_, b, line, who):
    ((at, _, said),) = mistakes(file, LISTENERS.format(admin, a, type_, b))
    assert (at, said) == (line, f"{who} listens on port 80 already")


@pytest.mark.parametrize(
    ("a", "type_", "b"), [(":80", "udp", ":80"), ("127.0.0.1:80", "tcp", "127.0.0.2:80"), (":0", "tcp", ":0")]
)
def test_two_may_listen_on_one_port_of_different_addresses_or_kinds_and_on_any(file, a, type_, b):
    assert len(loaded(file, LISTENERS.format("null", a, type_, b)).inputs) == 2


def test_two_outputs_that_write_to_one_path_are_told(file):
    text = "inputs: {app: {type: file}}\noutputs:\n  es: {type: store, path: y}\n  b: {type: store, path: ./y}\n"
    assert mistakes(file, text) == [(4, 26, "output 'es' writes there already")]


def test_a_file_that_can_not_be_read_is_no_mistake_in_it(file):
    for path in (file.with_name("missing"), file.parent):
        with pytest.raises(Unusable, match=f"^{path}: can't read it: .*; -c FILE says which file is read") as caught:
            load(path)
        assert not isinstance(caught.value, ConfigError)


def test_a_file_that_is_no_text(file):
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't read it: 'utf-8' codec"):
        load(file)


def test_the_environment_of_the_process_is_the_default(file, monkeypatch):
    monkeypatch.setenv("AIOLOGS_HOST", "from-outside")
    file.write_text(ENDS + 'host: "${AIOLOGS_HOST}"')
    assert load(file).host == "from-outside"


def test_values_from_the_environment_are_not_in_messages(file):
    said = mistakes(file, ENDS + 'stages: [tag: {size: "${SECRET}"}]', SECRET="hunter2")
    assert "hunter2" not in str(said)


WORDS: Any = st.sampled_from(
    ["inputs", "outputs", "stages", "type", "file", "store", "tag", "json", "decode", "when", "a.b", 1, None, "path"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.recursive(WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS.map(str), inner, max_size=4))
)
def test_any_structure_loads_or_tells_its_mistakes(file, value):
    file.write_text(yaml.safe_dump(value))
    try:
        load(file)
    except ConfigError as error:
        caught = error
    else:
        return
    assert caught.problems
    assert all(re.match(rf"{re.escape(str(file))}:\d+:\d+: ", text) for text in caught.texts)

import pytest

from pipeline.check import build, check
from pipeline.config import load
from pipeline.contract import Unusable
from tests.made_up import parts

PART = """
from pydantic import BaseModel
from pipeline.contract import Unusable

class Part:
    class Options(BaseModel, extra="forbid"):
        index: str = "logs"
        error: str = ""
        paths: list[str] = []
    warnings = ["the database is old"]
    def __init__(self, options):
        self.o = options
        if options.error:
            errors = {"Unusable": Unusable, "OSError": OSError, "ValueError": ValueError, "Missing": FileNotFoundError}
            cause = FileNotFoundError() if options.error == "MissingUnusable" else None
            raise errors[options.error.removeprefix("Missing") or "Missing"]("no database") from cause
    def decode(self, records):
        import orjson
        values = [orjson.loads(record) for record in records]
        return [each for value in values for each in (value if isinstance(value, list) else [value])]
    def __call__(self, events):
        return [event for event in events if "drop" not in event]
"""


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory):
    route = PART.replace("return [event for", "return [event | {'@index': 'logs', 'a.b': 1} for")
    stages = {"json": PART, "route": route, "timestamp": PART}
    with parts(tmp_path_factory.mktemp("parts"), inputs={"file": PART}, stages=stages, outputs={"store": PART}):
        yield


@pytest.fixture
def checked(tmp_path):
    """Check a configuration with more at its end."""

    def run(text: str, *, connect: bool = False):
        path = tmp_path / "aiologs.yaml"
        ends = "inputs: {app: {type: file}, b: {type: file}}\noutputs: {es: {type: store}}\n"
        path.write_text(f"data_dir: {tmp_path}\n{ends}{text}")
        return check(path, connect=connect)

    return run


def test_a_good_file_is_ok_and_shows_what_was_found(checked):
    report = checked("")
    assert report.problems == []
    path, *found = str(report).splitlines()[1:]
    assert path.endswith("aiologs.yaml: OK")
    assert found == [
        "  inputs   app (file, json), b (file, json)",
        "  stages   route",
        "  outputs  es (store)",
    ]


def test_what_stages_have_to_say_is_shown_as_a_warning(checked):
    assert checked("").warnings == ["the database is old"]


def test_a_route_before_the_time_of_an_event_is_known_is_warned_of(checked):
    (warning,) = (
        each for each in checked("stages: [route, timestamp, route: {name: again}]").warnings if "warning: " in each
    )
    assert ":4:10: route: it stands before timestamp, so events have no day yet" in warning
    assert "warning: " not in "".join(checked("stages: [timestamp, route]").warnings)


def test_mistakes_in_the_file_are_all_shown(checked):
    report = checked("worker: 2\nhots: x\n")
    assert len(report.problems) == 2
    assert str(report).endswith("aiologs.yaml: 2 problems")
    assert ":4:1: unknown key 'worker'; did you mean 'workers'?" in str(report)


@pytest.mark.parametrize("error", ["Missing", "MissingUnusable"])
def test_a_missing_file_is_a_warning_since_it_may_be_there_where_the_daemon_runs(checked, error):
    report = checked(f"stages: [route: {{error: {error}}}]\ntests: [{{name: a, input: x, expect: {{}}}}]")
    assert report.problems == []
    first, second = report.warnings
    assert first.startswith("warning: ")
    assert ":4:10: route: no database\n" in first
    assert first.endswith("\n  The daemon does not start without it.")
    assert second == "tests: not run, because not every stage can be built here"


def test_a_missing_file_is_a_problem_where_connecting_was_asked_for(checked):
    report = checked("stages: [route: {error: Missing}]", connect=True)
    assert len(report.problems) == 1
    assert str(report).endswith(": 1 problem")


@pytest.mark.parametrize("error", ["Unusable", "OSError", "ValueError"])
def test_a_stage_that_can_not_be_built_though_its_files_are_here_is_a_problem(checked, error):
    (problem,) = checked(f"stages: [route: {{error: {error}}}]").problems
    assert "route: no database" in problem


@pytest.mark.parametrize("error", ["Unusable", "OSError", "ValueError"])
def test_who_needs_the_chain_learns_which_stage_can_not_be_built(tmp_path, error):
    path = tmp_path / "aiologs.yaml"
    stages = f"stages:\n  - route: {{name: a, error: {error}}}\n  - route: {{name: b, error: {error}}}\n"
    path.write_text(f"inputs: {{app: {{type: file}}}}\noutputs: {{es: {{type: store}}}}\n{stages}")
    with pytest.raises(Unusable) as caught:
        build(load(path, {}))
    assert f"{path}:4:5: a: no database" in str(caught.value)
    assert f"{path}:5:5: b: no database" in str(caught.value)


def test_what_the_configuration_names_is_tried_when_asked(checked, monkeypatch):
    monkeypatch.setattr("pipeline.probe.probe", lambda _: [("es: http://x: version 9", None), ("app: y", "gone")])
    report = checked("", connect=True)
    assert report.found[-1] == "es: http://x: version 9"
    assert report.problems == ["app: y: gone"]


@pytest.mark.parametrize(
    "test",
    [
        '{input: {a: 1}, expect: {a: 1, "@index": logs, "@id": test-0, a.b: 1, missing: null}}',
        "{input: '{\"a\": [1]}', source: b, expect: {a: [1]}}",
        '{input: \'[{"a": 1}, {"a": 2}]\', expect: [{a: 1}, {a: 2}]}',
        "{input: {drop: 1}, expect: []}",
        '{input: no JSON, expect: {"@failed": decode}}',
    ],
)
def test_tests_that_pass_are_counted(checked, test):
    report = checked(f"tests: [{{name: t, {test[1:]}]")
    assert report.problems == []
    assert report.found[-1] == "tests    1"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("{input: {a: 1}, expect: {a: 2, b.c: x}}", 'a is 1, expected 2; b.c is null, expected "x"'),
        ("{input: {a: 1}, expect: []}", "expected 0 documents, got 1"),
        ("{input: {drop: 1}, expect: {}}", "expected 1 documents, got 0"),
        ("{input: no JSON, expect: {a: 1}}", "set aside by decode: JSONDecodeError: "),
        ('{input: {a: 1}, expect: {"@failed": decode}}', '@failed is null, expected "decode"'),
        ('{input: no JSON, expect: {"@failed": json}}', '@failed is "decode", expected "json"'),
    ],
)
def test_a_test_that_fails_shows_the_difference_at_its_place(checked, test, said):
    (problem,) = checked(f"tests:\n  - {{name: t, {test[1:]}").problems
    assert f":5:5: test 't': {said}" in problem

from pathlib import Path

import orjson
import pytest

from pipeline.config import Config, load
from pipeline.explain import HIDDEN, Explanation, explain
from tests.made_up import parts

HEAD = "from pydantic import BaseModel\n\n"
PART = (
    HEAD
    + """
class Part:
    class Options(BaseModel):
        pass
    def __init__(self, options):
        self.counts = {}
"""
)
STAGES = {
    # A record is a JSON object, or several in an array.
    "json": PART
    + """
    def decode(self, records):
        import orjson
        values = [orjson.loads(record) for record in records]
        return [each for value in values for each in (value if isinstance(value, list) else [value])]
""",
    "route": HEAD
    + """
class Rule(BaseModel):
    when: str

class Route:
    class Options(BaseModel):
        rules: list[Rule] = []
        index: str | None = "logs"
    def __init__(self, options): self.index = options.index
    def __call__(self, events):
        for event in events:
            if self.index:
                event["@index"] = self.index
        return events
""",
    "change": PART
    + """
    def __call__(self, events):
        for event in events:
            event["context"]["new"] = [1]
            event.pop("old", None)
            event["level"] = "ERROR"
        return events
""",
    "redact": PART
    + """
    def __call__(self, events):
        for event in events:
            if "secret" in event:
                if event["secret"] == "fail":
                    raise ValueError("can't")
                self.counts["secret"] = self.counts.get("secret", 0) + 1
                event["secret"] = "[REDACTED]"
                event["hidden"] = True
        return events
""",
    "drop": PART + "\n    def __call__(self, events): return []\n",
    "fail": PART + "\n    def __call__(self, events): return 1 / 0\n",
    "double": PART
    + """
    def __call__(self, events):
        return [{**event, "n": n} for event in events for n in (1, 2)]
""",
}


@pytest.fixture(autouse=True, scope="module")
def _parts(tmp_path_factory):
    with parts(tmp_path_factory.mktemp("parts"), inputs={"file": PART}, stages=STAGES, outputs={"store": PART}):
        yield


@pytest.fixture
def file(tmp_path):
    return tmp_path / "aiologs.yaml"


def configured(file: Path, stages: str) -> Config:
    file.write_text(
        f"inputs: {{app: {{type: file}}, b: {{type: file}}}}\noutputs: {{es: {{type: store}}}}\nstages: {stages}"
    )
    return load(file, {})


def explained(file: Path, stages: str, record: object) -> Explanation:
    return explain(configured(file, stages), orjson.dumps(record))


def changes(explanation: Explanation, stop: int) -> list[list[str]]:
    return [[str(change) for change in event] for event in explanation.stops[stop].changes]


def test_each_stage_shows_what_it_added_removed_and_changed(file):
    record = {"level": "error", "old": 1, "context": {"a": {}, "é": "ü"}}
    result = explained(file, "[change]", record)
    assert [stop.stage for stop in result.stops] == ["decode: json", "change", "route"]
    assert changes(result, 0) == [['+ level: "error"', "+ old: 1", "+ context.a: {}", '+ context.é: "ü"']]
    assert changes(result, 1) == [['~ level: "error" → "ERROR"', "- old: 1", "+ context.new: [1]"]]
    assert changes(result, 2) == [['+ @index: "logs"']]
    assert all(stop.microseconds > 0 for stop in result.stops)


def test_the_end_is_what_a_real_run_stores(file):
    result = explained(file, "[change]", {"context": {}})
    (stored,) = result.documents
    assert (stored.index, stored.id) == ("logs", "explain-0")
    assert stored.document == {"context": {"new": [1]}, "level": "ERROR"}
    assert result.failed is None


def test_the_record_is_decoded_as_the_named_input_does(file):
    assert explain(configured(file, "[]"), b"{}").input == "app"
    assert explain(configured(file, "[]"), b"{}", "b").input == "b"


def test_what_a_later_stage_redacts_is_hidden_from_the_first_stage_on(file):
    result = explained(file, "[change, redact]", {"secret": "hunter2", "context": {}})
    assert "hunter2" not in str(result)
    assert "hunter2" not in repr(result)
    assert changes(result, 0)[0][0] == '+ secret: "[REDACTED]"'
    assert changes(result, 2) == [[f'~ secret: "{HIDDEN}" → "[REDACTED]"', "+ hidden: true"]]


def test_a_redaction_with_a_condition_hides_also_what_it_will_not_redact(file):
    result = explained(file, '[redact: {when: "a == 1"}]', {"secret": "hunter2"})
    assert "hunter2" not in str(result)
    assert result.stops[1].notes == ["skipped, for this does not hold: a == 1"]


def test_what_can_not_be_redacted_is_not_shown_at_all(file):
    result = explained(file, "[redact]", {"secret": "fail", "a": "private"})
    assert changes(result, 0) == [[f'+ secret: "{HIDDEN}"', f'+ a: "{HIDDEN}"']]
    assert result.failed is not None
    assert result.failed.reason == "ValueError: can't"


def test_a_condition_that_holds_is_not_mentioned(file):
    result = explained(file, '[change: {when: "exists(context)"}]', {"context": {"a": 1}})
    assert result.stops[1].notes == []
    assert len(changes(result, 1)[0]) == 2


def test_the_rule_that_holds_is_named(file):
    rules = "[route: {rules: [{when: 'a == 1'}, {when: 'b == 2'}]}]"
    assert explained(file, rules, {"b": 2}).stops[1].notes == ["rule 2 of 2: b == 2"]
    assert explained(file, rules, {}).stops[1].notes == ["no rule holds"]


def test_a_dropped_record_says_where(file):
    result = explained(file, "[drop, change]", {})
    assert result.stops[1].notes == ["dropped"]
    assert result.documents == []
    assert str(result).endswith("dropped: nothing is stored")


def test_a_record_that_becomes_several_is_followed_in_all_of_them(file):
    result = explained(file, "[double]", {"a": 1})
    assert changes(result, 1) == [["+ n: 1"], ["+ n: 2"]]
    assert result.stops[1].notes == ["1 → 2 events"]
    assert [stored.id for stored in result.documents] == ["explain-0.1", "explain-0.2"]
    assert "    event 2\n    + n: 2" in str(result)


def test_a_record_with_several_events(file):
    assert changes(explained(file, "[]", [{"a": 1}, {"b": 2}]), 0) == [["+ a: 1"], ["+ b: 2"]]


def test_a_stage_that_raises_is_named_with_reason_and_place(file):
    result = explained(file, "[change, fail: {name: mine}]", {"context": {}})
    assert result.failed is not None
    assert (result.failed.stage, result.failed.reason) == ("mine", "ZeroDivisionError: division by zero")
    assert "fail.py:" in result.failed.where
    assert [stop.stage for stop in result.stops] == ["decode: json", "change"]
    assert "\nset aside by mine: ZeroDivisionError: division by zero\n    /" in str(result)


def test_a_record_that_can_not_be_decoded_fails_there(file):
    result = explain(configured(file, "[]"), b"no JSON")
    assert result.failed is not None
    assert result.failed.stage == "decode"


def test_what_fails_after_the_stages_is_told_too(file):
    result = explained(file, "[route: {index: null}]", {})
    assert result.failed is not None
    assert result.failed.stage == "encode"


def test_the_whole_way_is_shown_for_people(file):
    text = str(explained(file, "[change: {name: mine}]", {"context": {}, "long": "x" * 300}))
    assert text.startswith("324 bytes, as the input 'app' would read them\n\ndecode: json   ")
    assert "\nmine (change)   " in text
    assert f'    + long: "{"x" * 158}…\n' in text
    assert "\nstored in logs as explain-0\n" in text


def test_a_record_can_not_control_the_terminal(file):
    text = str(explained(file, "[]", {"a\x1b[2J": "\x9b31m\x7f\n"}))
    assert r"+ a\x1b[2J: " in text
    assert "\x9b" not in text
    assert "\x7f" not in text

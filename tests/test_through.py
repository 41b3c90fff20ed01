import json

import pytest

from pipeline import config
from pipeline.through import Passed, Through

SECRETS = {"password": "hunter2", "message": "mail joe@example.com"}


def through(tmp_path, *stages, **more) -> Through:
    text = {
        "data_dir": str(tmp_path / "data"),
        "inputs": {"app": {"type": "stdin"}},
        "stages": [*stages, {"route": {"default": "i"}}],
        "outputs": {"out": {"type": "console"}},
    }
    path = tmp_path / "aiologs.yaml"
    path.write_text(json.dumps(text))
    return Through(config.load(path), **more)


def follow(it: Through, **fields) -> Passed | None:
    return it.follow("app", "id-1", json.dumps(fields).encode(), {"host.name": "h"})


def test_an_event_is_shown_before_and_after_a_stage(tmp_path):
    it = through(tmp_path, {"severity": {"field": "level"}}, {"tag": {"add": ["new"]}}, stage="severity")
    passed = follow(it, level="error")
    assert (passed.id, passed.failed) == ("id-1", None)
    assert passed.before == [{"level": "error", "@id": "id-1", "host.name": "h"}]
    assert passed.after == [{**passed.before[0], "severity": 17}]


def test_without_a_stage_it_is_shown_as_decoded_and_as_stored(tmp_path):
    passed = follow(through(tmp_path, {"tag": {"add": ["new"]}}), a=1)
    assert [*passed.before[0]] == ["a", "@id", "host.name"]
    assert (passed.after[0]["@index"], passed.after[0]["tags"]) == ("i", ["new"])


def test_only_events_for_which_the_expression_holds_before_or_after(tmp_path):
    it = through(tmp_path, {"severity": {"field": "level"}}, where="severity >= 17")
    assert follow(it, level="info") is None
    assert follow(it, level="error")


@pytest.mark.parametrize("stages", [[], [{"redact": {}}], [{"redact": {"when": "a == 1"}}]])
def test_secrets_are_hidden_before_and_after_whether_or_not_a_stage_does_it(tmp_path, stages):
    passed = follow(through(tmp_path, *stages), **SECRETS)
    assert "hunter2" not in str(passed)
    assert "joe@example.com" not in str(passed)
    assert passed.after[0]["password"] == "[REDACTED]"


def test_a_record_that_is_set_aside_is_shown_without_the_errors_text(tmp_path):
    it = through(tmp_path)
    passed = it.follow("app", "id-1", b'{"password": "hunter2"', {})
    assert (passed.failed, passed.after) == ("decode: JSONDecodeError", [])


def test_a_dropped_event_has_nothing_after(tmp_path):
    assert follow(through(tmp_path, {"drop": {"when": "a == 1"}}), a=1).after == []

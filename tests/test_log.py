import io
import logging
import sys
import warnings
from typing import Any

import orjson
import pytest

from pipeline.log import Json, LogOptions, Recent, Repeats, Text, set_up


@pytest.fixture(autouse=True)
def restored():
    """The root logger is everybody's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_json_lines_have_ecs_names_and_the_details():
    set_up(LogOptions(), stream := io.StringIO())
    logging.getLogger("aiologs.x").warning("file %s was truncated", "a", extra={"file.path": "/x", "n": {1: 2}})
    (line,) = lines(stream)
    assert line.pop("@timestamp").endswith("Z")
    assert line.pop("process.pid") > 0
    assert line == {
        "log.level": "warning",
        "message": "file a was truncated",
        "log.logger": "aiologs.x",
        "file.path": "/x",
        "n": {"1": 2},
    }


def test_an_exception_is_logged_with_its_traceback():
    set_up(LogOptions(), stream := io.StringIO())
    try:
        raise ValueError("no")  # noqa: TRY301
    except ValueError:
        logging.getLogger().exception("it failed")
    (line,) = lines(stream)
    assert (line["error.type"], line["error.message"]) == ("ValueError", "no")
    assert line["error.stack_trace"].startswith("Traceback")


def test_exc_info_without_an_exception_adds_nothing():
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "exc_info": (None, None, None)})
    assert "error.type" not in orjson.loads(Json().format(record))
    assert Text(colour=False).format(record).endswith(" info x")


def test_the_level_counts_and_talkative_libraries_are_kept_quiet():
    set_up(LogOptions(level="info"), stream := io.StringIO())
    logging.getLogger("x").debug("no")
    logging.getLogger("elastic_transport").info("no")
    logging.getLogger("x").info("yes")
    assert [line["message"] for line in lines(stream)] == ["yes"]


def test_libraries_are_no_louder_than_the_rest():
    set_up(LogOptions(level="error"), stream := io.StringIO())
    logging.getLogger("elastic_transport").warning("no")
    assert not stream.getvalue()


def test_auto_means_coloured_text_in_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    set_up(LogOptions(), stream := Terminal())
    logging.getLogger().error("away", extra={"output": "es"})
    logging.getLogger().error("plain")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("\x1b[31merror\x1b[0m away\x1b[2m  output=es\x1b[0m")
    assert second.endswith("\x1b[31merror\x1b[0m plain")


def test_no_colours_where_the_user_wants_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    set_up(LogOptions(), stream := Terminal())
    logging.getLogger().error("away")
    assert stream.getvalue().endswith(" error away\n")
    assert "\x1b" not in stream.getvalue()


def test_text_outside_of_a_terminal_has_details_and_traceback():
    set_up(LogOptions(format="text"), stream := io.StringIO())
    try:
        raise ValueError("no")  # noqa: TRY301
    except ValueError:
        logging.getLogger().exception("failed", extra={"n": 1})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" error failed  n=1")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: no"


def test_json_can_be_had_in_a_terminal():
    set_up(LogOptions(format="json"), stream := Terminal())
    logging.getLogger().error("x")
    assert lines(stream)[0]["message"] == "x"


def test_the_standard_error_stream_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    set_up(LogOptions())
    logging.getLogger().info("x")
    assert lines(stream)[0]["message"] == "x"


def test_a_file_is_made_with_its_folder_and_rotated(tmp_path):
    path = tmp_path / "logs" / "aiologs.log"
    set_up(LogOptions(file=path, max_bytes=300, backups=1))
    for n in range(10):
        logging.getLogger().info("message %d", n)
    assert orjson.loads(path.read_bytes().splitlines()[-1])["message"] == "message 9"
    assert sorted(each.name for each in path.parent.iterdir()) == ["aiologs.log", "aiologs.log.1"]


def test_warnings_are_logged():
    set_up(LogOptions(), stream := io.StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    assert "old" in lines(stream)[0]["message"]


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr("pipeline.log.time.monotonic", lambda: Clock.now)
    return Clock


def passed(repeats: Repeats, n: int, message: str = "m %d", level: int = logging.WARNING) -> list[Any]:
    records = [logging.makeLogRecord({"msg": message, "args": (i,), "levelno": level}) for i in range(n)]
    return [record for record in records if repeats.filter(record)]


def test_repeated_warnings_are_held_back_after_some_and_counted_later(clock):
    repeats = Repeats()
    assert len(passed(repeats, 100)) == Repeats.BURST
    assert len(passed(repeats, 1, "another")) == 1
    clock.now += Repeats.WHILE
    first, *rest = passed(repeats, 3)
    assert first.repeated == 100 - Repeats.BURST
    assert not any(hasattr(each, "repeated") for each in rest)
    assert len(rest) == 2


def test_after_a_while_without_held_back_messages_nothing_is_counted(clock):
    repeats = Repeats()
    passed(repeats, 2)
    clock.now += Repeats.WHILE
    assert not hasattr(passed(repeats, 1)[0], "repeated")


def test_messages_below_warning_are_never_held_back(clock):
    assert len(passed(Repeats(), 100, level=logging.INFO)) == 100


def test_made_up_messages_do_not_fill_the_memory(clock):
    repeats = Repeats()
    for n in range(Repeats.KINDS + 5):
        passed(repeats, 1, f"kind {n}")
    assert len(repeats._seen) == 5


@pytest.mark.parametrize("part", ["input", "output"])
def test_the_last_problem_of_each_part_is_shown(part):
    recent = Recent()
    for n in range(3):
        record = logging.makeLogRecord({"msg": f"{part} %s: broken %d", "args": ("x", n), "levelname": "WARNING"})
        recent.emit(record)
    assert recent.of(f"{part} y") is None
    found: dict[str, Any] = recent.of(f"{part} x") or {}
    assert (found["message"], found["times"]) == (f"{part} x: broken 2", 3)

import io
from collections import Counter

import pytest

from pipeline.contract import Unusable
from pipeline.top import Look, look, screen, view
from tests.services.ports import free_port

STATUS = {
    "version": "1", "uptime_seconds": 3700.0, "ready": False, "summary": ["output es takes nothing"], "workers": 2,
    "inputs": {"app": {"type": "file", "waits": {"for": "output es", "seconds": 9.0}, "lag_bytes": {"/a": 5, "/b": 6}}},
    "outputs": {
        "es": {"type": "elasticsearch", "documents": {"stored": 30}, "in_flight": 4, "parked": {"i": {"documents": 3}},
               "blocked": "away", "blocked_since": "2026"},
    },
    "dead_letters": {"count": 1}, "in_flight": {"bytes": 1 << 20},
}  # fmt: skip


def at(time: float, records: int, stored: int, cpu: float) -> Look:
    values = {
        "records_total": Counter({("app",): records}),
        "documents_total": Counter({("stored", "es"): stored}),
        "process_cpu_seconds_total": Counter({(): cpu}),
    }
    return Look(time, values, STATUS)


def test_rates_are_what_happened_between_two_looks():
    seen = view(at(10, 100, 10, 1.0), at(12, 120, 30, 2.0))
    assert seen["inputs"]["app"]["records_per_second"] == 10
    assert seen["inputs"]["app"]["lag"] == "11 bytes"
    assert seen["outputs"]["es"]["per_second"]["stored"] == 10
    assert (seen["outputs"]["es"]["parked_now"], seen["cpu_percent"]) == (3, 50)


def test_a_daemon_that_started_anew_has_no_negative_rates():
    assert view(at(10, 100, 10, 9), at(11, 5, 1, 0))["inputs"]["app"]["records_per_second"] == 0


def test_the_screen_says_who_is_blocked_and_who_waits():
    from rich.console import Console

    console = Console(width=160, file=io.StringIO())
    console.print(screen(view(at(10, 0, 0, 0), at(11, 1000, 0, 0))))
    text = console.file.getvalue()
    assert "up 1 h 1 min, NOT READY" in text
    assert "output es, 9 s" in text
    assert "BLOCKED" in text
    assert "1,000" in text


def test_it_says_clearly_when_no_daemon_answers():
    port = free_port()
    with pytest.raises(Unusable, match=rf"no daemon answers at 127\.0\.0\.1:{port} .*is `aiologs run`"):
        look(f"0.0.0.0:{port}")

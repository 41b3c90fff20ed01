import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline import daemon
from pipeline.contract import Unusable

CONFIG = """
data_dir: {folder}/data
admin: null
workers: {workers}
log: {{format: text}}
inputs:
  app: {{type: file, paths: ["{folder}/*.log"]}}
stages:
  - timestamp: {{field: timestamp}}
outputs:
  db: {{type: local, path: "{folder}/store.db"}}
"""


RUN = "import sys; from pathlib import Path; from pipeline.daemon import run; sys.exit(run(Path(sys.argv[1])))"
ONCE = RUN.replace("argv[1])", "argv[1]), once=True")


def configure(folder: Path, workers: int = 1) -> Path:
    path = folder / "aiologs.yaml"
    path.write_text(CONFIG.format(folder=folder, workers=workers))
    (folder / "app.log").write_text('{"timestamp":"2026-11-20T10:00:00Z"}\n')
    return path


class Manager:
    """The end of systemd to which the daemon tells things."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(self.path))
        self.sock.settimeout(20)

    def told(self) -> str:
        return self.sock.recv(1000).decode()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.sock.close()


def start(config: Path, manager: Manager, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(config)],
        env={**os.environ, "NOTIFY_SOCKET": str(manager.path), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_systemd_when_it_is_ready_and_drains_at_a_signal(tmp_path, manager, number):
    process = start(configure(tmp_path), manager)
    assert manager.told() == "READY=1"
    process.send_signal(number)
    assert manager.told() == "STOPPING=1"
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"{number.name}: stops reading" in log
    assert "everything that was read is stored" in log


def test_the_watchdog_is_fed_at_half_its_time(tmp_path, manager):
    process = start(configure(tmp_path, workers=0), manager, WATCHDOG_USEC="200000")
    told = [manager.told() for _ in range(4)]
    process.terminate()
    process.communicate(timeout=20)
    assert told.count("WATCHDOG=1") == 3


def test_a_watchdog_for_another_process_is_left_alone(tmp_path, manager):
    process = start(configure(tmp_path, workers=0), manager, WATCHDOG_USEC="10000", WATCHDOG_PID="1")
    assert manager.told() == "READY=1"
    time.sleep(0.1)
    process.terminate()
    assert manager.told() == "STOPPING=1"
    process.communicate(timeout=20)


def test_once_returns_0_when_everything_is_worked_off(tmp_path):
    command = [sys.executable, "-c", ONCE, str(configure(tmp_path))]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
    assert (tmp_path / "store.db").exists()


@pytest.mark.parametrize("log", ["{format: text}", "{file: FOLDER/aiologs.log}"])
def test_what_is_unusable_at_the_start_is_told_where_it_was_started_and_in_the_log(tmp_path, log):
    config = configure(tmp_path, workers=0)
    log = log.replace("FOLDER", str(tmp_path))
    (tmp_path / "none").write_text("")
    output = f"outputs:\n  out: {{type: elasticsearch, ca: {tmp_path}/none, hosts: [https://127.0.0.1:1]}}\n"
    text = config.read_text().replace("{format: text}", log).partition("outputs:")[0] + output
    config.write_text(text)
    command = [sys.executable, "-c", "from pipeline.cli import program; program()", "run", "-c", str(config)]
    done = subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("output out: can't use") == 1
    if "file" in log:
        assert "aiologs ends: output out: can't use" in (tmp_path / "aiologs.log").read_text()


def test_a_log_that_can_not_be_written_to_ends_it_at_the_start(tmp_path):
    config = configure(tmp_path, workers=0)
    config.write_text(config.read_text().replace("{format: text}", "{file: /proc/none/log}"))
    with pytest.raises(Unusable, match="log: can't write to /proc/none/log: No such file or directory"):
        daemon.run(config)


def test_a_failure_at_the_start_is_told_where_it_was_started_too(tmp_path, capsys, monkeypatch):
    async def run(_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(daemon.App, "run", run)
    monkeypatch.setattr(daemon, "set_up", lambda _: None)  # the tests' own log stays as it is
    config = configure(tmp_path, workers=0)
    config.write_text(config.read_text().replace("{format: text}", f"{{file: {tmp_path}/aiologs.log}}"))
    assert daemon.run(config) == 1
    assert f"aiologs ends: a mistake; {tmp_path}/aiologs.log says more" in capsys.readouterr().err


def test_a_second_daemon_on_the_same_folder_is_refused(tmp_path, manager, monkeypatch):
    monkeypatch.setattr(daemon, "set_up", lambda _: None)  # the tests' own log stays as it is
    config = configure(tmp_path, workers=0)
    process = start(config, manager)
    assert manager.told() == "READY=1"
    try:
        with pytest.raises(Unusable, match=f"pid {process.pid}"):
            daemon.run(config)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_it_reloads_at_sighup_with_new_workers_and_tells_systemd(tmp_path, manager):
    config = configure(tmp_path)
    process = start(config, manager)
    assert manager.told() == "READY=1"
    config.write_text(config.read_text().replace("workers: 1", "workers: 2"))
    process.send_signal(signal.SIGHUP)
    reloading, when = manager.told().split("\n")
    assert reloading == "RELOADING=1"
    assert 0 < int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic() * 1e6
    assert manager.told() == "READY=1\nSTATUS="
    nurseries = psutil.Process(process.pid).children()
    assert [len(each.children()) for each in nurseries] == [2]
    config.write_text("inputs: []")
    process.send_signal(signal.SIGHUP)
    assert manager.told().startswith("RELOADING=1")
    assert manager.told().startswith("READY=1\nSTATUS=the last reload failed")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "is not taken over, the configuration before stays in force" in log


def test_sighup_before_there_is_something_to_reload_does_no_harm(tmp_path, manager):
    config = configure(tmp_path)
    text = config.read_text()
    config.unlink()
    os.mkfifo(config)
    process = start(config, manager)
    with config.open("w") as pipe:  # it reads its configuration now, and waits for the end
        process.send_signal(signal.SIGHUP)
        pipe.write(text)
    assert manager.told() == "READY=1"
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


async def test_what_hangs_beyond_the_deadline_is_ended(monkeypatch):
    timers, exits = [], []

    class Timer:
        def __init__(self, seconds, work) -> None:
            self.start = lambda: timers.append((seconds, work, self.daemon))

    monkeypatch.setattr(daemon.threading, "Timer", Timer)
    monkeypatch.setattr(os, "_exit", exits.append)
    app = SimpleNamespace(stop=asyncio.Event(), config=SimpleNamespace(drain_seconds=25))
    waiting = asyncio.create_task(daemon._last_resort(app))
    await asyncio.sleep(0)
    assert not timers
    app.stop.set()
    await waiting
    [(seconds, work, alone)] = timers
    assert (seconds, alone) == (29, True)
    work()
    assert exits == [1]


def test_a_second_signal_exits_at_once(monkeypatch):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)

    class App:
        stop = asyncio.Event()
        config = SimpleNamespace(drain_seconds=25)

    daemon._stop(App, signal.SIGTERM)
    assert App.stop.is_set()
    assert not exits
    daemon._stop(App, signal.SIGTERM)
    assert exits == [1]


def test_nothing_is_told_where_nobody_listens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    daemon.notify("READY=1")


def test_an_abstract_socket_is_told_as_well(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0aiologs-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@aiologs-test-{os.getpid()}")
        daemon.notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_a_manager_that_has_gone_is_no_reason_to_stop(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    daemon.notify("WATCHDOG=1")

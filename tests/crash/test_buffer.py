"""The disk buffer of the real daemon: what was acknowledged is on the disk, and arrives whatever happens."""

import http.client
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager

import pytest

from tests.crash.daemon import Daemon, wait_until
from tests.crash.writer import line
from tests.services.ports import free_port

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def away(tmp_path, port):
    """A daemon whose output is away, with an HTTP input that gives random ids and has a disk buffer."""
    web = {"type": "http", "listen": f"127.0.0.1:{port}", "buffer": "disk", "identity": "random"}
    daemon = Daemon(tmp_path, {"es": {"type": "elasticsearch", "hosts": [NOWHERE]}}, inputs={"web": web})
    yield daemon
    daemon.close()


def come_back(daemon, store):
    daemon.config["outputs"]["es"]["hosts"] = [store.url]


def start(daemon, port):
    """Start it and wait until it listens."""
    daemon.start()

    def listens():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "it listens")


def post(port, numbers):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request("POST", "/", b"".join(map(line, numbers)), {"Content-Type": "application/x-ndjson"})
        answer = client.getresponse()
        answer.read()
        return answer.status


def buffered(daemon):
    """How many batches are in the buffer."""
    with closing(sqlite3.connect(f"file:{daemon.data}/buffer.db?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM batches").fetchone()[0]


@pytest.mark.slow
def test_what_was_acknowledged_while_the_output_was_away_arrives_once_through_kills(away, store, port):
    daemon, sent = away, 0
    for _ in range(3):
        start(daemon, port)
        for _ in range(40):
            assert post(port, range(sent, sent + 50)) == 200
            sent += 50
        daemon.kill()
    come_back(daemon, store)
    for _ in range(3):
        daemon.start()
        before = store.findings(0).stored
        wait_until(lambda seen=before: store.findings(0).stored > seen, "something is stored")
        daemon.kill()
        if store.findings(0).stored == sent:
            break
    daemon.start()
    wait_until(lambda: buffered(daemon) == 0, "the buffer is empty")
    daemon.stop()
    found = store.findings(sent)
    assert not found.missing
    assert not found.twice
    assert found.stored == sent


@pytest.mark.slow
def test_a_full_buffer_answers_429_until_there_is_room(away, store, port):
    daemon = away
    daemon.config["inputs"]["web"]["buffer_bytes"] = 20_000
    start(daemon, port)
    taken = 0
    while (status := post(port, [taken])) == 200:
        taken += 1
    assert status == 429
    assert 20 < taken < 40
    daemon.kill()
    come_back(daemon, store)
    start(daemon, port)
    wait_until(lambda: post(port, [taken]) == 200, "there is room again")
    wait_until(lambda: buffered(daemon) == 0, "the buffer is empty")
    assert store.findings(taken + 1).missing == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_lines_and_datagrams_outlive_the_daemon(away, store, port, kind):
    daemon = away
    daemon.config["inputs"] = {"web": {"type": kind, "listen": f"127.0.0.1:{port}", "buffer": "disk"}}
    daemon.start()
    wait_until(lambda: "listening on" in daemon.log, "it listens")
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        for n in range(50):
            client.sendall(line(n))
    wait_until(lambda: buffered(daemon) > 0, "something is in the buffer")
    time.sleep(0.5)  # the rest was on its way
    daemon.kill()
    come_back(daemon, store)
    daemon.once()
    found = store.findings(50)
    assert not found.missing
    assert not found.twice


@contextmanager
def traced(pid, output):
    """The system calls of a process that read, write and sync, in the order in which they began and ended."""
    calls = "read,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync"
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-s", "40", "-e", f"trace={calls}", "-o", output, "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert tracer.stderr
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace can't look at processes here: {said}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_an_fsync_precedes_every_acknowledgement(away, tmp_path, port):
    daemon = away
    start(daemon, port)
    assert post(port, [0]) == 200
    with traced(daemon.pid, tmp_path / "trace"):
        for n in range(1, 6):
            assert post(port, [n]) == 200
    story = _story((tmp_path / "trace").read_text().splitlines())
    assert story.count("a") == 5
    assert story.count("rsa") == 5, story


def _story(calls):
    """What the trace tells, a letter each: a request came, the buffer's file was synced (once or more), an answer went.

    A sync counts when it has returned, which may be on a line of its own.
    """
    story, syncing = "", set()
    for call in calls:
        thread = call.split()[0]
        if re.search(r"fsync\(|fdatasync\(", call) and "/buffer.db" in call:
            syncing.add(thread)
        if '"POST /' in call:
            story += "r"
        elif '"HTTP/1.1 200' in call:
            story += "a"
        elif thread in syncing and re.search(r"sync.* = 0$", call):
            syncing.discard(thread)
            story += "s"
    return re.sub("s+", "s", story)

"""The real servers, from Maven Central, where there is no Docker.

Programs are kept in AIOLOGS_SERVICES_DIR (`~/.cache/aiologs-services`, for root `/var/cache/aiologs-services`); data
is fresh each time. The Elasticsearch there is its integration-test distribution: the real server without the modules
that Elastic adds. The plugin in `test-ilm` stands in for lifecycle management: policies, their validation, steps and
actions are Elasticsearch's own classes, only the scheduler and the REST handlers are written here, and `GET /`. With
security (x-pack-security is in that distribution) each of these handlers asks for the privilege that Elastic's own
does. Not there: ingest processors, reindex, the mappers wildcard, match_only_text and constant_keyword.
"""

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import psutil

from tests.services.ports import free_port, wait_for_http, wait_for_port
from tests.services.versions import ELASTICSEARCH, KAFKA, PASSWORD, SUPERUSER

NAME = "Maven"
HERE = Path(__file__).parent
ROOT = os.geteuid() == 0
PROGRAMS = Path(
    os.environ.get("AIOLOGS_SERVICES_DIR")
    or ("/var/cache/aiologs-services" if ROOT else Path.home() / ".cache/aiologs-services")
)
NOBODY = 65534
"""Elasticsearch refuses to run as root."""


def why_not() -> str | None:
    """Why the servers can't be had this way; None: they can."""
    if not shutil.which("mvn"):
        return "Maven (mvn) is not there"
    return None if _jdk() else "no JDK 21 or newer is there (JAVA_HOME)"


@cache
def _jdk() -> Path | None:
    named = [Path(os.environ[name]) for name in ("ES_JAVA_HOME", "JAVA_HOME") if os.environ.get(name)]
    on_path = [Path(found).resolve().parent.parent] if (found := shutil.which("javac")) else []
    for home in [*named, *on_path, *sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)]:
        if (home / "bin/javac").exists():
            version = _run([home / "bin/javac", "--version"]).stdout
            if (match := re.search(r"javac (\d+)", version)) and int(match[1]) >= 21:
                return home
    return None


def elasticsearch(stack: ExitStack, *, nodes: int = 1, security: bool = False) -> tuple[str, Callable[[], None]]:
    """Start a cluster; the URL of its first node, and what returns when all nodes answer.

    With security, who may do everything is in `versions`.
    """
    started, wait = cluster(stack, nodes=nodes, security=security)
    return started[0].url, wait


def cluster(stack: ExitStack, *, nodes: int, security: bool = False) -> tuple[list["Server"], Callable[[], None]]:
    """The same, with all its nodes."""
    program = _program(f"elasticsearch-{ELASTICSEARCH}-{_plugin_version()}", _install_elasticsearch)
    ports = [(free_port(), free_port()) for _ in range(nodes)]
    servers = [_node(stack, program, n, ports, security=security) for n in range(nodes)]
    url = servers[0].url

    def check() -> None:
        for each in servers:
            each.check()

    # Without a name and password a node with security tells at least that it is there.
    ready = f"{url}/_cluster/health?wait_for_status=yellow&wait_for_nodes={nodes}"
    wait = partial(wait_for_port, "127.0.0.1", ports[0][0], check) if security else partial(wait_for_http, ready, check)
    return servers, wait


def _node(stack: ExitStack, program: Path, number: int, ports: list[tuple[int, int]], *, security: bool) -> "Server":
    """One node of a cluster, whose nodes have these HTTP and transport ports."""
    run = _run_folder(stack)
    shutil.copytree(program / "config", run / "config")
    http, transport = ports[number]
    settings = {
        "cluster.name": "aiologs-test",
        "node.name": f"node-{number + 1}",
        "network.host": "127.0.0.1",
        "http.port": http,
        "transport.port": transport,
        "path.data": run / "data",
        "path.logs": run / "logs",
        "xpack.security.enabled": str(security).lower(),
        "indices.lifecycle.poll_interval": "1s",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }
    if len(ports) == 1:
        settings["discovery.type"] = "single-node"
    else:
        settings["cluster.initial_master_nodes"] = "[node-1]"
        settings["discovery.seed_hosts"] = str([f"127.0.0.1:{port}" for _, port in ports])
    (run / "config/elasticsearch.yml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    if security:
        (run / "config/users").write_text(f"{SUPERUSER}:{_hashed(PASSWORD)}\n")
        (run / "config/users_roles").write_text(f"superuser:{SUPERUSER}\n")
    command: list[str | Path] = [program / "bin/elasticsearch"]
    if ROOT:
        _give_away(run)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=TERM", *command]
    environment = {"ES_JAVA_HOME": str(_jdk()), "ES_PATH_CONF": str(run / "config"), "HOME": str(run)}
    return Server(stack, command, run, environment, f"http://127.0.0.1:{http}")


def _hashed(password: str) -> str:
    """A password as Elasticsearch's file realm holds it: `{PBKDF2}ROUNDS$SALT$KEY`, with SHA-512 and 256 bits."""
    salt = os.urandom(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 1000, 32)
    return f"{{PBKDF2}}1000${b64encode(salt).decode()}${b64encode(key).decode()}"


def _install_elasticsearch(folder: Path) -> None:
    artifact = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{ELASTICSEARCH}:zip"
    _run(["mvn", "-q", "-B", "dependency:get", "-Dtransitive=false", f"-Dartifact={artifact}"])
    _run(["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"])
    archive = next(folder.glob("*.zip"))
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    archive.unlink()
    (inner,) = folder.iterdir()
    for each in inner.iterdir():
        each.rename(folder / each.name)
    inner.rmdir()
    for each in (folder / "bin").iterdir():
        each.chmod(0o755)
    (folder / "config/jvm.options.d").mkdir(exist_ok=True)
    (folder / "config/jvm.options.d/heap.options").write_text("-Xms1g\n-Xmx1g\n")
    _install_plugin(folder)


def validate_policies(paths: list[Path]) -> str:
    """What Elasticsearch's own parser says about lifecycle policies: a line `OK` or `BAD` for each, and its steps."""
    program, jdk = _program(f"elasticsearch-{ELASTICSEARCH}-{_plugin_version()}", _install_elasticsearch), _jdk()
    assert jdk is not None
    classes = f"{program}/lib/*:{program}/modules/x-pack-core/*"
    command = [jdk / "bin/java", "-cp", classes, HERE / "ValidateIlm.java", *paths]
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout


def _plugin_version() -> str:
    """A hash of the plugin's sources: what was installed with others is not used."""
    sources = sorted((HERE / "test-ilm").rglob("*.*"))
    return hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:8]


def _install_plugin(folder: Path) -> None:
    """Compile the stand-in for lifecycle management against the server's own classes."""
    jdk, plugin = _jdk(), folder / "plugins/test-ilm"
    assert jdk is not None
    plugin.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as classes:
        path = f"{folder}/lib/*:{folder}/modules/x-pack-core/*"
        sources = sorted((HERE / "test-ilm/testilm").glob("*.java"))
        options = ["--release", "21", "-nowarn", "-proc:none", "-cp", path, "-d", classes]
        _run([jdk / "bin/javac", *options, *sources])
        _run([jdk / "bin/jar", "cf", plugin / "test-ilm.jar", "-C", classes, "."])
    shutil.copy(HERE / "test-ilm/plugin-descriptor.properties", plugin)


def kafka(stack: ExitStack) -> tuple[str, Callable[[], None]]:
    """Start a broker that is its own controller; its address, and what returns when it answers."""
    program = _program(f"kafka-{KAFKA}", _install_kafka)
    run = _run_folder(stack)
    port, controller = free_port(), free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": run / "data",
        "num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    }
    properties = run / "server.properties"
    properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    java: list[str | Path] = [f"{_jdk()}/bin/java", "-Xmx512m", "-cp", f"{program}/libs/*"]
    _run([*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", properties])
    server = Server(stack, [*java, "kafka.Kafka", properties], run, {}, f"127.0.0.1:{port}")
    return server.url, partial(wait_for_port, "127.0.0.1", port, server.check)


_POM = f"""<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>kafka</artifactId>
<version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""


def _install_kafka(folder: Path) -> None:
    (folder / "pom.xml").write_text(_POM)
    _run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"], cwd=folder)


def _program(name: str, install: Callable[[Path], None]) -> Path:
    """The folder of a program, installed where it is missing: by one of several runs, and wholly or not at all."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with _lock(PROGRAMS / f"{name}.lock"):
        folder, new = PROGRAMS / name, PROGRAMS / f"{name}.new"
        if not folder.exists():
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            install(new)
            new.rename(folder)
        return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run_folder(stack: ExitStack) -> Path:
    """A folder for one run, deleted when the server has been stopped."""
    folder = Path(tempfile.mkdtemp(prefix="aiologs-services-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _give_away(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)


class Server:
    """A server, run until the stack ends; a test may treat it badly meanwhile."""

    def __init__(
        self, stack: ExitStack, command: list[str | Path], run: Path, environment: dict[str, str], url: str
    ) -> None:
        self.url = url
        self._command, self._run, self._environment = command, run, environment
        self._log = (run / "output.log").open("wb")
        stack.callback(self._log.close)
        self.start()
        stack.callback(self._stop)

    def start(self) -> None:
        """Start it, again after `kill`: with its data, at its address."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._run,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | self._environment,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread only; the signal below is for the end of that one
        )

    def check(self) -> None:
        """Raise with its log where it has ended."""
        if self._process.poll() is not None:
            said = (self._run / "output.log").read_text(errors="replace")
            raise RuntimeError(f"{self._command[-1]} ended:\n{said[-5000:]}")

    def pause(self) -> None:
        """Have it hang: its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        # What was started may itself only wait for the server.
        process = psutil.Process(self._process.pid)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def _stop(self) -> None:
        if self._process.poll() is None:
            self.resume()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    """A SIGTERM when we are killed, and none of the terminal's Ctrl-C: we stop it ourselves."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _run(command: list[str | Path], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done

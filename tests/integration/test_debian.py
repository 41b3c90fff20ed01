"""The Debian package: unpacked as it is, and installed in a copy of this machine that is gone afterwards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.setup import definitions

ROOT = Path(__file__).parents[2]
PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
COPY = """
set -e
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount -t devtmpfs devtmpfs "$2/root/dev"
rm -rf "$2/root/run/systemd"  # no manager runs there
cp "$1" "$2/root/aiologs.deb"
exec chroot "$2/root" sh -ec "$3"
"""

pytestmark = [
    pytest.mark.skipif(os.environ.get("CI") != "true", reason="it fetches the dependencies again: set CI=true"),
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"{PYTHON}, which the package would use, is not installed"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    command = [ROOT / "deploy/debian/build", tmp_path_factory.mktemp("package")]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return folder


@pytest.fixture
def machine(package, tmp_path):
    """Runs shell commands as root where everything is as here, and the package is /aiologs.deb; gives their output."""
    may = ["unshare", "--mount", "--pid", "--fork"]
    if os.geteuid() or subprocess.run([*may, "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root, with namespaces, can copy this machine")

    def run(script):
        command = [*may, "sh", "-c", COPY, "sh", package, tmp_path, script]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_command_works_with_the_pinned_dependencies_alone(unpacked):
    home = unpacked / "usr/lib/aiologs"

    def aiologs(*arguments):
        command = [home / "bin/python3", "-P", home / "bin/aiologs", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout

    assert aiologs("--version") == f"aiologs {__version__}\n"
    assert "OK" in aiologs("check", "-c", unpacked / "etc/aiologs/aiologs.yaml")
    assert "geoip" in aiologs("stages")
    assert not list(home.rglob("pytest"))


def test_the_definitions_for_elasticsearch_are_in_it(unpacked):
    code = "from pipeline.setup.definitions import load; print(*sorted(each.name for each in load()))"
    command = [unpacked / "usr/lib/aiologs/bin/python3", "-P", "-c", code]
    names = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
    assert names.split() == sorted(each.name for each in definitions.load())


def test_nothing_in_it_tells_where_it_was_built(unpacked):
    found = subprocess.run(["grep", "-rlE", f"{ROOT}|/tmp/tmp\\.", unpacked], check=False, stdout=subprocess.PIPE)
    assert found.stdout == b""


def test_a_first_installation_has_a_user_and_a_configuration_and_starts_nothing(machine):
    said = machine("""
        dpkg --install /aiologs.deb
        id --name --groups aiologs
        stat --format "%a %U %G" /etc/aiologs
        su --shell /bin/sh aiologs --command 'cd / && aiologs check'
        ! systemctl is-enabled aiologs
    """)
    assert "installed, not started" in said
    assert "\naiologs adm\n750 root aiologs\n" in said
    assert "\n/etc/aiologs/aiologs.yaml: OK\n" in said
    assert said.endswith("\ndisabled\n")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_installed_unit(machine):
    said = machine("dpkg --install /aiologs.deb >&2; systemd-analyze verify aiologs.service 2>&1")
    assert said == ""


def test_an_upgrade_keeps_the_configuration_and_whether_it_is_started(machine):
    said = machine("""
        dpkg --install /aiologs.deb
        echo "# mine" >> /etc/aiologs/aiologs.yaml
        systemctl enable aiologs
        dpkg --install /aiologs.deb
        tail --lines 1 /etc/aiologs/aiologs.yaml
        systemctl is-enabled aiologs
    """)
    assert said.endswith("\n# mine\nenabled\n")


def test_a_purge_leaves_nothing_but_what_may_be_nowhere_else(machine):
    said = machine("""
        dpkg --install /aiologs.deb
        systemctl enable aiologs
        install -d /var/lib/aiologs && touch /var/lib/aiologs/dead.db
        dpkg --purge aiologs
        find /etc /usr/lib /usr/bin /var/lib -path "*aiologs*" -not -path "*/dpkg/*"
    """)
    assert "/var/lib/aiologs is kept" in said
    assert said.endswith("needed\n/var/lib/aiologs\n/var/lib/aiologs/dead.db\n")

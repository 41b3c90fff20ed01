"""What listeners need in their tests."""

import shutil
import subprocess

import pytest


@pytest.fixture
def certified(tmp_path):
    """The files of a key and its certificate."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl command makes the certificate")
    key, certificate = tmp_path / "key", tmp_path / "crt"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, certificate

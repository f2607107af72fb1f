"""An installation on a machine that reaches no package index, from a folder of wheels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convserve import Client
from tests.bundles import digit_of, write_bundle
from tests.supply.conftest import ROOT
from tests.system.conftest import ServerProcess

pytestmark = [pytest.mark.supply, pytest.mark.timeout(600)]

#: pip asks nobody for anything: neither its settings here nor an index.
ALONE = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}


def pip(python: Path | str, *arguments: object, **variables: str) -> None:
    subprocess.run(
        [python, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)],
        check=True,
        env={**os.environ, **variables},
    )


def test_server_is_installed_from_a_folder_of_wheels(tmp_path: Path) -> None:
    wheels, environment = tmp_path / "wheels", tmp_path / "installed"
    lock = ROOT / "locks/serve.txt"
    # Where there is a network.
    pip(sys.executable, "download", "--require-hashes", "-r", lock, "-d", wheels)
    subprocess.run(
        [sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", wheels, ROOT],
        check=True,
    )
    # Where there is none.
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin/python"
    there = ["install", "--no-compile", "--no-index", "--find-links", wheels]
    pip(python, *there, "--require-hashes", "-r", lock, **ALONE)
    pip(python, *there, "--no-deps", "convserve", **ALONE)
    pip(python, "check", **ALONE)
    write_bundle(tmp_path / "models")
    server = ServerProcess(tmp_path / "models", "--workers", "1", python=python)
    try:
        with Client(server.wait_until_serving()) as client:
            assert client.classify(digit_of(3)).label == "3"
        assert server.terminate() == 0
    finally:
        server.process.kill()
        server.wait()

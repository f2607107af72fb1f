"""examples/ and protos/ as a stranger has them: copied, with nothing of ours installed."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import google.rpc.status_pb2
import numpy as np
import pytest
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.engines.base import Pixels
from tests.server.conftest import WAIT_S, Serve, Served

ROOT = Path(__file__).parents[2]
#: Has grpcio-tools, and nothing of ours.
TOOLS = ROOT / ".venv-protos/bin/python"
_INSTALL_S = 180.0


def strengths(batch: Pixels) -> NDArray[np.generic]:
    """What speaks for each class: the ink of ten rows."""
    ink: NDArray[np.generic] = batch[:, 6:26:2, :, 0].mean(axis=2) * 4
    return ink


def run(arguments: Sequence[str], folder: Path, timeout_s: float = WAIT_S) -> str:
    """Run a program, which must succeed; returns what it prints."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.lower().endswith("_proxy")
    }
    ran = subprocess.run(
        arguments,
        cwd=folder,
        env=environment | {"PYTHON": str(TOOLS), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def expected(served: Served) -> str:
    """What an example should print of the picture."""
    request = pb.ClassifyRequest(model="mnist", top_k=1)
    request.encoded.images.append((ROOT / "examples/seven.png").read_bytes())
    response = served.stub.Classify(request, timeout=WAIT_S)
    prediction = response.results[0].prediction
    assert prediction.probabilities[0] > 0.11, "the model does not look at the picture"
    return f"{response.labels[prediction.classes[0]]} {100 * prediction.probabilities[0]:.1f} %\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of examples/ and of the .proto files, somewhere else."""
    there = tmp_path / "stranger"
    shutil.copytree(
        ROOT / "examples", there / "examples", ignore=shutil.ignore_patterns("node_modules", "gen")
    )
    shutil.copytree(ROOT / "protos", there / "protos", ignore=shutil.ignore_patterns("*.py*"))
    return there


def test_every_import_of_a_proto_file_is_in_the_folder() -> None:
    files = sorted((ROOT / "protos").rglob("*.proto"))
    assert len(files) == 5
    imported = {
        name
        for file in files
        for name in re.findall(r'^import (?:public )?"([^"]+)";', file.read_text(), re.MULTILINE)
    }
    # protoc brings these itself, as do its likes.
    imported = {name for name in imported if not name.startswith("google/protobuf/")}
    assert imported == {"convserve_protos/bundle.proto", "google/rpc/status.proto"}
    assert [name for name in imported if not (ROOT / "protos" / name).is_file()] == []


def test_status_proto_is_that_of_googleapis() -> None:
    theirs = Path(google.rpc.status_pb2.__file__).with_name("status.proto")
    ours = ROOT / "protos/google/rpc/status.proto"
    # Above it is the licence, with the year of the release.
    assert ours.read_text().partition("\nsyntax")[2] == theirs.read_text().partition("\nsyntax")[2]
    assert "Apache License, Version 2.0" in ours.read_text()


@pytest.mark.skipif(not TOOLS.exists(), reason="needs grpcio-tools: make protos-check installs it")
def test_python_example_prints_the_digit(serve: Serve, front: str, copy: Path) -> None:
    served = serve(front)
    served.engine.strengths = strengths  # type: ignore[method-assign]
    folder = copy / "examples/python"
    run(["./generate.sh"], folder)
    printed = run([str(TOOLS), "classify.py", "../seven.png", served.address], folder)
    assert printed == expected(served)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm")
def test_node_example_prints_the_digit(serve: Serve, copy: Path, tmp_path: Path) -> None:
    folder = copy / "examples/node"
    if not _install(folder, tmp_path / "npm"):
        pytest.skip("npm cannot reach its registry")
    # On each front by the same installation, which takes most of the time.
    for front in ("grpcio", "native"):
        served = serve(front)
        served.engine.strengths = strengths  # type: ignore[method-assign]
        printed = run(["node", "classify.js", "../seven.png", served.address], folder)
        assert printed == expected(served)
        failed = subprocess.run(
            ["node", "classify.js", "../seven.png", served.address, "no"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert failed.returncode == 1
        assert failed.stderr == "NOT_FOUND: no model 'no'; loaded: mnist\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm")
def test_client_of_browsers_prints_the_digit(serve: Serve, copy: Path, tmp_path: Path) -> None:
    folder = copy / "examples/connect"
    if not _install(folder, tmp_path / "npm"):
        pytest.skip("npm cannot reach its registry")
    run(["npm", "run", "--silent", "generate"], folder)
    served = serve(http=True)
    served.engine.strengths = strengths  # type: ignore[method-assign]
    address = f"http://127.0.0.1:{served.http_port}"
    for protocol in ("connect", "connect-json", "grpc-web"):
        command = ["node", "classify.js", "../seven.png", address]
        assert run([*command, "mnist", protocol], folder) == expected(served)
        failed = subprocess.run(
            [*command, "no", protocol],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert failed.returncode == 1
        assert failed.stderr == "NotFound: no model 'no'; loaded: mnist\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_example_prints_the_answer(serve: Serve, copy: Path) -> None:
    served = serve(http=True)
    served.engine.strengths = strengths  # type: ignore[method-assign]
    folder = copy / "examples/curl"
    command = ["./classify.sh", "../seven.png", f"http://127.0.0.1:{served.http_port}"]
    (result,) = json.loads(run(command, folder))["results"]
    assert f"{result['label']} {100 * result['probability']:.1f} %\n" == expected(served)
    failed = subprocess.run(
        [*command, "no"], cwd=folder, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert failed.returncode == 22
    assert json.loads(failed.stdout)["got"] == "no"


@pytest.mark.parametrize("example", ["node", "connect"])
def test_lock_of_an_example_names_no_registry(example: str) -> None:
    assert '"resolved"' not in (ROOT / f"examples/{example}/package-lock.json").read_text()


def _install(folder: Path, cache: Path) -> bool:
    """Install what the lock says; False where the registry cannot be reached."""
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", str(cache)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_INSTALL_S,
        check=False,
    )
    unreachable = r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|network"
    if installed.returncode and re.search(unreachable, installed.stderr):
        return False
    assert installed.returncode == 0, installed.stderr
    return True

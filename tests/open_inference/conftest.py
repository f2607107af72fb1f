"""Our server with the models that clients of others ask, and the environments of those clients."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.ports import free_port
from tests.bundles import write_bundle, write_photo_bundle
from tests.conformance.served_models import write_simple
from tests.jpegs import jpeg_of
from tests.system.conftest import ServerProcess

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers"
WAIT_S = 60.0

#: Nobody loads the model `spare` but clients.
SETTINGS = """
[models.spare]
control = "explicit"
"""


@dataclass(frozen=True)
class Served:
    """Our server.

    Args:
        grpc: HOST:PORT.
        http: HOST:PORT.
        jpeg: a picture for the model `colours`.
    """

    grpc: str
    http: str
    jpeg: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("open-inference")
    models = folder / "models"
    write_simple(models)
    write_bundle(models)
    write_bundle(models, "spare")
    write_photo_bundle(models)
    jpeg = folder / "red.jpg"
    jpeg.write_bytes(jpeg_of("red"))
    settings = folder / "settings.toml"
    settings.write_text(SETTINGS)
    server = ServerProcess(
        models, "--config", str(settings), "--repository-calls", "on", "--workers", "2",
        "--http-port", str(free_port()),
    )  # fmt: skip
    try:
        http = server.wait_for("HTTP on")["http_address"]
        yield Served(server.wait_until_serving(), http, jpeg)
    finally:
        server.process.kill()
        server.wait()


def python_of(environment: str) -> Path:
    """The interpreter of an environment, which `make test-open-inference` makes."""
    python = PEERS / environment / "bin" / "python"
    assert python.exists(), f"{python}: not there; run: make test-open-inference"
    return python


def output_of(environment: str, *arguments: str | Path, **variables: str) -> str:
    """What a script prints in an environment; fails unless it ends with 0."""
    done = subprocess.run(
        [python_of(environment), *arguments], capture_output=True, text=True, timeout=WAIT_S,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def session_of(environment: str, front: str, served: Served) -> dict[str, Any]:
    """What tritonclient of an environment has got from our server, call by call."""
    address = served.grpc if front.startswith("grpc") else served.http
    script = Path(__file__).parent / "triton_session.py"
    answers: dict[str, Any] = json.loads(
        output_of(environment, script, front, address, served.jpeg)
    )
    return answers

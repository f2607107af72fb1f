"""The wheel, installed as users install it: each program alone, without what it does not need."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bundles import digit_of
from tests.system.conftest import ROOT, ServerProcess, StartServer

pytestmark = [pytest.mark.install, pytest.mark.timeout(1000)]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", out, ROOT],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def client_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the client alone."""
    return install(tmp_path_factory.mktemp("installed") / "client", wheel, "client.txt")


def install(folder: Path, wheel: Path, lock: str) -> Path:
    """A new environment with the packages of a lock file and the wheel; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
    # What is not imported needs no compiling, which takes most of the time.
    pip_install = [*pip, "install", "--no-compile"]
    subprocess.run(
        [*pip_install, "--require-hashes", "-r", ROOT / "locks" / lock], check=True, timeout=600
    )
    subprocess.run([*pip_install, "--no-deps", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    return python


def importable(python: Path, *modules: str) -> dict[str, bool]:
    """Which modules an environment has."""
    code = (
        "import importlib.util as u, json, sys; "
        "print(json.dumps({m: u.find_spec(m) is not None for m in sys.argv[1:]}))"
    )
    # -I: not from this checkout's folder.
    done = subprocess.run(
        [python, "-I", "-c", code, *modules], check=True, capture_output=True, text=True
    )
    result: dict[str, bool] = json.loads(done.stdout)
    return result


def test_wheel_puts_only_names_of_ours_into_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert names >= {"convserve", "convserve_server", "convserve_trainer"}
    assert all(name.startswith("convserve") for name in names), names


def test_wheel_has_the_page_where_the_server_looks_for_it(wheel: Path) -> None:
    page = {f"convserve_server/web/{file.name}" for file in (ROOT / "clients" / "web").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        assert page
        assert page <= set(archive.namelist())


def test_client_alone_needs_no_tensorflow_and_no_onnxruntime(
    client_python: Path, start_server: StartServer
) -> None:
    python = client_python
    assert importable(python, "tensorflow", "keras", "onnxruntime", "onnx", "convserve") == {
        "tensorflow": False,
        "keras": False,
        "onnxruntime": False,
        "onnx": False,
        "convserve": True,
    }
    address = start_server().wait_until_serving()
    code = (
        "import sys, numpy as np; from convserve import Client\n"
        "digit = np.frombuffer(bytes.fromhex(sys.argv[2]), np.uint8).reshape(28, 28)\n"
        "with Client(sys.argv[1]) as client: print(client.classify(digit)[0].label)"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, address, digit_of(7).tobytes().hex()],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "7\n"
    command: list[str | Path] = [python.parent / "convserve", "health", "--server", address]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_server_alone_needs_no_tensorflow(wheel: Path, tmp_path: Path, models: Path) -> None:
    python = install(tmp_path / "serve", wheel, "serve.txt")
    assert importable(python, "tensorflow", "keras", "onnx", "onnxruntime") == {
        "tensorflow": False,
        "keras": False,
        "onnx": False,
        "onnxruntime": True,
    }
    server = ServerProcess(models, python=python)
    try:
        address = server.wait_until_serving()
        command: list[str | Path] = [python.parent / "convserve", "models", "--server", address]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert "mnist" in done.stdout
    finally:
        assert server.terminate() == 0


@pytest.mark.parametrize(("extra", "package"), [("bench", "hpack"), ("top", "rich")])
def test_command_without_its_extra_says_what_to_install(
    client_python: Path, extra: str, package: str
) -> None:
    command: list[str | Path] = [client_python.parent / "convserve", extra]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"convserve: {package} is not installed; run: pip install 'convserve[{extra}]'\n"
    )


def test_program_without_its_extra_says_what_to_install(
    client_python: Path, tmp_path: Path
) -> None:
    scoring = ["plan", str(tmp_path), "--target", str(tmp_path), "--model", str(tmp_path)]
    for command, extra, flags in (
        ("convserve-train", "train", ["fit", "digits"]),
        ("convserve-serve", "serve", ["--models", str(tmp_path)]),
        ("convserve-score", "score", scoring),
    ):
        done = subprocess.run(
            [client_python.parent / command, *flags], check=False, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert f"pip install 'convserve[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout

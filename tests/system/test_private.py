"""Programs that work for a while look no name up, and leave nothing in HOME but our own cache."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from tests.trainer import idx_files

ROOT = Path(__file__).parents[2]
NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
WAIT_S = 400
#: ONNX Runtime 1.32 first looks its collector up about 9 s after its import.
SERVED_S = 15

#: Serves a folder of models by both fronts, asks each one image, goes on serving for some seconds.
SERVE = f"""
import sys, time
from pathlib import Path
from convserve import Client
from tests.bundles import digit_of
from tests.system.conftest import ServerProcess
flags = "--workers", "1", "--host", "127.0.0.1", "--front"
servers = [ServerProcess(Path(sys.argv[1]), *flags, front) for front in ("grpcio", "native")]
try:
    for server in servers:
        with Client(server.wait_until_serving()) as client:
            assert client.classify(digit_of(3)[None], model="mnist")[0].label == "3"
    time.sleep({SERVED_S})
    assert [server.terminate() for server in servers] == [0, 0]
finally:
    for server in servers:
        server.process.kill()
"""

#: Runs the trainer's command, and lives on in the process that has imported everything.
TRAIN = f"""
import sys, time
from convserve_trainer.main import main
status = main(sys.argv[1:])
time.sleep({SERVED_S})
sys.exit(status)
"""


@cache
def lacking() -> str:
    """Why a command cannot get a network of its own here; empty if it can."""
    try:
        done = subprocess.run(
            [*NAMESPACES, "mount", "--bind", "/etc/hosts", "/etc/hosts"],
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return "unshare, of util-linux, is not installed"
    return done.stderr.strip() if done.returncode else ""


def lookups(folder: Path, *command: str) -> list[str]:
    """The names that a command of Python looks up, with an empty HOME: folder / "home"."""
    if why := lacking():
        pytest.skip(f"needs a network namespace: {why}")
    (folder / "home").mkdir()
    ours = ("CONVSERVE_", "ORT_", "XDG_", "KERAS_", "MPLCONFIGDIR")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "tests.system.resolver", str(folder / "asked"),
         sys.executable, "-c", *command],
        env=environment | {"HOME": str(folder / "home"), "PYTHONPATH": path},
        cwd=ROOT, timeout=WAIT_S, check=True,
    )  # fmt: skip
    return (folder / "asked").read_text().splitlines()


def left_in_home(folder: Path) -> list[str]:
    home = folder / "home"
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_the_resolver_sees_what_is_looked_up(tmp_path: Path) -> None:
    code = (
        "import pathlib, socket\n"
        "pathlib.Path.home().joinpath('seen').touch()\n"
        "try: socket.getaddrinfo('somebody.test', 443)\n"
        "except socket.gaierror: pass\n"
    )
    assert set(lookups(tmp_path, code)) == {"somebody.test"}
    assert left_in_home(tmp_path) == ["seen"]


def test_server_looks_nothing_up_and_leaves_home_empty(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    assert lookups(tmp_path, SERVE, str(tmp_path / "models")) == []
    assert list((tmp_path / "home").rglob("*")) == []


def test_trainer_looks_nothing_up_and_leaves_its_cache_alone_in_home(tmp_path: Path) -> None:
    data = idx_files.write(tmp_path / "data", (20, 20), (10, 10), (28, 28))
    fit = ["fit", "digits", "--data", str(data), "--recipe", "lecture", "--epochs", "1"]
    fit += ["--steps", "2", "--precision", "int8", "--models", str(tmp_path / "models")]
    assert lookups(tmp_path, TRAIN, *fit) == []
    assert (tmp_path / "models/data/1/model.onnx").exists()
    # fc-list, which Matplotlib asks where it is installed, may keep a list of its own.
    ours = (".cache/convserve/", ".cache/fontconfig/")
    assert [name for name in left_in_home(tmp_path) if not name.startswith(ours)] == []

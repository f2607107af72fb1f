import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.main import main

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    # Keras converts TensorFlow's variables to NumPy in the way of NumPy 1, wherever it saves them.
    warning = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    folder = DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST in {folder}; CONVSERVE_TEST_DATA names the folder above it")
    return folder


@pytest.fixture(scope="session")
def dataset(mnist_folder: Path) -> Dataset:
    return mnist.load(mnist_folder)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps tests off the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "convserve" / "mnist"


@dataclass(frozen=True)
class Published:
    models: Path
    bundle: Path
    output: str


@pytest.fixture(scope="session")
def published(mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A net trained for one epoch on the first 1,280 digits, published by the command itself."""
    models = tmp_path_factory.mktemp("published") / "models"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        command = ["fit", "digits", "--limit", "1280", "--epochs", "1", "--seed", "7"]
        status = main([*command, "--data", str(mnist_folder), "--models", str(models)])
    assert status == 0
    return Published(models, models / "mnist" / "1" / "model.onnx", output.getvalue())

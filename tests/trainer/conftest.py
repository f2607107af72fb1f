import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.main import main
from tests.trainer import idx_files

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


SMALL = """
task = "digits"
net = [{ layer = "conv", filters = 4, stride = 2 }, { layer = "flatten" }]
learning_rate = 0.01
epochs = 1
batch_size = 16
"""


@dataclass(frozen=True)
class Small:
    """A data set and a recipe for what holds of any training: a second or two from end to end.

    Attributes:
        data: folder of 91 pictures of three classes to train on, and 30 held out.
        recipe: file.
    """

    data: Path
    recipe: Path

    def fit(self, models: Path, *more: str) -> list[str]:
        """The command that publishes "small" in a models folder."""
        command = ["fit", "digits", "--data", str(self.data), "--recipe", str(self.recipe)]
        return [*command, "--models", str(models), *more]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.toml").write_text(SMALL)
    # The last batch is smaller than the others.
    data = idx_files.write(folder / "small", (31, 30, 30), (10, 10, 10), (12, 16))
    return Small(data, folder / "small.toml")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves figures empty: to draw those of a small training takes half as long as it."""
    monkeypatch.setattr("convserve_trainer.html.figures._saved", lambda *_: b"")
    monkeypatch.setattr("convserve_trainer.report.plot.plot", lambda *_: {"png": b"", "svg": b""})


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

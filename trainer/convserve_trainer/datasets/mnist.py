"""MNIST, verified: 60,000 handwritten digits to train on and 10,000 held out.

dataset = mnist.load()                      # the user's cache, or fetched into it
dataset = mnist.load(Path("my/mnist"))      # a folder with the four IDX files
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_host import leftovers
from convserve_imaging import MNIST_CENTRE, mnist_files
from convserve_imaging.mnist_files import FILES, Contents
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec
from convserve_trainer.datasets import mnist_sources
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.errors import DataError, translate_imaging_errors
from convserve_trainer.host import user_cache

Pixels = npt.NDArray[np.uint8]
LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Dataset:
    """Images with their labels.

    Attributes:
        train_images: uint8 [N, H, W, C], 0 to 255, not scaled.
        train_labels: uint8 [N], 0 to K - 1.
        test_images: uint8 [M, H, W, C], held out: never trained on.
        test_labels: uint8 [M].
    """

    train_images: Pixels
    train_labels: Pixels
    test_images: Pixels
    test_labels: Pixels

    def limited(self, limit: int | None) -> "Dataset":
        """Returns the dataset with the first `limit` training images; None for all."""
        return replace(
            self, train_images=self.train_images[:limit], train_labels=self.train_labels[:limit]
        )

    def sha256(self) -> str:
        """Returns the digest, hexadecimal, of the four arrays, each as its shape and its bytes."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def load(folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Dataset:
    """Returns MNIST from a folder, from the user's cache, or fetched into the cache.

    Args:
        folder: with the four IDX files, gzip or not; None for the cache.
        say: takes a line on what is done that takes time or goes another way.

    Raises:
        DataError: the folder's files are missing or damaged, or no source can be reached.
    """
    if folder is not None:
        return _from_folder(folder)
    cache = user_cache.folder("mnist")
    if cache.is_dir():
        try:
            return _from_folder(cache)
        except DataError as error:
            say(f"the cached copy is not used: {error}")
    return _fetched(cache, say)


def make_data(dataset: Dataset) -> Data:
    """Returns the digits of MNIST, uint8 [N, 28, 28, 1], 60,000 or less and 10,000 held out."""
    return Data(
        what="digits",
        labels=LABELS,
        spec=InputSpec(
            height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS, resize=MNIST_CENTRE
        ),
        train=ArrayPictures(dataset.train_images, dataset.train_labels),
        held_out=ArrayPictures(dataset.test_images, dataset.test_labels),
        sha256=dataset.sha256(),
    )


def _from_folder(folder: Path) -> Dataset:
    with translate_imaging_errors():
        contents = mnist_files.read_folder(folder)
    return _verified(contents, str(folder))


def _fetched(cache: Path, say: Callable[[str], None]) -> Dataset:
    say("MNIST is not in the cache yet; it is fetched now")
    failures = []
    for name, fetch in mnist_sources.SOURCES:
        try:
            contents = fetch()
            dataset = _verified(contents, name)
        except DataError as error:
            failures.append(str(error))
            continue
        say(f"MNIST comes from {name}")
        try:
            _keep(contents, cache)
        except OSError as error:
            say(f"it is not cached: {cache}: {error.strerror}")
        return dataset
    names = ", ".join(f"{file.name}.gz" for file in FILES)
    raise DataError(
        "MNIST cannot be fetched; is there a network? Without one, put "
        f"{names} into a folder and add --data FOLDER. Tried: {'; '.join(failures)}"
    )


def _verified(contents: Contents, where: str) -> Dataset:
    with translate_imaging_errors():
        arrays = [
            mnist_files.verified(file, contents[file.name], f"{where}: {file.name}")
            for file in FILES
        ]
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        train_images[..., np.newaxis], train_labels, test_images[..., np.newaxis], test_labels
    )


def _keep(contents: Contents, cache: Path) -> None:
    """Writes the files to the cache, each complete or not at all."""
    cache.mkdir(parents=True, exist_ok=True)
    leftovers.remove(cache)
    for name, data in contents.items():
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=cache)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, cache / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

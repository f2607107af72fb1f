"""The four files of MNIST: their names, shapes and digests, and a folder that holds them."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_imaging import idx
from convserve_imaging.errors import DatasetError, NoFolderError
from convserve_imaging.gzip_files import Content

LARGEST_GZIP = 32 * 2**20  # bytes; the largest of the four is 9.9 MB


@dataclass(frozen=True)
class MnistFile:
    """One of the four files.

    Attributes:
        name: as published, without .gz.
        shape: of the array in it.
        sha256: of the decompressed file, hexadecimal.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str


TRAIN_IMAGES = MnistFile(
    "train-images-idx3-ubyte",
    (60_000, 28, 28),
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
TRAIN_LABELS = MnistFile(
    "train-labels-idx1-ubyte",
    (60_000,),
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)
TEST_IMAGES = MnistFile(
    "t10k-images-idx3-ubyte",
    (10_000, 28, 28),
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
)
TEST_LABELS = MnistFile(
    "t10k-labels-idx1-ubyte",
    (10_000,),
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
HELD_OUT = (TEST_IMAGES, TEST_LABELS)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, *HELD_OUT)

Contents = Mapping[str, bytes]
"""What files hold, decompressed, by name."""


def verified(file: MnistFile, data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Returns the array in a file: uint8 of its shape, read-only.

    Args:
        file: what it should be.
        data: what it holds, decompressed.
        name: where it was found, for messages.

    Raises:
        DatasetError: it is not, byte for byte, what was published.
    """
    array = idx.decode(data, file.shape, name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise DatasetError(f"{name}: expected SHA-256 {file.sha256}, got {digest}: it was changed")
    return array


def read_folder(folder: Path, files: Sequence[MnistFile] = FILES) -> Contents:
    """Returns what some files in a folder hold; their digests are not checked yet.

    Args:
        folder: where they are, gzip or not.
        files: those to read; all four unless told otherwise.

    Raises:
        DatasetError: one is missing, cannot be read or is damaged gzip.
    """
    return {file.name: _read(_find(folder, file), file) for file in files}


def is_published(folder: Path, file: MnistFile) -> bool:
    """Returns whether a folder has the file, byte for byte as it was published."""
    try:
        verified(file, _read(_find(folder, file), file), file.name)
    except DatasetError:
        return False
    return True


def are_published(folder: Path) -> bool:
    """Returns whether a folder has all four files, byte for byte as they were published."""
    short_first = sorted(FILES, key=lambda file: len(file.shape))
    return all(is_published(folder, file) for file in short_first)


def gunzip(data: bytes, file: MnistFile, name: str) -> bytes:
    """Returns a file, unpacked if it is gzip, cut one byte after its proper size.

    Raises:
        DatasetError: it is damaged.
    """
    size = idx.size(file.shape)
    return Content(io.BytesIO(data), name).upto(size + 1, size)


def _find(folder: Path, file: MnistFile) -> Path:
    names = names_of(file.name)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise NoFolderError(f"no folder {folder}")
    raise DatasetError(f"{folder}: expected one of {', '.join(names)}, got none")


def names_of(name: str) -> list[str]:
    """Returns the names that a file of MNIST may have, the one that it was published under first.

    Args:
        name: as published, without .gz.
    """
    dotted = name.replace("-idx", ".idx")  # as some mirrors and unpackers name them
    return [name, dotted, f"{name}.gz", f"{dotted}.gz"]


def _read(path: Path, file: MnistFile) -> bytes:
    size = idx.size(file.shape)
    try:
        with path.open("rb") as opened:
            return Content(opened, str(path)).upto(size + 1, size)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error

"""Two pairs of IDX files under MNIST's names, whatever is in them: pictures and their classes."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from convserve_imaging import idx
from convserve_imaging.errors import DatasetError, NoFolderError
from convserve_imaging.mnist_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from convserve_imaging.mnist_files import names_of as _published_names

Array = npt.NDArray[np.uint8]

TRAIN = TRAIN_IMAGES.name, TRAIN_LABELS.name
HELD_OUT = TEST_IMAGES.name, TEST_LABELS.name
_CHUNK = 1 << 20  # bytes of a compressed file


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes.

    Attributes:
        images: uint8 [N, H, W, C], 0 to 255, N, H and W 1 or more, C 1 or 3.
        labels: uint8 [N], numbers of classes.
    """

    images: Array
    labels: Array


def find(folder: Path, name: str) -> Path:
    """Returns the path of one of the files in a folder.

    Args:
        folder: where it is, gzip or not.
        name: that MNIST's has; one of pictures in colour has four axes, and may say so: "idx4".

    Raises:
        DatasetError: it is not there.
    """
    names = names_of(name)
    for each in names:
        if (folder / each).is_file():
            return folder / each
    if not folder.is_dir():
        raise NoFolderError(f"no folder {folder}")
    raise DatasetError(f"{folder} has none of {', '.join(names)}")


def has_held_out(folder: Path) -> bool:
    """Returns whether a folder has a file of the held-out part, under any name that it may have."""
    return any((folder / each).is_file() for name in HELD_OUT for each in names_of(name))


def names_of(name: str) -> list[str]:
    """Returns the names that a file may have which is called so in MNIST."""
    names = _published_names(name)
    if "idx3" in name:
        names += _published_names(name.replace("idx3", "idx4"))
    return names


def read_pair(folder: Path, names: Sequence[str]) -> Labelled:
    """Returns pictures and their classes.

    Args:
        folder: where the files are, gzip or not.
        names: of the two, `TRAIN` or `HELD_OUT`.

    Raises:
        DatasetError: a file is missing, cannot be read, is damaged or no IDX file, or the two do
            not go together.
    """
    paths = [find(folder, name) for name in names]
    images, labels = map(read, paths)
    known = images.ndim in (3, 4) and images.shape[3:] in ((), (1,), (3,))
    if not known or 0 in images.shape[1:]:
        raise DatasetError(
            f"{paths[0]}: holds {_times(images.shape)}; pictures are N x rows x columns, or with "
            "1 or 3 channels as a fourth axis"
        )
    if labels.ndim != 1:
        raise DatasetError(f"{paths[1]}: holds {_times(labels.shape)}; labels have one axis")
    if len(images) != len(labels):
        raise DatasetError(
            f"{paths[0]} has {len(images):,} pictures, {paths[1].name} {len(labels):,} labels"
        )
    if not len(images):
        raise DatasetError(f"{paths[0]}: has no pictures")
    return Labelled(images[..., np.newaxis] if images.ndim == 3 else images, labels)


def read(path: Path) -> Array:
    """Returns the array in an IDX file of bytes: uint8 of one to four axes, read-only.

    Args:
        path: of the file; one that ends with .gz is decompressed, no further than its header says.

    Raises:
        DatasetError: it cannot be read, is damaged, or no IDX file.
    """
    try:
        with path.open("rb") as file:
            data = _unpacked(file, path) if path.suffix == ".gz" else file.read()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    return idx.decode(data, idx.read_shape(data[: idx.LONGEST_HEADER], str(path)), str(path))


def _unpacked(file: IO[bytes], path: Path) -> bytes:
    """Returns the decompressed file, cut one byte after its proper size: a bomb stays small."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: with a gzip header
    content, most = bytearray(), idx.LONGEST_HEADER
    size: int | None = None
    try:
        while not unpacker.eof and len(content) < most:
            packed = unpacker.unconsumed_tail or file.read(_CHUNK)
            more = unpacker.decompress(packed, most - len(content))
            if not packed and not more:
                break
            content += more
            if size is None and len(content) == most:
                size = idx.size(idx.read_shape(bytes(content), str(path)))
                most = size + 1
    except zlib.error as error:
        raise DatasetError(f"{path}: damaged gzip: {error}") from error
    if not unpacker.eof and len(content) < most:
        of = "" if size is None else f" of {size:,}"
        raise DatasetError(f"{path}: damaged gzip: it ends after {len(content):,} bytes{of}")
    return bytes(content)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))

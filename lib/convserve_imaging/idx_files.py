"""Two pairs of IDX files under MNIST's names, whatever is in them: pictures and their classes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_imaging import idx
from convserve_imaging.errors import DatasetError, NoFolderError
from convserve_imaging.gzip_files import Content
from convserve_imaging.mnist_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from convserve_imaging.mnist_files import names_of as _published_names

Array = npt.NDArray[np.uint8]

TRAIN = TRAIN_IMAGES.name, TRAIN_LABELS.name
HELD_OUT = TEST_IMAGES.name, TEST_LABELS.name


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes.

    Attributes:
        images: uint8 [N, H, W, C], 0 to 255, N, H and W 1 or more, C 1 or 3.
        labels: uint8 [N], numbers of classes.
    """

    images: Array
    labels: Array

    def numbered_from(self, first: int) -> "Labelled":
        """Returns the same with classes from 0, where their labels begin with `first`."""
        return Labelled(self.images, self.labels - np.uint8(first)) if first else self


def find(folder: Path, name: str) -> Path:
    """Returns the path of one of the four files in a folder.

    Args:
        folder: where it is, gzip or not.
        name: that MNIST's has; one of pictures in colour has four axes, and may say so: "idx4".
            Where no file is called so, it may have the name of a data set before it, and "test"
            for "t10k", as EMNIST's: "emnist-letters-test-images-idx3-ubyte".

    Raises:
        DatasetError: there is no such file, or there are those of several data sets.
    """
    names = names_of(name)
    for each in names:
        if (folder / each).is_file():
            return folder / each
    if not folder.is_dir():
        raise NoFolderError(f"no folder {folder}")
    found = _prefixed(folder, name)
    if not found:
        raise DatasetError(f"{folder}: expected one of {', '.join(names)}, got none")
    if len(found) > 1:
        raise DatasetError(
            f"{folder}: expected the four files of one data set, got those of {len(found)} "
            f"({', '.join(sorted(found))}); move one's into a folder of its own"
        )
    return found.popitem()[1]


def has_held_out(folder: Path) -> bool:
    """Returns whether a folder has a file of the held-out part, under any name that it may have."""
    exact = ((folder / each).is_file() for name in HELD_OUT for each in names_of(name))
    return any(exact) or any(_prefixed(folder, name) for name in HELD_OUT)


def _prefixed(folder: Path, name: str) -> dict[str, Path]:
    """Returns the files that may be meant by a name, by the data set that their names say."""
    part, kind, *_ = name.split("-")
    parts = "t10k|test" if part == "t10k" else part
    pattern = re.compile(rf"(?:(.+)-)?(?:{parts})-{kind}[-.]idx[134]-ubyte(?:\.gz)?")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (matched := pattern.fullmatch(path.name)) and path.is_file():
            found.setdefault(matched[1] or "", path)
    return found


def names_of(name: str) -> list[str]:
    """Returns the names that a file of this name in MNIST may have."""
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
        DatasetError: a file is missing, cannot be read, is damaged or not an IDX file, or the two
            do not belong together.
    """
    paths = [find(folder, name) for name in names]
    images, labels = map(read, paths)
    known = images.ndim in (3, 4) and images.shape[3:] in ((), (1,), (3,))
    if not known or 0 in images.shape[1:]:
        raise DatasetError(
            f"{paths[0]}: expected pictures of N x rows x columns, or with 1 or 3 channels as a "
            f"fourth axis, got {_times(images.shape)}"
        )
    if labels.ndim != 1:
        raise DatasetError(f"{paths[1]}: expected labels of one axis, got {_times(labels.shape)}")
    if len(images) != len(labels):
        raise DatasetError(
            f"{paths[1]}: expected {len(images):,} labels, one for each picture of "
            f"{paths[0].name}, got {len(labels):,}"
        )
    if not len(images):
        raise DatasetError(f"{paths[0]}: expected pictures, got none")
    return Labelled(images[..., np.newaxis] if images.ndim == 3 else images, labels)


def read(path: Path) -> Array:
    """Returns the array in an IDX file of bytes: uint8 of one to four axes, read-only.

    Args:
        path: of the file; gzip is unpacked, whatever its name, no further than its header says.

    Raises:
        DatasetError: it cannot be read, is damaged, or is not an IDX file.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            content = Content(file, name)
            head = content.upto(idx.LONGEST_HEADER)
            shape = idx.read_shape(head, name)
            # One byte more than it should have: a bomb stays small.
            most = idx.size(shape) + 1 if content.is_packed else path.stat().st_size
            data = content.upto(max(most, len(head)), idx.size(shape))
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    return idx.decode(data, shape, name)


def first_label(labels: Array, names: Sequence[str]) -> int:
    """Returns the label of the first of some classes: 0, or the number that a data set begins with.

    EMNIST's letters have the labels 1 to 26. If there are as many labels as classes, it is the
    smallest label; if some are missing, names that are numbers decide, as "1" to "26" do.

    Args:
        labels: uint8 [N], 1 or more.
        names: of the classes.
    """
    least, most = int(labels.min()), int(labels.max())
    if most - least + 1 == len(names):
        return least
    if names[0].isascii() and names[0].isdecimal():
        first = int(names[0])
        follow = list(names) == [str(first + number) for number in range(len(names))]
        if follow and first <= least and most < first + len(names):
            return first
    return 0


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))

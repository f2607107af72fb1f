"""IDX data sets made for tests: pictures whose classes differ in colour or in place."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_imaging import idx

Array = npt.NDArray[np.uint8]


def encoded(array: Array) -> bytes:
    return idx.header(array.shape) + array.tobytes()


def labelled(
    counts: Sequence[int], shape: tuple[int, ...] = (12, 16, 3), seed: int = 0
) -> tuple[Array, Array]:
    """Returns so many pictures of each class, class after class, and their labels.

    A picture in colour is bright in its class's channel, a grey one in its class's rows.
    """
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    images = generator.integers(0, 100, (len(labels), *shape), np.uint8)
    for image, label in zip(images, labels, strict=True):
        if shape[2:] == (3,):
            image[..., label] += 120
        else:
            rows = shape[0] // len(counts)
            image[label * rows : (label + 1) * rows] += 120
    return images, labels


def write(
    folder: Path,
    train: Sequence[int] = (20, 20, 20),
    held_out: Sequence[int] = (10, 10, 10),
    shape: tuple[int, ...] = (12, 16, 3),
    *,
    packed: bool = False,
) -> Path:
    """Writes a data set with so many pictures of each class, gzip or not."""
    parts = labelled(train, shape, seed=1), labelled(held_out, shape, seed=2)
    return write_arrays(folder, *parts, packed=packed)


def write_arrays(
    folder: Path,
    train: tuple[Array, Array],
    held_out: tuple[Array, Array],
    *,
    packed: bool = False,
) -> Path:
    """Writes these pictures with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("t10k", held_out)):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            data, suffix = encoded(array), ""
            if packed:
                data, suffix = gzip.compress(data), ".gz"
            (folder / f"{part}-{name}-ubyte{suffix}").write_bytes(data)
    return folder

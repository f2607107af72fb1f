"""Any IDX data set as the data of a training: pictures as they are, under MNIST's file names."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from convserve_imaging import PIXELS, idx_files, mnist_files
from convserve_imaging.folder_names import class_name
from convserve_imaging.idx_files import HELD_OUT, TRAIN, Labelled
from convserve_protos.bundle_pb2 import IMAGE_KIND_PIXELS, InputSpec, Manifest
from convserve_trainer.datasets.class_names import check_limit, class_names
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import ArrayPictures, Data, Part, Pictures
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, translate_imaging_errors

Say = Callable[[str], None]
"""Takes a line on what is found."""

FASHION_MNIST = {
    "train-images-idx3-ubyte": "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc",
    "train-labels-idx1-ubyte": "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc",
    "t10k-images-idx3-ubyte": "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229",
    "t10k-labels-idx1-ubyte": "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf",
}
"""SHA-256 of its four files as published, compressed.

Source: TensorFlow Datasets, url_checksums of fashion_mnist.
"""

FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""Source: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST", table 2."""


def load(folder: Path, names: Sequence[str] | None, limit: int | None, say: Say) -> Data:
    """Returns the data set in a folder that is not MNIST.

    Args:
        folder: with the four files, gzip or not.
        names: of the classes, in the order of their numbers; None for those in its labels.txt, or
            Fashion-MNIST's if it is that, or else the numbers.
        limit: train on so many only, of all classes alike; None for all.
        say: takes a line on what it is.

    Raises:
        DataError: a file is missing or damaged, they do not go together, or classes are missing.
        UsageError: `limit` is too small for the classes.
    """
    with translate_imaging_errors():
        train, held_out = (idx_files.read_pair(folder, pair) for pair in (TRAIN, HELD_OUT))
    if train.images.shape[1:] != held_out.images.shape[1:]:
        raise DataError(
            f"{shown(folder)}: pictures to train on have {_size(train)}, those held out "
            f"{_size(held_out)}"
        )
    every = np.concatenate([train.labels, held_out.labels])
    first = int(every.min())
    count = 1 + int(every.max()) - first
    fashion = _is_fashion_mnist(folder)
    labels = class_names(folder, names, count, FASHION_NAMES if fashion else None, first)
    train, held_out = train.numbered_from(first), held_out.numbered_from(first)
    what = "Fashion-MNIST" if fashion else _not_mnist(folder)
    say(
        f"{shown(folder)}: {len(train.labels):,} pictures to train on and "
        f"{len(held_out.labels):,} held out, {_size(train)}, {len(labels)} classes"
        f"{f' with the labels {first} to {first + count - 1}' if first else ''}; {what}"
    )
    for part, which in ((train, "to train on"), (held_out, "held out")):
        _check_classes(folder, part, labels, which, first)
    check_limit(limit, len(labels))
    train = _limited(train, limit)
    whole = Dataset(train.images, train.labels, held_out.images, held_out.labels)
    height, width, channels = train.images.shape[1:]
    return Data(
        what="pictures",
        labels=labels,
        spec=InputSpec(
            height=height, width=width, channels=channels, kind=IMAGE_KIND_PIXELS, resize=PIXELS
        ),
        train=ArrayPictures(train.images, train.labels),
        held_out=_mixed(held_out),
        sha256=whole.sha256(),
    )


def held_out(folder: Path, names: Sequence[str] | None, manifest: Manifest) -> Pictures:
    """Returns the held-out pictures in a folder for a bundle of such data.

    Args:
        folder: with the two files, gzip or not.
        names: of the classes; None for those in its labels.txt, or else the bundle's.
        manifest: of the bundle.

    Raises:
        DataError: a file is missing or damaged, they do not go together, or have other sizes or
            classes than the bundle.
    """
    with translate_imaging_errors():
        part = idx_files.read_pair(folder, HELD_OUT)
    spec = manifest.input
    found, expected = part.images.shape[1:], (spec.height, spec.width, spec.channels)
    if found != expected:
        raise DataError(
            f"{shown(folder)}: expected pictures of {' x '.join(map(str, expected))} for the "
            f"bundle {manifest.name}, got {' x '.join(map(str, found))}"
        )
    first = idx_files.first_label(part.labels, manifest.labels)
    part = part.numbered_from(first)
    count = 1 + int(part.labels.max())
    labels = class_names(folder, names, count, manifest.labels)
    if labels != tuple(map(class_name, manifest.labels)):
        raise DataError(
            f"{shown(folder)}: expected the classes of the bundle {manifest.name}, "
            f"{', '.join(manifest.labels)}, got {', '.join(labels)}"
        )
    return _mixed(part)


def _size(part: Labelled) -> str:
    height, width, channels = part.images.shape[1:]
    return f"{height} x {width} {'grey' if channels == 1 else 'RGB'}"


def _mixed(part: Labelled) -> Pictures:
    """Returns pictures in an order of which any first part is a fair sample."""
    order = np.random.default_rng(0).permutation(len(part.labels))
    return Part(ArrayPictures(part.images, part.labels), order)


def _check_classes(
    folder: Path, part: Labelled, labels: Sequence[str], which: str, first: int
) -> None:
    there = set(np.unique(part.labels).tolist())
    missing = {name: first + n for n, name in enumerate(labels) if n not in there}
    if missing:
        numbers = [str(number) for number in missing.values()]
        named = "" if numbers == list(missing) else f" (label {', '.join(numbers)})"
        raise DataError(
            f"{shown(folder)}: no picture {which} of the class {', '.join(missing)}{named}; labels "
            "must follow each other, each with pictures in both parts"
        )


def _limited(part: Labelled, limit: int | None) -> Labelled:
    """Returns the first `limit` pictures, the first of each class before the second of any."""
    if limit is None:
        return part
    ranks = np.empty(len(part.labels), np.int64)
    for label in np.unique(part.labels):
        numbers = np.flatnonzero(part.labels == label)
        ranks[numbers] = np.arange(len(numbers))
    first = np.sort(np.lexsort((part.labels, ranks))[:limit])
    return Labelled(part.images[first], part.labels[first])


def _is_fashion_mnist(folder: Path) -> bool:
    return all(
        _sha256(idx_files.find(folder, name)) == digest for name, digest in FASHION_MNIST.items()
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _not_mnist(folder: Path) -> str:
    """Returns what to say of files that are not MNIST's, or not all of them."""
    changed = [
        file.name for file in mnist_files.FILES if not mnist_files.is_published(folder, file)
    ]
    if len(changed) == len(mnist_files.FILES):
        return "not MNIST's bytes"
    return f"MNIST's bytes, but for {', '.join(changed)}"

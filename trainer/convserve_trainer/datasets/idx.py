"""The format IDX: MNIST, or another data set under MNIST's file names in a folder."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from convserve_imaging import mnist_files
from convserve_imaging.errors import DatasetError
from convserve_imaging.idx_files import find
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, Manifest
from convserve_trainer.datasets import idx_sets, mnist
from convserve_trainer.datasets.class_names import check_limit
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.errors import DataError, UsageError

Say = Callable[[str], None]
"""Takes a line on what is done or found."""


def match(folder: Path) -> bool:
    """Returns whether a folder has one of MNIST's four files, gzip or not."""
    for file in mnist_files.FILES:
        try:
            find(folder, file.name)
        except DatasetError:
            continue
        return True
    return False


def load(source: Source, limit: int | None, say: Say) -> Data:
    """Returns MNIST, or the data set in a folder.

    Args:
        source: the folder with the four files, None for MNIST from the user's cache or a download,
            and the names of the classes.
        limit: train on so many only; None for all.
        say: takes lines.

    Raises:
        DataError: see `mnist.load` and `idx_sets.load`.
        UsageError: `limit` is too small for the classes, or names are given for MNIST.
    """
    folder = source.folder
    if folder is not None and not mnist_files.are_published(folder):
        data = idx_sets.load(folder, source.labels, limit, say)
        return replace(data, ignore_accuracy_floor=source.ignore_accuracy_floor)
    _refuse_names(source.labels)
    check_limit(limit, len(mnist.LABELS))
    return mnist.make_data(mnist.load(folder, say).limited(limit))


def held_out(source: Source, manifest: Manifest, say: Say) -> Pictures:
    """Returns the held-out part of MNIST or, for a bundle of another data set, of a folder.

    Args:
        source: see `load`; without names those of labels.txt, or else the bundle's.
        manifest: of the bundle.
        say: takes lines.

    Raises:
        DataError: see `mnist.load` and `idx_sets.held_out`; or the bundle has other labels.
        UsageError: the bundle needs a folder, or names are given for MNIST.
    """
    if manifest.input.kind == IMAGE_KIND_DIGITS:
        return _held_out_digits(source, manifest, say)
    if source.folder is None:
        raise UsageError(
            f"--data: expected the folder of the data set that the bundle {manifest.name} was "
            "trained on, got none"
        )
    return idx_sets.held_out(source.folder, source.labels, manifest)


def _held_out_digits(source: Source, manifest: Manifest, say: Say) -> Pictures:
    _refuse_names(source.labels)
    if tuple(manifest.labels) != mnist.LABELS:
        raise DataError(
            f"labels: expected those of MNIST, {', '.join(mnist.LABELS)}, got from the bundle "
            f"{manifest.name} {', '.join(manifest.labels)}"
        )
    try:
        return mnist.make_data(mnist.load(source.folder, say)).held_out
    except DataError as error:
        kind = type(error)  # A folder that is not there stays one.
        raise kind(f"{error}; the bundle {manifest.name} is for MNIST alone") from error


def _refuse_names(names: Sequence[str] | None) -> None:
    if names is not None and tuple(names) != mnist.LABELS:
        raise UsageError(
            f"--labels: expected for other data than MNIST only, got {','.join(names)} for MNIST, "
            "whose classes are 0 to 9"
        )

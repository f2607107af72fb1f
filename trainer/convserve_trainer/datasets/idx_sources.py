"""The data of the task digits: MNIST, or the IDX data set in a folder that the user names."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from convserve_imaging import mnist_files
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, Manifest
from convserve_trainer.datasets import digits, idx_sets, mnist
from convserve_trainer.datasets.class_names import check_limit
from convserve_trainer.datasets.pictures import Data, Pictures
from convserve_trainer.errors import DataError, UsageError

Say = Callable[[str], None]
"""Takes a line on what is done or found."""


def training(
    folder: Path | None,
    names: Sequence[str] | None,
    limit: int | None,
    say: Say,
    *,
    ignore_accuracy_floor: bool,
) -> Data:
    """Returns MNIST, or the data set in a folder.

    Args:
        folder: with the four files; None for MNIST from the user's cache, or a download.
        names: of the classes; None for those that the data have.
        limit: train on so many only; None for all.
        say: takes lines.
        ignore_accuracy_floor: whether other data than MNIST need not meet the recipe's floor.

    Raises:
        DataError: see `mnist.load` and `idx_sets.load`.
        UsageError: `limit` is too small for the classes, or `names` are for MNIST.
    """
    if folder is not None and not mnist_files.are_published(folder):
        return replace(
            idx_sets.load(folder, names, limit, say), ignore_accuracy_floor=ignore_accuracy_floor
        )
    _refuse_names(names)
    check_limit(limit, len(digits.LABELS))
    return digits.data(mnist.load(folder, say).limited(limit))


def held_out(
    folder: Path | None, names: Sequence[str] | None, manifest: Manifest, say: Say
) -> Pictures:
    """Returns the held-out part of MNIST or, for a bundle of another data set, of a folder.

    Args:
        folder: with the files; None for MNIST from the user's cache, or a download.
        names: of the classes; None for those in the folder's labels.txt, or else the bundle's.
        manifest: of the bundle.
        say: takes lines.

    Raises:
        DataError: see `mnist.load` and `idx_sets.held_out`; or the bundle has other labels.
        UsageError: the bundle needs a folder, or `names` are for MNIST.
    """
    if manifest.input.kind == IMAGE_KIND_DIGITS:
        _refuse_names(names)
        if tuple(manifest.labels) != digits.LABELS:
            raise DataError(
                f"the bundle {manifest.name} has the labels {', '.join(manifest.labels)}, "
                f"MNIST has {', '.join(digits.LABELS)}"
            )
        try:
            return digits.data(mnist.load(folder, say)).held_out
        except DataError as error:
            kind = type(error)  # A folder that is not there stays one.
            raise kind(f"{error}; the bundle {manifest.name} takes MNIST alone") from error
    if folder is None:
        raise UsageError(f"the bundle {manifest.name} needs --data DIR, the data set that it is of")
    return idx_sets.held_out(folder, names, manifest)


def _refuse_names(names: Sequence[str] | None) -> None:
    if names is not None and tuple(names) != digits.LABELS:
        raise UsageError("--labels is for other data than MNIST, whose classes are 0 to 9")

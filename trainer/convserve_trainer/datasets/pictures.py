"""What a training needs of its data: pictures that come in batches, in any order, and labels."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.datasets.columns import USUAL, Columns
from convserve_trainer.errors import UsageError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.uint8]
"""Int64 [N], 0 to K - 1; of several labels a picture uint8 [N, K], 1 for each that one has."""
Sizes: TypeAlias = npt.NDArray[np.int64]
"""Height and width of each picture as its file has them, upright: int64 [N, 2]."""
Batch: TypeAlias = tuple[Pixels, Labels]
"""uint8 [N, H, W, C], 0 to 255, not scaled, and their labels."""


class Pictures(Protocol):
    """Pictures with their labels, numbered from 0."""

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """The numbers of their classes, [N], 0 to K - 1; of several labels [N, K], see `Labels`."""

    @property
    def in_memory(self) -> bool:
        """Whether a batch costs next to nothing, because no file is decoded for it."""

    @property
    def sizes(self) -> Sizes | None:
        """Those of their files; None where pictures are stored in the size that nets are given."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        """Yields the pictures of these numbers, `size` at a time; the last batch may be smaller.

        Args:
            order: numbers of pictures; it may be endless.
            size: pictures a batch, 1 or more.
            steps: at most so many batches; None for as many as the order fills.
        """


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures that are in memory, or in a file that is mapped into it.

    Attributes:
        pixels: uint8 [N, H, W, C].
        labels: [N], 0 to K - 1, or [N, K]; see `Labels`.
        sizes: of the files; None where pictures are stored in the size that nets are given.
    """

    pixels: Pixels
    labels: npt.NDArray[np.integer]
    sizes: Sizes | None = None
    in_memory = True

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        """See `Pictures`."""
        numbers = iter(order)
        parts = iter(lambda: list(islice(numbers, size)), [])
        for part in islice(parts, steps):
            yield self.pixels[part], self.labels[part].astype(np.int64)


@dataclass(frozen=True)
class Part:
    """Some of other pictures.

    Attributes:
        whole: all of them.
        numbers: of those that are used, in their new order.
    """

    whole: Pictures
    numbers: npt.NDArray[np.integer]

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """See `Pictures`."""
        labels: npt.NDArray[np.integer] = self.whole.labels[self.numbers]
        return labels

    @property
    def in_memory(self) -> bool:
        """See `Pictures`."""
        return self.whole.in_memory

    @property
    def sizes(self) -> Sizes | None:
        """See `Pictures`."""
        sizes = self.whole.sizes
        return None if sizes is None else sizes[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        """See `Pictures`."""
        return self.whole.batches((int(self.numbers[n]) for n in order), size, steps)


@dataclass(frozen=True)
class Source:
    """Which data, and how they are read; each format uses what concerns it.

    Attributes:
        folder: of the data; None for those that a format finds by itself.
        height: rows that each picture is given; None where the data have a size.
        width: columns likewise.
        split: share of one folder of class folders that is held out; None for two folders.
        max_unreadable: share of the pictures that may be lost, 0 to 1.
        cache: of decoded pixels, one of `photo_cache.MODES`; None for what suits the memory.
        cache_bytes: that the caches of pixels of all data sets may fill on disk; None for a quarter
            of what is free.
        channels: that each picture is given, 3 (RGB) or 1 (grey); the data's where they have some.
        labels: names of the classes, in the order of their numbers; None for those of the data.
        method: by which photographs become pixels, one of `convserve_imaging.METHODS`; None for
            that of JPEGs.
        subfolders: whether photographs in folders within a class's folder count for the class.
        columns: of a list of photographs.
        labelled: whether a list needs labels.
        part: of the data that is evaluated, one of `parts.PARTS`; None for the usual one.
        ignore_accuracy_floor: whether data that the shipped recipes are not for need not meet the
            recipe's accuracy floor.
    """

    folder: Path | None
    height: int | None = None
    width: int | None = None
    split: float | None = None
    max_unreadable: float = 0.01
    cache: str | None = None
    cache_bytes: int | None = None
    channels: int = 3
    labels: Sequence[str] | None = None
    method: str | None = None
    subfolders: bool = False
    columns: Columns = USUAL
    labelled: bool = True
    part: str | None = None
    ignore_accuracy_floor: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError where a share is out of its range, or options exclude each other."""
        if self.split is not None and not 0 < self.split < 1:
            raise UsageError(
                f"--validation-split: expected more than 0 and less than 1, got {self.split}"
            )
        if self.split is not None and self.part is not None:
            raise UsageError("--part: expected without --validation-split, got both")
        if not 0 <= self.max_unreadable <= 1:
            raise UsageError(f"--max-unreadable: expected 0 to 1, got {self.max_unreadable}")


@dataclass(frozen=True)
class Data:
    """Pictures to train on and others that are held out.

    Attributes:
        what: they are, for messages: "digits".
        labels: names of the K classes, in the order of their numbers.
        spec: what one picture is like.
        train: never empty.
        held_out: never trained on; never empty. Any first part of it is a fair sample.
        validation: of what is neither, chooses the weights; None where there is none.
        calibration: of what is neither, decides a temperature; None where there is none.
        thresholds: those of the validation, or of the calibration, or others that are none of
            these, decide the thresholds of several labels; None with one label a picture.
        sha256: digest of all of it, hexadecimal.
        method: by which photographs become pixels, one of `convserve_imaging.METHODS`; None for
            that of JPEGs.
        subfolders: whether photographs in folders within a class's folder count for the class.
        ignore_accuracy_floor: whether the recipe's accuracy floor is not meant for such data.
        notes: returns, and forgets, lines on what has happened to the data since the last call.
    """

    what: str
    labels: Sequence[str]
    spec: InputSpec
    train: Pictures
    held_out: Pictures
    sha256: str
    validation: Pictures | None = None
    calibration: Pictures | None = None
    thresholds: Pictures | None = None
    ignore_accuracy_floor: bool = False
    notes: Callable[[], list[str]] = list

    @property
    def several(self) -> bool:
        """Whether a picture has any number of the labels, and not one of the classes."""
        return self.train.labels.ndim == 2

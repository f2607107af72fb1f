"""What a training needs of its data: pictures that come in batches, in any order, and labels."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_protos.bundle_pb2 import InputSpec

Pixels: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]
Batch: TypeAlias = tuple[Pixels, Labels]
"""uint8 [N, H, W, C], 0 to 255, not scaled, and int64 [N], 0 to K - 1."""


class Pictures(Protocol):
    """Pictures with their labels, numbered from 0."""

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
        labels: [N], 0 to K - 1.
    """

    pixels: Pixels
    labels: npt.NDArray[np.integer]

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
class Data:
    """Pictures to train on and others that are held out.

    Attributes:
        what: they are, for messages: "digits".
        labels: names of the K classes, in the order of their numbers.
        spec: what one picture is like.
        train: never empty.
        held_out: never trained on; never empty. Any first part of it is a fair sample.
        sha256: digest of all of it, hexadecimal.
        notes: returns, and forgets, lines on what has happened to the data since the last call.
    """

    what: str
    labels: Sequence[str]
    spec: InputSpec
    train: Pictures
    held_out: Pictures
    sha256: str
    notes: Callable[[], list[str]] = list

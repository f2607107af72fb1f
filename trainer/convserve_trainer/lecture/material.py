"""What the topics work with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.lecture.net import Net
from convserve_trainer.lecture.scales import Scale

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photographs:
    """Held-out photographs.

    Attributes:
        pixels: uint8 [N, H, W, C], as the net for photographs takes them.
        labels: [N].
        names: of the classes.
        large: one of them at a size to look at, uint8 [H, W, 3].
    """

    pixels: Pixels
    labels: npt.NDArray[np.integer]
    names: tuple[str, ...]
    large: Pixels


@dataclass(frozen=True)
class Material:
    """What the topics work with.

    Attributes:
        net: the user's, for digits.
        digits: MNIST; to train on, what the user's net was trained on.
        sha256: digest of that and of all held-out digits, as in a manifest.
        photo_net: the user's net for photographs, if there is one.
        photographs: if a folder was named.
        scale: how much is tried.
        done: takes the share of the topic that is done, 0 to 1, and what it was; it prints them.
    """

    net: Net
    digits: Dataset
    sha256: str
    photo_net: Net | None
    photographs: Photographs | None
    scale: Scale
    done: Callable[[float, str], None]

    def digit(self, figure: int = 4) -> Pixels:
        """Returns the first held-out digit of that figure, uint8 [28, 28, 1]."""
        pixels: Pixels = self.digits.test_images[self.digits.test_labels == figure][0]
        return pixels

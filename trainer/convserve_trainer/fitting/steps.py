"""Steps of a training, many in one call: what each backend has to offer."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.fitting.chunks import StepChunker

Targets: TypeAlias = npt.NDArray[np.float32]
"""float32 [N, K]: what the net should answer."""
Arrays: TypeAlias = tuple[Pixels, Targets] | tuple[Pixels, Targets, npt.NDArray[np.float32]]
"""Of a batch; the third, float32 [N], is what each picture counts."""
Figures: TypeAlias = dict[str, float]
"""Means over a batch: "loss", nats, "accuracy", 0 to 1; in training its "learning_rate", too."""
MEANS, RATE = ("loss", "accuracy"), "learning_rate"


class Steps(Protocol):
    """Steps of a compiled model.

    Attributes:
        chunker: measures how long the steps of the training take.
        class_weights: float32 [K], what a picture of each class counts in training; None for all
            the same.
    """

    chunker: StepChunker
    class_weights: npt.NDArray[np.float32] | None

    def train(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Trains on batches of one size, in order; returns the figures of each.

        With class weights each batch has a third array: what its pictures count.
        """
        ...

    def test(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Returns the figures of batches of one size; changes nothing that is trained."""
        ...

"""Steps of a training, many in one call: what each backend has to offer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

Targets: TypeAlias = npt.NDArray[np.float32]
"""float32 [N, K]: what the net should say."""
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


def make_steps(
    model: "keras.Model",
    chunker: StepChunker,
    class_weights: npt.NDArray[np.float32] | None = None,
    parts: int = 1,
) -> Steps:
    """Returns the steps of a model; see `Steps` for the arguments.

    Args:
        model: compiled, takes uint8 [N, H, W, C] and has the metric "accuracy".
        chunker: see there.
        class_weights: see there.
        parts: of each batch that is trained on, computed at the same time by TensorFlow.
    """
    if keras_backend.chosen() == "jax":
        from convserve_trainer.fitting import jax_steps

        return jax_steps.Steps(model, chunker, class_weights)
    from convserve_trainer.fitting import tensorflow_steps

    return tensorflow_steps.Steps(model, chunker, class_weights, parts)

"""The convnet's rival: a dense net with as many parameters, trained alike."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer import keras_backend
from convserve_trainer.lecture.net import Net

if TYPE_CHECKING:
    import keras

    from convserve_trainer.lecture.material import Pixels

TOLERANCE = 0.01
"""By how much the two may differ in their parameters, as a share."""


def units(inputs: int, classes: int, parameters: int) -> int:
    """Returns the hidden units of a dense net with about so many parameters, 1 or more.

    One hidden layer of u units has (inputs + 1) u + (u + 1) classes parameters.
    """
    return max(1, round((parameters - classes) / (inputs + 1 + classes)))


def build(net: Net, seed: int) -> "keras.Model":
    """Returns a dense net with as many parameters as the convnet, within TOLERANCE if it can be.

    Its weights are drawn from the seed; it is not compiled.
    """
    keras = keras_backend.load()
    keras.utils.set_random_seed(seed)
    spec, classes = net.manifest.input, len(net.manifest.labels)
    inputs = spec.height * spec.width * spec.channels
    hidden = units(inputs, classes, net.model.count_params())
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((spec.height, spec.width, spec.channels), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(hidden, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def fresh(net: Net, seed: int) -> "keras.Model":
    """Returns a net of the same layers as the user's, its weights drawn anew; not compiled."""
    keras = keras_backend.load()
    keras.utils.set_random_seed(seed)
    return type(net.model).from_config(net.model.get_config())


@dataclass(frozen=True)
class Training:
    """How both are trained: what the manifest of the user's net says of its own training.

    Attributes:
        optimizer: Keras's name.
        learning_rate: of it.
        batch_size: pictures a step.
        epochs: of the user's net.
    """

    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.optimizer} at {self.learning_rate:g}, batches of {self.batch_size}"

    def compile(self, model: "keras.Model") -> None:
        """Gives a net its optimizer and the cross-entropy of whole labels as its loss."""
        optimizer = keras_backend.load().optimizers.get(self.optimizer)
        optimizer.learning_rate = self.learning_rate
        model.compile(
            optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )


def training(net: Net) -> Training:
    """Returns how a net was trained; what its recipe does not say is as in the lecture's."""
    said: dict[str, Any] = json.loads(net.manifest.training.recipe_json or "{}")
    optimizer, rate = said.get("optimizer"), said.get("learning_rate")
    return Training(
        optimizer if isinstance(optimizer, str) else "rmsprop",
        float(rate) if isinstance(rate, int | float) else 1e-3,
        int(said.get("batch_size") or 64),
        max(1, net.manifest.training.epochs),
    )


def fit(
    model: "keras.Model",
    pixels: "Pixels",
    labels: npt.NDArray[np.integer],
    how: Training,
    steps: int,
    seed: int,
    told: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains a compiled net for so many steps, on shuffled passes drawn from the seed.

    Args:
        model: changed in place.
        pixels: uint8 [N, H, W, C].
        labels: [N].
        how: its batch size counts.
        steps: of training.
        seed: of the order.
        told: takes the steps that are done, every hundred.
    """
    generator = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    for step in range(steps):
        while len(waiting) < how.batch_size:
            waiting = np.concatenate([waiting, generator.permutation(len(labels))])
        batch, waiting = waiting[: how.batch_size], waiting[how.batch_size :]
        model.train_on_batch(pixels[batch], labels[batch].astype(np.int64))
        if (step + 1) % 100 == 0:
            told(step + 1)

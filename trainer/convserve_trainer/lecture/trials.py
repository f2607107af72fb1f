"""Trainings for the lecture: the convnet anew, and its rival, by the recipe of the user's net.

The rival is a dense net with as many parameters.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_trainer.datasets.pictures import ArrayPictures
from convserve_trainer.errors import UsageError
from convserve_trainer.fitting import order
from convserve_trainer.lecture.net import Net
from convserve_trainer.nets import models
from convserve_trainer.recipes import layers
from convserve_trainer.recipes import recipe as recipes
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from convserve_trainer.lecture.material import Pixels

TOLERANCE = 0.01
"""By how much the two may differ in their trainable parameters, as a share."""


def units(inputs: int, classes: int, parameters: int) -> int:
    """Returns the hidden units of a dense net with about so many parameters, 1 or more.

    One hidden layer of u units has (inputs + 1) u + (u + 1) classes parameters.
    """
    return max(1, round((parameters - classes) / (inputs + 1 + classes)))


def trainable(model: "keras.Model") -> int:
    """Returns how many numbers a net learns."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def recipe(net: Net) -> Recipe:
    """Returns the recipe that a net was trained by.

    Raises:
        BundleError: its manifest has none, or one of another version.
    """
    try:
        return recipes.make_recipe(json.loads(net.manifest.training.recipe_json), "recipe: ")
    except (ValueError, UsageError) as error:
        raise BundleError(
            f"{net.file}: its recipe cannot be read ({error}); train it again with this version"
        ) from error


def rival(net: Net) -> Recipe:
    """Returns the recipe with a dense net of as many parameters in place of its own."""
    spec = net.manifest.input
    inputs = spec.height * spec.width * spec.channels
    hidden = units(inputs, len(net.manifest.labels), trainable(net.model))
    dense = (layers.Flatten(), layers.Dense(units=hidden))
    return msgspec.structs.replace(recipe(net), net=dense)


def for_steps(of: Recipe, steps: int, seed: int) -> Recipe:
    """Returns a recipe for one epoch of so many steps, without a validation.

    A schedule of the learning rate goes through all of its course in them.
    """
    return msgspec.structs.replace(
        of,
        epochs=1,
        steps=steps,
        warmup_epochs=of.warmup_epochs / of.epochs,
        validation_steps=None,
        validation_share=0.0,
        patience=None,
        limit=None,
        seed=seed,
    )


def steps(of: Recipe, pictures: int, epochs: int) -> int:
    """Returns the steps of so many epochs of a recipe."""
    return epochs * (of.steps or -(-pictures // of.batch_size))


def described(of: Recipe) -> str:
    """Returns what matters of a recipe in a line."""
    schedule = "" if of.schedule == "constant" else f" falling as a {of.schedule}"
    moved = "" if of.augmentation == Augmentation() else ", augmentation"
    smoothed = f", label smoothing {of.label_smoothing:g}" if of.label_smoothing else ""
    rate = f"{of.optimizer} at {of.learning_rate:g}{schedule}"
    return f"{rate}, batches of {of.batch_size}{moved}{smoothed}"


def build(net: Net, of: Recipe, pictures: int) -> "keras.Model":
    """Returns a compiled net for digits, its weights drawn from the recipe's seed."""
    return models.build(of, net.manifest.input, len(net.manifest.labels), pictures)


def fit(
    model: "keras.Model",
    pixels: "Pixels",
    labels: npt.NDArray[np.integer],
    of: Recipe,
    on_steps: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains a compiled net for the steps of a recipe that `for_steps` made.

    Args:
        model: changed in place.
        pixels: uint8 [N, H, W, C].
        labels: [N].
        of: how.
        on_steps: takes the steps that are done, every fifty.
    """
    assert of.steps is not None
    numbers = order.epoch_order(len(labels), of.batch_size, of.steps, of.seed, 0)
    classes = np.eye(model.output_shape[-1], dtype=np.float32)
    batches = ArrayPictures(pixels, labels).batches(numbers, of.batch_size, of.steps)
    for step, (batch, right) in enumerate(batches, start=1):
        model.train_on_batch(batch, classes[right])
        if step % 50 == 0:
            on_steps(step)

"""Weights that are the average of those of many steps.

The optimizer keeps the average, so it is in checkpoints; the training itself goes on with the
weights of its last step.

Source: Polyak and Juditsky 1992; Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima
    and Better Generalization", 3.2, for the statistics of normalisations.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.fitting import order
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

STEPS = 100  # batches by which statistics are measured, each of which counts a tenth


def averaged(
    model: "keras.Model", pictures: Pictures, recipe: Recipe
) -> list[npt.NDArray[np.float32]]:
    """Returns the average of a model's weights, in the order of `get_weights`.

    Statistics of normalisations belong to other weights, so they are measured anew, on pictures
    that are changed at random as in training.

    Args:
        model: trained, by an optimizer that keeps the average; its weights are the same afterwards.
        pictures: that it was trained on.
        recipe: of the training.

    Raises:
        DataError: too many pictures cannot be read.
    """
    now = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if model.non_trainable_weights:
        numbers = order.epoch_order(
            len(pictures), recipe.batch_size, STEPS, recipe.seed, recipe.epochs
        )
        for pixels, _ in pictures.batches(numbers, recipe.batch_size, STEPS):
            model(pixels, training=True)
    found: list[npt.NDArray[np.float32]] = model.get_weights()
    model.set_weights(now)
    return found

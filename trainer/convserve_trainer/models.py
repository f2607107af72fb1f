"""The nets, each uint8 pixels in and probabilities out; the scaling by 1/255 is a layer."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from convserve_trainer import keras_backend
from convserve_trainer.recipes import Recipe

if TYPE_CHECKING:
    import keras


def lecture() -> "keras.Model":
    """Returns the digit net of the lecture, 93,322 parameters, not compiled.

    Source: Chollet, "Deep Learning with Python", chapter on convnets.

    Returns:
        uint8 [N, 28, 28, 1] to float32 [N, 10], rows sum to 1.
    """
    keras = keras_backend.load()
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8", name="pixels"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        name="lecture",
    )


NETS: dict[str, Callable[[], "keras.Model"]] = {"lecture": lecture}


def build(recipe: Recipe) -> "keras.Model":
    """Returns the recipe's net, compiled, its weights drawn from the recipe's seed."""
    keras = keras_backend.load()
    keras.backend.clear_session()  # layer names start anew, so that they too are the same
    keras.utils.set_random_seed(recipe.seed)
    model = NETS[recipe.net]()
    optimizer = keras.optimizers.get(recipe.optimizer)
    optimizer.learning_rate = recipe.learning_rate
    model.compile(optimizer=optimizer, loss=recipe.loss, metrics=["accuracy"])
    return model

"""The nets, each uint8 pixels in and probabilities out; the scaling by 1/255 is a layer.

All are stacks of convolutions of 3 x 3 (relu, no padding), most of them halved by a max-pooling of
2 x 2, then a dense layer and the output. Two classes take one sigmoid unit by the loss
binary_crossentropy, the probability of the second class; everything else takes a softmax.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer import keras_backend
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Net:
    """What tells one stack from another.

    Attributes:
        filters: of each convolution.
        last_pooled: whether the last convolution, too, is followed by a pooling.
        dense: units of the dense layer.
    """

    filters: tuple[int, ...]
    last_pooled: bool
    dense: int

    @property
    def smallest(self) -> int:
        """The least rows or columns of a picture of which something is left in the end."""
        size = 1
        for convolution in reversed(range(len(self.filters))):
            size = (size * 2 if self._pooled(convolution) else size) + 2
        return size

    def layers(self, classes: int, sigmoid: bool) -> "list[keras.Layer]":
        """Returns the layers between the input and the probabilities."""
        layers = keras_backend.load().layers
        stack = [layers.Rescaling(1 / 255)]
        for convolution, filters in enumerate(self.filters):
            stack.append(layers.Conv2D(filters, 3, activation="relu"))
            if self._pooled(convolution):
                stack.append(layers.MaxPooling2D(2))
        stack += [layers.Flatten(), layers.Dense(self.dense, activation="relu")]
        output = (1, "sigmoid") if sigmoid else (classes, "softmax")
        return [*stack, layers.Dense(output[0], activation=output[1])]

    def _pooled(self, convolution: int) -> bool:
        return self.last_pooled or convolution + 1 < len(self.filters)


#: Source of the first two: Chollet, "Deep Learning with Python", chapter on convnets.
NETS = {
    "lecture": Net((32, 64, 64), last_pooled=False, dense=64),  # 93,322 parameters
    "lecture-photos": Net((32, 64, 128, 128), last_pooled=True, dense=512),  # 3,453,121
    "small-photos": Net((16, 32, 64), last_pooled=True, dense=64),  # 171,169 at 64 x 64
}


def check_size(recipe: Recipe) -> None:
    """Checks that the recipe's net can take pictures of the recipe's size.

    Raises:
        UsageError: they are too small.
    """
    smallest = NETS[recipe.net].smallest
    if recipe.height and recipe.width and min(recipe.height, recipe.width) < smallest:
        raise UsageError(
            f"--size is {recipe.height}x{recipe.width}; the net of recipe {recipe.name} "
            f"takes {smallest}x{smallest} or more"
        )


def build(recipe: Recipe, spec: InputSpec, classes: int) -> "keras.Model":
    """Returns the recipe's net, compiled, its weights drawn from the recipe's seed.

    Args:
        recipe: names the net, the optimizer and the loss.
        spec: of one picture.
        classes: that are told apart, 2 or more.

    Returns:
        uint8 [N, H, W, C] to float32 [N, K], rows sum to 1; for a sigmoid to float32 [N, 1].
    """
    keras = keras_backend.load()
    keras.backend.clear_session()  # layer names start anew, so that they too are the same
    keras.utils.set_random_seed(recipe.seed)
    pixels = keras.Input((spec.height, spec.width, spec.channels), dtype="uint8", name="pixels")
    sigmoid = recipe.loss == "binary_crossentropy"
    layers = NETS[recipe.net].layers(classes, sigmoid)
    model = keras.Sequential([pixels, *layers], name=recipe.net)
    optimizer = keras.optimizers.get(recipe.optimizer)
    optimizer.learning_rate = recipe.learning_rate
    model.compile(optimizer=optimizer, loss=recipe.loss, metrics=["accuracy"])
    return model


def of_columns(model: "keras.Model") -> "keras.Model":
    """Returns the net with a probability for each class: a sigmoid p becomes [1 - p, p].

    Servers and clients so know one shape only. The arithmetic is a product and a sum with
    constants, because a concatenation would not stay on a GPU.
    """
    if model.output_shape[-1] > 1:
        return model
    keras = keras_backend.load()
    columns = model.outputs[0] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    return keras.Model(model.inputs, columns, name=model.name)

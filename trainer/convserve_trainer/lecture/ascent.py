"""What excites a filter: pictures that were found, and pictures that are made for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.lecture.net import Net
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

    from convserve_trainer.lecture.material import Pixels

BATCH = 100
GREY, NOISE = 110.0, 12.0  # what ascent starts from: mean and standard deviation, 0 to 255
STEP = 3.0  # root mean square of what is added to the pixels in a step


@dataclass(frozen=True)
class Excited:
    """Which pictures excite each filter of a layer most, and where.

    Attributes:
        values: the largest answer to each picture, float [N, F].
        positions: row and column of it in the layer's map, int [N, F, 2].
        size: rows and columns of the map.
    """

    values: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int64]
    size: tuple[int, int]

    def top(self, filter_number: int, count: int) -> list[int]:
        """Returns the numbers of the pictures that excite a filter most, the first one most."""
        order = np.argsort(-self.values[:, filter_number], kind="stable")
        return [int(number) for number in order[:count]]

    def liveliest(self, count: int) -> list[int]:
        """Returns the numbers of the filters that tell pictures apart best, by their variance."""
        order = np.argsort(-self.values.var(axis=0), kind="stable")
        return sorted(int(number) for number in order[:count])

    @property
    def dead(self) -> int:
        """How many filters no picture excites."""
        return int((self.values.max(axis=0) <= 0).sum())


def search(net: Net, layer: "keras.Layer", pixels: "Pixels") -> Excited:
    """Returns what excites the filters of a layer among pictures, uint8 [N, H, W, C]."""
    part = net.upto(layer.name)
    values, positions = [], []
    height, width = layer.output.shape[1:3]
    for start in range(0, len(pixels), BATCH):
        answers = np.asarray(part(pixels[start : start + BATCH], training=False))
        flat = answers.reshape(len(answers), -1, answers.shape[-1])
        where = flat.argmax(axis=1)
        values.append(flat.max(axis=1))
        positions.append(np.stack([where // width, where % width], axis=-1))
    return Excited(np.concatenate(values), np.concatenate(positions), (height, width))


def ascend(
    net: Net, layer: "keras.Layer", filters: list[int], steps: int, seed: int
) -> npt.NDArray[np.float64]:
    """Returns pictures that excite filters, made from noise by gradient ascent.

    Each step adds the gradient of the filter's mean answer, brought to a fixed length, and clips to
    what a picture may hold. The answer is read before the activation: a filter that is silent on
    noise has no gradient behind a relu. The weights of the net stay as they are.

    Args:
        net: of the layer.
        layer: a convolution.
        filters: numbers of its filters.
        steps: of ascent.
        seed: of the noise.

    Returns:
        float64 [F, H, W, C], 0 to 255.

    Source: D. Erhan and others, "Visualizing Higher-Layer Features of a Deep Network", 2009; the
    normalised step is Chollet's, "Deep Learning with Python", chapter on convnets.
    """
    tensorflow = keras_backend.tensorflow()
    keras = keras_backend.load()
    part = net.upto(layer.name, floats=True)
    climbed = net.from_floats.get_layer(layer.name)
    activation, climbed.activation = climbed.activation, keras.activations.linear
    shape = (len(filters), *net.from_floats.inputs[0].shape[1:])
    noise = np.random.default_rng(seed).normal(GREY, NOISE, shape).astype(np.float32)
    pixels = tensorflow.Variable(np.clip(noise, 0, 255))
    chosen = tensorflow.one_hot(filters, layer.output.shape[-1])

    @tensorflow.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def climb() -> None:
        with tensorflow.GradientTape() as tape:
            answers = part(pixels, training=False)
            excitement = tensorflow.einsum("fhwk,fk->f", answers, chosen)
        slope = tape.gradient(excitement, pixels)
        length = tensorflow.sqrt(tensorflow.reduce_mean(slope**2, axis=(1, 2, 3), keepdims=True))
        raised = pixels + STEP * slope / (length + 1e-12)
        pixels.assign(tensorflow.clip_by_value(raised, 0.0, 255.0))

    try:
        for _ in range(steps):
            climb()
    finally:
        climbed.activation = activation
    made: npt.NDArray[np.float64] = pixels.numpy().astype(np.float64)
    return made

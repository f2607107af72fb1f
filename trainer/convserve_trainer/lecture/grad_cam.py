"""Grad-CAM: which part of a photograph speaks for a class.

Source: R. Selvaraju and others, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017, equations 1 and 2.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.lecture.net import Net
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

    from convserve_trainer.lecture.material import Pixels


def maps(net: Net, pixels: "Pixels", classes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Returns how much each position of pictures speaks for a class, float32 [N, H, W], 0 to 1.

    Args:
        net: with a convolution at least.
        pixels: uint8 [N, H, W, C].
        classes: [N], the one that is asked about for each.
    """
    tensorflow = keras_backend.tensorflow()
    keras = keras_backend.load()
    whole = net.from_floats
    layer = whole.get_layer(net.convolutions[-1].name)
    part = keras.Model(whole.inputs[0], [layer.output, whole.outputs[0]])
    head = whole.layers[-1]
    # Probabilities near 1 have next to no gradient; the numbers before them have.
    activation = getattr(head, "activation", None)
    if activation is not None:
        head.activation = keras.activations.linear
    try:
        with tensorflow.GradientTape() as tape:
            answers, scores = part(pixels.astype(np.float32), training=False)
            chosen = _chosen(scores, classes)
        slopes = tape.gradient(chosen, answers).numpy()
    finally:
        if activation is not None:
            head.activation = activation
    weighted = (slopes.mean(axis=(1, 2), keepdims=True) * answers.numpy()).sum(axis=-1)
    positive = np.maximum(weighted, 0)
    scaled = positive / np.maximum(positive.max(axis=(1, 2), keepdims=True), 1e-12)
    size = pixels.shape[1:3]
    grown: npt.NDArray[np.float32] = tensorflow.image.resize(scaled[..., None], size).numpy()[
        ..., 0
    ]
    return grown


def _chosen(scores: "keras.KerasTensor", classes: npt.NDArray[np.integer]) -> "keras.KerasTensor":
    """Returns the score of each picture's class; one sigmoid unit speaks for the second of two."""
    tensorflow = keras_backend.tensorflow()
    if scores.shape[-1] == 1:
        signs = np.where(np.asarray(classes) == 1, 1, -1).astype(np.float32)
        return scores[:, 0] * signs
    return tensorflow.reduce_sum(scores * tensorflow.one_hot(classes, scores.shape[-1]), axis=1)

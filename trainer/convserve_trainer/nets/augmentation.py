"""Random changes of pictures in training, as a layer of the net, so that backends compute them.

This module imports Keras; what only reads recipes does not need it.
"""

import math
from typing import Any

import msgspec
import numpy as np

from convserve_trainer.nets import elastic, keras_backend
from convserve_trainer.recipes.augmentation import Augmentation

keras = keras_backend.load()
ops = keras.ops
MOVES = ("rotation", "shear", "zoom", "stretch", "crop", "shift", "flip", "elastic")
LEAST_SPAN = 0.2  # between the two levels of a picture, of the full range


@keras.saving.register_keras_serializable("convserve")
class RandomChange(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Changes each picture of a batch at random in training, and none otherwise.

    Rotation, shear, zoom, stretch, crop, shift, flip and elastic are one map of coordinates, so
    that pixels are interpolated once. float32 [N, H, W, C], 0 to 1, in and out; brightness and
    contrast may leave that range.

    Args:
        amounts: the fields of `recipe.Augmentation`; those that are not given change nothing.
    """

    def __init__(self, name: str | None = None, **amounts: Any) -> None:
        super().__init__(name=name, trainable=False, dtype="float32")
        self.amounts = msgspec.to_builtins(Augmentation()) | amounts
        # A seed of its own, drawn from that of the training; its state is kept in checkpoints.
        self.generator = keras.random.SeedGenerator()

    def get_config(self) -> dict[str, Any]:
        """Returns what makes another such layer."""
        return {"name": self.name, **self.amounts}

    def call(self, pictures: Any, training: bool = False) -> Any:
        """See the class."""
        if not training:
            return pictures
        amounts = self.amounts
        if any(amounts[name] for name in MOVES):
            pictures = self._moved(pictures)
        if amounts["saturation"] and pictures.shape[-1] > 1:
            grey = ops.mean(pictures, axis=-1, keepdims=True)
            pictures = grey + (pictures - grey) * ops.exp(self._of_each(pictures, "saturation"))
        if amounts["contrast"]:
            mean = ops.mean(pictures, axis=(1, 2, 3), keepdims=True)
            pictures = mean + (pictures - mean) * ops.exp(self._of_each(pictures, "contrast"))
        if amounts["brightness"]:
            pictures = pictures + self._of_each(pictures, "brightness")
        if amounts["levels"]:
            pictures = self._levelled(pictures)
        return self._erased(pictures) if amounts["erase"] else pictures

    def _drawn(self, pictures: Any, most: float) -> Any:
        """Returns a number for each picture, from -most to most."""
        return keras.random.uniform(ops.shape(pictures)[:1], -most, most, seed=self.generator)

    def _of_each(self, pictures: Any, name: str) -> Any:
        return ops.reshape(self._drawn(pictures, self.amounts[name]), (-1, 1, 1, 1))

    def _moved(self, pictures: Any) -> Any:
        """Returns the pictures with each pixel taken from where the map says.

        Of coordinates about the middle: rotation x shear x scale, then the shift.
        """
        amounts = self.amounts
        rows, columns = pictures.shape[1:3]
        turn = self._drawn(pictures, math.radians(amounts["rotation"]))
        shear = ops.tan(self._drawn(pictures, math.radians(amounts["shear"])))
        zoom = self._drawn(pictures, amounts["zoom"])
        stretch = self._drawn(pictures, amounts["stretch"])
        part = 1 - (self._drawn(pictures, 0.5) + 0.5) * amounts["crop"]
        across, down = part * ops.exp(zoom - stretch / 2), part * ops.exp(zoom + stretch / 2)
        if amounts["flip"]:
            across = across * ops.sign(self._drawn(pictures, 1.0))
        cosine, sine = ops.cos(turn), ops.sin(turn)
        a, b = cosine * across, (cosine * shear - sine) * down
        c, d = sine * across, (sine * shear + cosine) * down
        x, y = (columns - 1) / 2, (rows - 1) / 2
        free = (1 - part) / 2  # on each side of a part in the middle
        right, below = (
            middle
            + self._drawn(pictures, amounts["shift"]) * size
            + free * self._drawn(pictures, 1.0) * (size - 1)
            for middle, size in ((x - a * x - b * y, columns), (y - c * x - d * y, rows))
        )
        if amounts["elastic"]:
            return self._bent(pictures, (a, b, right), (c, d, below))
        none = ops.zeros_like(a)
        return ops.image.affine_transform(
            pictures,
            ops.stack([a, b, right, c, d, below, none, none], axis=1),
            fill_mode="constant" if amounts["fill"] == "black" else "reflect",
        )

    def _bent(self, pictures: Any, to_column: Any, to_row: Any) -> Any:
        """Returns the pictures by a linear map of coordinates, and an elastic one after it.

        Args:
            pictures: float32 [N, H, W, C].
            to_column: of each picture, [N] each: a column's factor, a row's, and what is added.
            to_row: likewise.
        """
        rows, columns = pictures.shape[1:3]
        positions: list[Any] = []
        for (of_column, of_row, added), size in ((to_column, columns), (to_row, rows)):
            shape = (ops.shape(pictures)[0], elastic.NODES, elastic.NODES)
            nodes = keras.random.normal(shape, seed=self.generator)
            straight = (
                ops.reshape(of_column, (-1, 1, 1)) * np.arange(columns, dtype=np.float32)
                + ops.reshape(of_row, (-1, 1, 1)) * np.arange(rows, dtype=np.float32)[:, np.newaxis]
                + ops.reshape(added, (-1, 1, 1))
            )
            bent = elastic.spread(nodes * (self.amounts["elastic"] * size), rows, columns)
            positions.append(straight + bent)
        across, down = positions
        return elastic.taken(pictures, across, down, self.amounts["fill"])

    def _levelled(self, pictures: Any) -> Any:
        """Returns the pictures; of some, black and white are two other levels."""
        span = LEAST_SPAN + (1 - LEAST_SPAN) * (self._drawn(pictures, 0.5) + 0.5)
        lowest = (1 - span) * (self._drawn(pictures, 0.5) + 0.5)
        inverted = self._drawn(pictures, 1.0) < 0
        black = ops.where(inverted, lowest + span, lowest)
        slope = ops.where(inverted, -span, span)
        chosen = self._drawn(pictures, 0.5) + 0.5 < self.amounts["levels"]
        black, slope = ops.where(chosen, black, 0.0), ops.where(chosen, slope, 1.0)
        return ops.reshape(black, (-1, 1, 1, 1)) + pictures * ops.reshape(slope, (-1, 1, 1, 1))

    def _erased(self, pictures: Any) -> Any:
        rows, columns = pictures.shape[1:3]
        half = self.amounts["erase"] / 2
        far = [
            ops.abs(
                ops.reshape((ops.arange(size, dtype="float32") + 0.5) / size, shape)
                - (ops.reshape(self._drawn(pictures, 0.5), (-1, 1, 1, 1)) + 0.5)
            )
            for size, shape in ((rows, (1, -1, 1, 1)), (columns, (1, 1, -1, 1)))
        ]
        return ops.where((far[0] < half) & (far[1] < half), 0.5, pictures)

"""Pictures of two classes in one, as a layer of the net, and what their labels then are.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; Yun et al. 2019, "CutMix".

This module imports Keras.
"""

from typing import Any

import numpy as np

from convserve_trainer.nets import keras_backend

keras = keras_backend.load()
ops = keras.ops


@keras.saving.register_keras_serializable("convserve")
class Mixing(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Mixes each picture of a batch with the one before it in training, and none otherwise.

    float32 [N, H, W, C] in and out. Within a step of the training it knows what it made.

    Args:
        mixup: parameter of the beta distribution that the share of a picture is drawn from, where
            two are laid over each other; 0 for no such mixing.
        cutmix: likewise, where a box of one is put into the other; with both every second picture
            is mixed in one way, the rest in the other.

    Attributes:
        pictures: that came out of the last call in training.
        kept: float32 [N], the share of each that is of the picture itself; None where none is
            mixed.
    """

    def __init__(self, name: str | None = None, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        super().__init__(name=name, trainable=False, dtype="float32")
        self.mixup, self.cutmix = mixup, cutmix
        self.generator = keras.random.SeedGenerator()  # as that of RandomChange
        self.pictures: Any = None
        self.kept: Any = None

    def get_config(self) -> dict[str, Any]:
        """Returns what makes another such layer."""
        return {"name": self.name, "mixup": self.mixup, "cutmix": self.cutmix}

    def call(self, pictures: Any, training: bool = False) -> Any:
        """See the class."""
        if not training:
            return pictures
        masks = []
        if self.mixup:
            share = self._share(pictures, self.mixup)
            masks.append(ops.broadcast_to(share, ops.shape(pictures[..., :1])))
        if self.cutmix:
            masks.append(self._outside(pictures, self._share(pictures, self.cutmix)))
        self.pictures, self.kept = pictures, None
        if masks:
            mask = masks[0]
            if len(masks) > 1:
                first = keras.random.uniform(ops.shape(pictures)[:1], seed=self.generator) < 0.5
                mask = ops.where(ops.reshape(first, (-1, 1, 1, 1)), *masks)
            self.kept = ops.mean(mask, axis=(1, 2, 3))
            self.pictures = mask * pictures + (1 - mask) * ops.roll(pictures, 1, axis=0)
        return self.pictures

    def mixed(self, values: Any) -> Any:
        """Returns what belongs to the mixed pictures: labels [N, K], or a weight [N] of each."""
        if self.kept is None or values is None:
            return values
        shape = (-1,) + (1,) * (len(values.shape) - 1)
        kept = ops.reshape(self.kept, shape)
        return kept * values + (1 - kept) * ops.roll(values, 1, axis=0)

    def _share(self, pictures: Any, parameter: float) -> Any:
        """Returns float32 [N, 1, 1, 1], 0 to 1."""
        shape = ops.shape(pictures)[:1]
        drawn = keras.random.beta(shape, parameter, parameter, seed=self.generator)
        return ops.reshape(drawn, (-1, 1, 1, 1))

    def _outside(self, pictures: Any, share: Any) -> Any:
        """Returns float32 [N, H, W, 1], 1 but for a box anywhere of about 1 - share of the area."""
        side = ops.sqrt(1 - share) / 2
        inside = []
        for size, shape in zip(pictures.shape[1:3], ((1, -1, 1, 1), (1, 1, -1, 1)), strict=True):
            middle = keras.random.uniform(ops.shape(pictures)[:1], seed=self.generator)
            positions = (np.arange(size, dtype=np.float32) + 0.5) / size
            far = ops.abs(ops.reshape(positions, shape) - ops.reshape(middle, (-1, 1, 1, 1)))
            inside.append(far < side)
        return 1 - ops.cast(inside[0] & inside[1], "float32")

"""Pictures that are bent at random: where each pixel comes from, and how it is interpolated.

Source: P. Simard, D. Steinkraus and J. Platt, "Best practices for convolutional neural networks",
    ICDAR 2003; the coarse grid is that of O. Ronneberger, P. Fischer and T. Brox, "U-Net", 2015;
    the interpolation that of R. Keys, "Cubic convolution interpolation", 1981.

This module imports Keras.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.nets import keras_backend

keras = keras_backend.load()
ops = keras.ops
NODES = 5  # of a side of the grid; the outer ones are on the border


def spread(nodes: Any, rows: int, columns: int) -> Any:
    """Returns a value for each pixel, float32 [N, rows, columns], by cubic interpolation.

    Args:
        nodes: float32 [N, NODES, NODES], values at the points of the grid.
        rows: of a picture, 1 or more.
        columns: likewise.
    """
    down, across = weights(rows), weights(columns)
    return ops.matmul(ops.matmul(down, nodes), ops.transpose(across))


def weights(size: int) -> npt.NDArray[np.float32]:
    """Returns float32 [size, NODES], what each node counts for each pixel; rows sum to 1."""
    at = np.linspace(0, NODES - 1, size)
    found = np.zeros((size, NODES))
    for tap in range(-1, NODES + 1):  # beyond the border a node is as the last one
        far = np.abs(at - tap)
        near = (1.5 * far - 2.5) * far**2 + 1
        wide = ((-0.5 * far + 2.5) * far - 4) * far + 2
        counts = np.where(far <= 1, near, np.where(far < 2, wide, 0.0))
        found[:, min(max(tap, 0), NODES - 1)] += counts
    return found.astype(np.float32)


def taken(pictures: Any, across: Any, down: Any, fill: str) -> Any:
    """Returns pictures whose pixels are taken from elsewhere, with bilinear interpolation.

    Args:
        pictures: float32 [N, H, W, C].
        across: float32 [N, H, W], the column that each pixel is taken from.
        down: likewise the row.
        fill: what is seen beyond the border: "black", or the picture itself by "reflect".
    """
    rows, columns, channels = pictures.shape[1:]
    if fill == "reflect":
        across, down = _reflected(across, columns), _reflected(down, rows)
    else:  # a black border of one pixel; all that is farther away is as black
        pictures = ops.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)))
        across, down = ops.clip(across + 1, 0, columns + 1), ops.clip(down + 1, 0, rows + 1)
    height, width = pictures.shape[1:3]
    # Each pixel with those to its right, below and both, which one look-up then finds together.
    beside = ops.concatenate([pictures[:, :, 1:], pictures[:, :, -1:]], axis=2)
    pairs = ops.concatenate([pictures, beside], axis=3)
    fours = ops.concatenate([pairs, ops.concatenate([pairs[:, 1:], pairs[:, -1:]], axis=1)], axis=3)
    left, above = ops.floor(across), ops.floor(down)
    first = ops.arange(ops.shape(pictures)[0], dtype="int32") * (height * width)
    positions = ops.reshape(first, (-1, 1, 1)) + ops.cast(above * width + left, "int32")
    found = ops.take(ops.reshape(fours, (-1, 4 * channels)), positions, axis=0)
    x, y = ops.expand_dims(across - left, -1), ops.expand_dims(down - above, -1)
    upper_left, upper, lower_left, lower = ops.split(found, 4, axis=-1)
    upper, lower = upper_left + (upper - upper_left) * x, lower_left + (lower - lower_left) * x
    return upper + (lower - upper) * y


def _reflected(positions: Any, size: int) -> Any:
    """Returns positions within a picture: beyond the border it is mirrored, its last pixel too."""
    folded = ops.mod(positions + 0.5, 2 * size)
    return ops.clip(ops.minimum(folded, 2 * size - folded) - 0.5, 0, size - 1)

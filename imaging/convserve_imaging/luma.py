"""Colours become grey."""

import numpy as np
import numpy.typing as npt

WEIGHTS = (299, 587, 114)
"""Thousandths of red, green and blue in the luma. Source: ITU-R BT.601, 2.5.1."""


def luma(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the luma, rounded: the same on every CPU, and grey stays exactly as it is.

    Args:
        pixels: uint8 [H, W, 3], RGB.

    Returns:
        uint8 [H, W, 1].
    """
    weighted = pixels.astype(np.uint32) * np.array(WEIGHTS, np.uint32)
    sums: npt.NDArray[np.uint32] = weighted.sum(axis=2, keepdims=True, dtype=np.uint32)
    return ((sums + 500) // 1000).astype(np.uint8)

"""Colours become grey."""

import numpy as np
import numpy.typing as npt

WEIGHTS = (299, 587, 114)
"""Thousandths of red, green and blue in the luma. Source: ITU-R BT.601, 2.5.1."""

#: Rows at a time: sums take eight times the memory of the picture.
_BAND = 64


def luma(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the luma, rounded: the same on every CPU, and grey stays exactly as it is.

    Args:
        pixels: uint8 [H, W, 3], RGB.

    Returns:
        uint8 [H, W, 1].
    """
    grey: npt.NDArray[np.uint8] = np.empty((*pixels.shape[:2], 1), np.uint8)
    for row in range(0, len(pixels), _BAND):
        weighted = pixels[row : row + _BAND] * np.array(WEIGHTS, np.uint32)
        sums = weighted.sum(axis=2, keepdims=True, dtype=np.uint32)
        grey[row : row + _BAND] = (sums + 500) // 1000
    return grey

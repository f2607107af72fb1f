"""The ground of a sheet: what it would look like without the strokes that are drawn on it.

A grey closing: the least of the greatest levels of all squares that hold a pixel. It fills what is
darker than its surroundings and narrower than the square, and keeps slopes and straight edges of
light as they are, so that a hard shadow is ground and not ink.

Source: Serra, "Image Analysis and Mathematical Morphology", 1982, chapters 2 and 12.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


def closed(grey: Levels, window: int) -> Levels:
    """Returns the closing of uint8 [H, W] by a square, of the same shape.

    Args:
        grey: light ground, dark strokes. Beyond its border it goes on as it ends.
        window: side of the square in pixels, 1 or more; strokes must be narrower.
    """
    beyond = np.pad(grey, window - 1, mode="edge")
    return _of_squares(_of_squares(beyond, window, np.maximum), window, np.minimum)


def widened(mask: Mask, reach: int) -> Mask:
    """Returns a mask [H, W] that grew by so many pixels in all directions."""
    grown: Mask = _of_squares(np.pad(mask, reach), 2 * reach + 1, np.maximum)
    return grown


def holds_square(mask: Mask, side: int) -> bool:
    """Returns whether somewhere in a mask [H, W] a square of that many pixels a side is full."""
    return side <= min(mask.shape) and bool(_of_squares(mask, side, np.minimum).any())


def _of_squares(
    levels: npt.NDArray[T],
    window: int,
    extreme: Callable[[npt.NDArray[T], npt.NDArray[T]], npt.NDArray[T]],
) -> npt.NDArray[T]:
    """Returns the extreme of each square: [H, W] becomes [H - window + 1, W - window + 1]."""
    upright = _of_rows(levels, window, extreme)
    return np.ascontiguousarray(_of_rows(np.ascontiguousarray(upright.T), window, extreme).T)


def _of_rows(
    levels: npt.NDArray[T],
    window: int,
    extreme: Callable[[npt.NDArray[T], npt.NDArray[T]], npt.NDArray[T]],
) -> npt.NDArray[T]:
    """Returns the extreme of so many rows in turn, doubling their number in each step."""
    rows = 1
    while rows < window:
        step = min(rows, window - rows)
        levels = extreme(levels[:-step], levels[step:])
        rows += step
    return levels

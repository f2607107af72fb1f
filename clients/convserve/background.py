"""Whether pixels are as a model of digits was trained on them: light strokes on black."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from convserve.calls import Images

#: Of 255; backgrounds of MNIST are 0, and noise of a camera that saw black is less than this.
_BLACK = 32

#: Of 255, between a background's levels.
_EVEN = 16

_ADVICE = (
    "the background of a picture for a model of digits is {level} of 255, expected near 0: light "
    "strokes on black, as MNIST has them. Its answers will be at chance. Pass 255 - pixels for "
    "dark strokes on white, or the picture's file to classify_images, which finds the digit. This "
    "warning comes once for each client"
)


class BackgroundCheck:
    """Warns, once for each client, of pixels of digits whose background is not black."""

    def __init__(self) -> None:
        self._warned = False

    def is_suspicious(self, calls: Sequence[Images]) -> bool:
        """Returns whether the first picture has an even background that is not black.

        It looks at the border of one picture, and at one pixel where that is black, until a
        picture was doubtful for the first time.
        """
        first = calls[0]
        if self._warned or not isinstance(first, np.ndarray) or first[0, 0, 0, 0] <= _BLACK:
            return False
        return _background_level(first) > _BLACK

    def warn(self, calls: Sequence[Images], kind: str) -> None:
        """Warns of a suspicious picture if the model is one of digits.

        Args:
            calls: as for is_suspicious.
            kind: of the model, as ModelInfo.kind.
        """
        self._warned = True
        first = calls[0]
        if kind == "digits" and isinstance(first, np.ndarray):
            warnings.warn(_ADVICE.format(level=_background_level(first)), stacklevel=5)


def _background_level(batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    """Returns the level of most of the first picture's border, 0 to 255; 0 if it has no such."""
    picture = batch[0, :, :, 0]
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    level = int(np.median(border))
    alike = np.count_nonzero(np.abs(border.astype(np.int16) - level) <= _EVEN)
    return level if 2 * alike > len(border) else 0

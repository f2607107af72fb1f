"""Numbers as JSON shows them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def shortest(values: Sequence[float] | NDArray[np.float32]) -> list[float]:
    """Returns float32 numbers with the shortest digits that say which ones they are.

    Args:
        values: each is one that a float32 holds.
    """
    # As text and back: 0.1 as a float64 is 0.10000000149011612.
    return [float(text) for text in np.array(values, np.float32).astype("U16").tolist()]

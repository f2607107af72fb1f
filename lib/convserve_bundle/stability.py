"""How far two distributions of a value are apart: the population stability index, PSI.

Of counts alone, without NumPy: for processes that load nothing heavy.

Source: N. Siddiqi, "Credit risk scorecards", 2006, for the index and what it is compared with:
    below 0.1 hardly a difference, above 0.25 a large one. B. Yurdakul, "Statistical properties of
    population stability index", Western Michigan University, 2018, for what luck makes of it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

#: What pictures are compared by: the fields of PictureStatistics.
MEASURES = ("brightness", "contrast", "size", "confidence")
BINS = 10  # that hold values: as many pictures in each, unless values are equal
MODERATE, LARGE = 0.1, 0.25
#: Standard deviations below which 99.75 % of a normal distribution lie: of four measures together
#: one is beyond by luck in a hundred comparisons of equals.
_Z = 2.807034


class Known(NamedTuple):
    """The distribution that a net knows; see Distribution in bundle.proto.

    Attributes:
        bounds: between bins, ascending; a value that equals one is in the bin below it.
        counts: pictures in each bin, one more than bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]


def stability_index(known: Sequence[int], found: Sequence[int]) -> float:
    """Returns the PSI of counts beside others; 0 for equal shares in all bins.

    Bins are counted with half a picture more than there are, so that an empty one is not infinitely
    far from one with a picture.

    Args:
        known: pictures in each bin, of those that a net knows.
        found: of others, in the same bins.
    """
    before, now = (
        [(count + 0.5) / (sum(counts) + 0.5 * len(counts)) for count in counts]
        for counts in (known, found)
    )
    return sum((b - a) * math.log(b / a) for a, b in zip(before, now, strict=True))


def by_luck(known: Sequence[int], count: int) -> float:
    """Returns the PSI that so many pictures of the same sort hardly ever reach.

    The index of equals is distributed as chi-squared, divided by the numbers of pictures.

    Args:
        known: pictures in each bin, of those that a net knows.
        count: other pictures, one or more.

    Source: for the quantile of chi-squared, E. B. Wilson and M. M. Hilferty, "The distribution of
        chi-square", Proceedings of the National Academy of Sciences 17, 1931.
    """
    free = len(known) - 1
    part = 2 / (9 * free)
    quantile = free * (1 - part + _Z * math.sqrt(part)) ** 3
    return quantile * (1 / count + 1 / sum(known))

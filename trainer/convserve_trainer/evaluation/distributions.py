"""Distributions of a value, and how far two are apart: the population stability index, PSI.

Source: N. Siddiqi, "Credit risk scorecards", 2006, for the index and what it is compared with:
    below 0.1 hardly a difference, above 0.25 a large one. B. Yurdakul, "Statistical properties of
    population stability index", Western Michigan University, 2018, for what luck makes of it.
"""

import math

import numpy as np
import numpy.typing as npt

from convserve_protos.bundle_pb2 import Distribution

BINS = 10  # that hold values: as many pictures in each, unless values are equal
MODERATE, LARGE = 0.1, 0.25
#: Standard deviations below which 99.75 % of a normal distribution lie: of four measures together
#: one is beyond by luck in a hundred comparisons of equals.
_Z = 2.807034

#: Digits after the point: sums on another CPU may differ in the last bits.
_DIGITS = 4


def summarise(values: npt.NDArray[np.floating]) -> Distribution:
    """Returns the distribution of values.

    Args:
        values: float [N], one or more, finite.
    """
    rounded = _rounded(values)
    edges = np.quantile(rounded, np.arange(1, BINS + 1) / BINS).astype(np.float32)
    below = np.nextafter(rounded.min(), np.float32(-np.inf))
    bounds = np.unique(np.append(edges, below))
    return Distribution(
        bounds=bounds.tolist(),
        counts=_counted(rounded, bounds).tolist(),
        mean=float(values.mean(dtype=np.float64)),
        standard_deviation=float(values.std(dtype=np.float64)),
    )


def stability_index(reference: Distribution, values: npt.NDArray[np.floating]) -> float:
    """Returns the PSI of values beside a reference; 0 for equal shares in all bins.

    Bins are counted with half a picture more than there are, so that an empty one is not infinitely
    far from one with a picture.

    Args:
        reference: of the pictures that a net knows.
        values: float [N], one or more.
    """
    before = np.array(reference.counts, np.float64)
    now = _counted(_rounded(values), np.array(reference.bounds, np.float32)).astype(np.float64)
    expected, found = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (before, now))
    return float(((found - expected) * np.log(found / expected)).sum())


def by_luck(reference: Distribution, count: int) -> float:
    """Returns the PSI that so many pictures of the same sort hardly ever reach.

    The index of equals is distributed as chi-squared, divided by the numbers of pictures.

    Args:
        reference: of the pictures that a net knows.
        count: other pictures, one or more.

    Source: for the quantile of chi-squared, E. B. Wilson and M. M. Hilferty, "The distribution of
        chi-square", Proceedings of the National Academy of Sciences 17, 1931.
    """
    free = len(reference.counts) - 1
    part = 2 / (9 * free)
    quantile = free * (1 - part + _Z * math.sqrt(part)) ** 3
    return float(quantile * (1 / count + 1 / sum(reference.counts)))


def _rounded(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.round(values.astype(np.float64), _DIGITS).astype(np.float32)


def _counted(
    values: npt.NDArray[np.float32], bounds: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Returns how many values are in each bin, int64 [bounds + 1]."""
    return np.bincount(np.searchsorted(bounds, values, "left"), minlength=len(bounds) + 1)

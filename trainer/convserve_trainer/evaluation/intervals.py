"""Intervals of 95 %: where a figure lies on other pictures of the same sort.

Each method is one that gives neither a bound outside 0 to 1 nor an interval of no width, even
where all pictures are right.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Interval: TypeAlias = tuple[float, float]
"""The lower and the upper bound, 0 to 1."""

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations

RESAMPLES = 1_000
_HALVINGS = 60  # of an interval between 0 and 1: to the last bit of a float


def proportion(successes: float, total: float) -> Interval | None:
    """Returns the interval of a share; None of nothing.

    Args:
        successes: 0 to `total`.
        total: trials.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
        Journal of the American Statistical Association 22, 1927.
    """
    if not total:
        return None
    share, square = successes / total, Z**2 / total
    middle = share + square / 2
    wide = Z * math.sqrt((share * (1 - share) + square / 4) / total)
    low, high = (middle - wide) / (1 + square), (middle + wide) / (1 + square)
    # Exactly, where rounding would leave 1e-17.
    return (0.0 if not successes else low), (1.0 if successes == total else high)


def f1(both: int, wrong: int) -> Interval | None:
    """Returns the interval of an F1 score; None where it is not defined.

    F1 is 2 J / (1 + J), where J is the share of `both` among `both` and `wrong`: the interval of
    that share, brought to the scale of F1.

    Args:
        both: pictures that are of the class and were answered so.
        wrong: pictures of which only one of the two is true.

    Source: K. F. Y. Lam, V. Gopal and J. Qian, "Confidence intervals for the F1 score: a comparison
        of four methods", arXiv 2309.14621, 2023: Wilson's indirect method.
    """
    found = proportion(both, both + wrong)
    return found and (2 * found[0] / (1 + found[0]), 2 * found[1] / (1 + found[1]))


def roc_auc(area: float, inside: int, outside: int) -> Interval | None:
    """Returns the interval of an area under the ROC curve; None where it is not defined.

    Args:
        area: that was found, 0 to 1.
        inside: pictures of the class.
        outside: other pictures.

    Source: R. G. Newcombe, "Confidence intervals for an effect size measure based on the
        Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 2006: method 5, with the
        variance of J. A. Hanley and B. J. McNeil, Radiology 143, 1982.
    """
    if not inside or not outside:
        return None
    more = (inside + outside) / 2 - 1

    def apart(true: float) -> float:
        """Returns how far `area` is from a true one, in standard deviations."""
        spread = 1 + more * ((1 - true) / (2 - true) + true / (1 + true))
        deviation = math.sqrt(true * (1 - true) * spread / (inside * outside))
        return abs(area - true) / deviation if deviation else math.inf

    def bound(end: float) -> float:
        """Returns the true area, between the found one and an end, that is Z deviations away."""
        near, far = area, end
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            near, far = (middle, far) if apart(middle) < Z else (near, middle)
        return near

    return bound(0.0), bound(1.0)


def bootstrap(
    counts: npt.NDArray[np.integer], figure: Callable[[npt.NDArray[Any]], float]
) -> Interval | None:
    """Returns the interval of a figure for which there is no formula; see `percentiles`.

    Pictures are drawn anew, with repetition; the draws are always the same ones.

    Args:
        counts: int [M], pictures of each kind, one or more of each.
        figure: of counts, int [M], makes the figure.

    Source: B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13:
        percentiles.
    """
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, RESAMPLES)
    return percentiles(np.array([figure(draw) for draw in draws]))


def percentiles(values: npt.NDArray[np.float64]) -> Interval | None:
    """Returns where 95 % of the values of draws lie.

    Args:
        values: float [M]; NaN does not count.

    Returns:
        None if there is nothing else, or all are the same: draws of pictures without a mistake have
        none either, which would look like certainty however few the pictures are.
    """
    there = values[~np.isnan(values)]
    if not len(there) or there.min() == there.max():
        return None
    low, high = np.quantile(there, [0.025, 0.975])
    return float(low), float(high)


class SomeRight:
    """What is known of some pictures of which some are right.

    Attributes:
        pictures: so many, one or more.
        correct: of which so many are right.
    """

    pictures: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share that is right, 0 to 1."""
        return self.correct / self.pictures

    @property
    def interval(self) -> Interval:
        """Of the accuracy; see `proportion`."""
        found = proportion(self.correct, self.pictures)
        assert found is not None, "there is a picture or more"
        return found

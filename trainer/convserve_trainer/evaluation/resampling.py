"""Figures of several labels on pictures that are drawn anew: how far they are luck.

Source: B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13:
    percentiles.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation.intervals import RESAMPLES
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Thresholds

FEWER = 200
#: Decisions, on all labels of all pictures, beyond which there are fewer draws.
MANY = 500_000


class Figures(NamedTuple):
    """Of some pictures.

    Attributes:
        average_precision: float [K], NaN for a label that no picture has.
        f1: float [K], NaN for a label that is neither there nor answered.
        f1_micro: of all decisions together.
    """

    average_precision: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    f1_micro: float

    @property
    def mean_average_precision(self) -> float:
        """Mean over the labels that there are; 0 of none."""
        return _mean(self.average_precision)

    @property
    def f1_macro(self) -> float:
        """Mean over the labels that there are; 0 of none."""
        return _mean(self.f1)


class Drawn:
    """Answers, of which the same pictures count several times or not at all.

    Args:
        answers: to pictures of several labels.
        thresholds: of the labels.
    """

    def __init__(self, answers: Answers, thresholds: Thresholds) -> None:
        # A row a label: sums along pictures then run along memory.
        scores = np.ascontiguousarray(answers.probabilities.T)
        has = np.ascontiguousarray(answers.labels.T.astype(bool))
        answered = scores >= thresholds[:, None]
        # In float64 whole numbers are exact, and products fast.
        self._both = (has & answered).T.astype(np.float64)
        self._one = (has ^ answered).T.astype(np.float64)
        self._order = np.argsort(-scores, axis=1, kind="stable")
        ordered = np.take_along_axis(scores, self._order, axis=1)
        self._ordered_has = np.take_along_axis(has, self._order, axis=1)
        # Pictures of equal score come together: precision is that of the last one.
        last = np.ones(ordered.shape, bool)
        last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
        count = ordered.shape[1]
        columns = np.where(last, np.arange(count), count)
        ends = np.minimum.accumulate(columns[:, ::-1], axis=1)[:, ::-1]
        # Only where a picture has the label does recall grow.
        self._label, at = np.nonzero(self._ordered_has)
        self._at = self._label * count + at
        self._end = self._label * count + ends[self._label, at]

    def figures(self, counts: npt.NDArray[np.integer]) -> Figures:
        """Returns the figures of so many of each picture, int [N]."""
        weights = counts[self._order]
        hits = weights * self._ordered_has
        upto_hits = hits.cumsum(axis=1).reshape(-1)[self._end]
        upto = weights.cumsum(axis=1).reshape(-1)[self._end]
        won = hits.reshape(-1)[self._at]
        labels = len(weights)
        total = np.bincount(self._label, won, labels)
        both, one = (counts.astype(np.float64) @ each for each in (self._both, self._one))
        with np.errstate(invalid="ignore"):
            precision = won * (upto_hits / np.maximum(upto, 1))
            found = np.bincount(self._label, precision, labels) / total
            f1 = 2 * both / (2 * both + one)
        micro = 2 * both.sum() + one.sum()
        return Figures(found, f1, float(2 * both.sum() / micro) if micro else 0.0)


def draws(answers: Answers) -> Iterator[npt.NDArray[np.int64]]:
    """Yields how often each picture is drawn, int [N]; the same draws for as many pictures."""
    total, generator = len(answers.labels), np.random.default_rng(0)
    for _ in range(RESAMPLES if answers.labels.size <= MANY else FEWER):
        yield np.bincount(generator.integers(total, size=total), minlength=total)


def _mean(values: npt.NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else 0.0

"""How well one class is distinguished from others: precision, recall, F1, area under the ROC curve.

Nothing here knows whether a picture has one label or several: each class is judged by what is true
of it, what was answered, and how sure the answer is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation import intervals
from convserve_trainer.evaluation.intervals import Interval


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class. None where there is nothing to count, as for the recall of no picture.

    Attributes:
        label: name of the class.
        both: pictures that are of the class and were answered so.
        missed: pictures of the class that were answered otherwise.
        mistaken: other pictures that were answered so.
        neither: all others.
        roc_auc: area under the ROC curve, 0 to 1: how often a picture of the class is answered
            more surely so than another picture.
    """

    label: str
    both: int
    missed: int
    mistaken: int
    neither: int
    roc_auc: float | None

    @property
    def pictures(self) -> int:
        """Pictures of the class."""
        return self.both + self.missed

    @property
    def precision(self) -> float | None:
        """Share of the answers of this class that are right, 0 to 1."""
        return _share(self.both, self.both + self.mistaken)

    @property
    def recall(self) -> float | None:
        """Share of the class's pictures that are answered so, 0 to 1."""
        return _share(self.both, self.pictures)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1."""
        return _share(2 * self.both, 2 * self.both + self.missed + self.mistaken)

    @property
    def precision_interval(self) -> Interval | None:
        """See `intervals`."""
        return intervals.proportion(self.both, self.both + self.mistaken)

    @property
    def recall_interval(self) -> Interval | None:
        """See `intervals`."""
        return intervals.proportion(self.both, self.pictures)

    @property
    def f1_interval(self) -> Interval | None:
        """See `intervals`."""
        return intervals.f1(self.both, self.missed + self.mistaken)

    @property
    def roc_auc_interval(self) -> Interval | None:
        """See `intervals`."""
        if self.roc_auc is None:
            return None
        return intervals.roc_auc(self.roc_auc, self.pictures, self.mistaken + self.neither)

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON."""
        return {"label": self.label, "pictures": self.pictures} | {
            name: getattr(self, name)
            for figure in FIGURES
            for name in (figure, f"{figure}_interval")
        }


#: Names of what each class has, in the order in which they are shown.
FIGURES = ("precision", "recall", "f1", "roc_auc")


def of_class(
    label: str,
    true: npt.NDArray[np.bool_],
    answered: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.floating],
) -> ClassFigures:
    """Returns the figures of one class.

    Args:
        label: its name.
        true: bool [N], whether each picture is of the class.
        answered: bool [N], whether the net says so.
        scores: float [N], how sure it is.
    """
    return ClassFigures(
        label,
        both=int((true & answered).sum()),
        missed=int((true & ~answered).sum()),
        mistaken=int((~true & answered).sum()),
        neither=int((~true & ~answered).sum()),
        roc_auc=roc_auc(true, scores),
    )


def one_against_the_rest(
    labels: Sequence[str],
    right: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
) -> list[ClassFigures]:
    """Returns the figures of each class, where each picture has one label.

    Args:
        labels: names of the K classes.
        right: int [N], 0 to K - 1.
        probabilities: float [N, K].
    """
    answered = probabilities.argmax(axis=1)
    return [
        of_class(label, right == number, answered == number, probabilities[:, number])
        for number, label in enumerate(labels)
    ]


def macro(figures: Sequence[ClassFigures], name: str) -> float | None:
    """Returns the mean of a figure over classes; those without one do not count.

    Args:
        figures: of all classes.
        name: one of FIGURES.
    """
    found = [value for each in figures if (value := getattr(each, name)) is not None]
    return float(np.mean(found)) if found else None


def macro_f1_interval(confusion: npt.NDArray[np.int64]) -> Interval | None:
    """Returns the interval of the mean of F1 over classes, by the bootstrap; None if all is right.

    Args:
        confusion: int [K, K], pictures; rows are what they are, columns what the net says.
    """
    rows, columns = np.nonzero(confusion)
    size, hit = len(confusion), rows == columns

    def mean(counts: npt.NDArray[Any]) -> float:
        both = np.bincount(rows[hit], counts[hit], size)
        twice = np.bincount(rows, counts, size) + np.bincount(columns, counts, size)
        there = twice > 0
        return float((2 * both[there] / twice[there]).mean())

    return intervals.bootstrap(confusion[rows, columns], mean)


def roc_auc(true: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float | None:
    """Returns the area under the ROC curve, 0 to 1; None without both kinds of pictures.

    It is the share of pairs, a picture of the class and another one, of which the first has the
    higher score; of equal ones half counts.

    Args:
        true: bool [N], whether each picture is of the class.
        scores: float [N].

    Source: J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a receiver
        operating characteristic (ROC) curve", Radiology 143, 1982.
    """
    inside, outside = scores[true], np.sort(scores[~true])
    if not len(inside) or not len(outside):
        return None
    below = np.searchsorted(outside, inside, "left")
    upto = np.searchsorted(outside, inside, "right")
    # Whole numbers until the division: exact, however many pairs there are.
    return int(below.sum() + upto.sum()) / (2 * len(inside) * len(outside))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None

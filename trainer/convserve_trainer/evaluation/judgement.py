"""What is known of a net on pictures that it was not trained on, beyond a single accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation import classes, intervals, slices
from convserve_trainer.evaluation.classes import ClassFigures
from convserve_trainer.evaluation.corruptions import Corrupted
from convserve_trainer.evaluation.intervals import Interval
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.evaluation.slices import Slice
from convserve_trainer.evaluation.traits import Traits

FILE = "evaluation.json"


@dataclass(frozen=True)
class Confusion:
    """Pictures of one class that are mistaken for another one.

    Attributes:
        true: number of the class that they are of.
        answered: number of the one that the net says.
        count: pictures.
    """

    true: int
    answered: int
    count: int


@dataclass(frozen=True)
class Judgement:
    """Figures on pictures of which each has one label.

    Attributes:
        labels: names of the K classes.
        score: of all pictures.
        classes: of each class, against the rest.
        confusion: int [K, K], pictures; rows are what they are, columns what the net says.
        slices: how it does on parts of the pictures.
        corrupted: how it does on pictures that are changed on purpose.
    """

    labels: Sequence[str]
    score: Score
    classes: Sequence[ClassFigures]
    confusion: npt.NDArray[np.int64]
    slices: Sequence[Slice]
    corrupted: Sequence[Corrupted] = ()

    @property
    def accuracy_interval(self) -> Interval | None:
        """Of the share of all pictures that are right; see `intervals.proportion`."""
        return intervals.proportion(self.score.correct, self.score.total)

    @property
    def confusions(self) -> list[Confusion]:
        """Which class is mistaken for which, the commonest first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        found = [Confusion(int(r), int(c), int(wrong[r, c])) for r, c in np.argwhere(wrong)]
        return sorted(found, key=lambda each: -each.count)

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON; the score's as a manifest has them."""
        macro: dict[str, Any] = {
            name: classes.macro(self.classes, name) for name in classes.FIGURES
        }
        macro["f1_interval"] = classes.macro_f1_interval(self.confusion)
        return self.score.as_dict() | {
            "accuracy_interval": self.accuracy_interval,
            "macro": macro,
            "classes": [each.as_dict() for each in self.classes],
            "confusions": [
                {
                    "true": self.labels[each.true],
                    "answered": self.labels[each.answered],
                    "count": each.count,
                }
                for each in self.confusions
            ],
            "slices": [each.as_dict() for each in self.slices],
            "corruptions": [each.as_dict() for each in self.corrupted],
        }


def judge(
    labels: Sequence[str],
    answers: Answers,
    traits: Traits,
    corrupted: Sequence[Corrupted] = (),
) -> Judgement:
    """Returns the figures of a net.

    Args:
        labels: names of the K classes.
        answers: to N pictures, one or more.
        traits: of the same pictures; none is needed.
        corrupted: how the net does on pictures that are changed on purpose.
    """
    probabilities, right = answers
    answered = probabilities.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (right, answered), 1)
    return Judgement(
        labels,
        score(probabilities, right),
        classes.one_against_the_rest(labels, right, probabilities),
        confusion,
        slices.sliced(traits, answered == right),
        corrupted,
    )

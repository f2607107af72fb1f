"""What is known of a net whose pictures have several labels, beyond a single figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pictures, Pixels
from convserve_trainer.evaluation import classes, intervals, ranking, resampling, slices
from convserve_trainer.evaluation.classes import ClassFigures
from convserve_trainer.evaluation.intervals import Interval
from convserve_trainer.evaluation.mistakes import EACH, PAIRS
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Score, SeveralScore, Thresholds, right, score
from convserve_trainer.evaluation.slices import Slice
from convserve_trainer.evaluation.traits import Traits


class Intervals(NamedTuple):
    """By the bootstrap; see `resampling`.

    Attributes:
        average_precision: of each label; None where no picture has it, or there is no mistake.
        mean_average_precision: of their mean.
        f1_micro: of all decisions together.
        f1_macro: of the mean of F1.
    """

    average_precision: Sequence[Interval | None]
    mean_average_precision: Interval | None
    f1_micro: Interval | None
    f1_macro: Interval | None


@dataclass(frozen=True)
class Swap:
    """A label that is missed where another one is answered wrongly, in the same picture.

    Attributes:
        missed: number of the label that the picture has.
        answered: number of the one that it has not.
        count: pictures.
    """

    missed: int
    answered: int
    count: int


@dataclass(frozen=True)
class LabelsJudgement:
    """Figures on pictures of which each has any number of labels.

    Attributes:
        labels: names of the K labels.
        thresholds: float32 [K].
        score: of all pictures.
        classes: of each label.
        average_precisions: of each label; None where no picture has it.
        intervals: of these, and of means.
        swaps: labels that are missed where others are wrong, the commonest first.
        nothing: pictures without a label.
        slices: how many pictures have all labels right, of parts of them.
    """

    labels: Sequence[str]
    thresholds: Thresholds
    score: SeveralScore
    classes: Sequence[ClassFigures]
    average_precisions: Sequence[float | None]
    intervals: Intervals
    swaps: Sequence[Swap]
    nothing: int
    slices: Sequence[Slice]

    @property
    def accuracy_interval(self) -> Interval | None:
        """Of the share of pictures with all labels right; see `intervals.proportion`."""
        return intervals.proportion(self.score.correct, self.score.total)

    @property
    def micro(self) -> ClassFigures:
        """All decisions together, as if they were on one label; without ROC AUC."""
        sums = {
            name: sum(getattr(each, name) for each in self.classes)
            for name in ("both", "missed", "mistaken", "neither")
        }
        return ClassFigures("all", **sums, roc_auc=None)

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON; the score's as a manifest has them."""
        macro: dict[str, Any] = {
            name: classes.macro(self.classes, name) for name in classes.FIGURES
        }
        macro["f1_interval"] = self.intervals.f1_macro
        micro: dict[str, Any] = {
            name: getattr(self.micro, name) for name in ("precision", "recall", "f1")
        }
        micro["f1_interval"] = self.intervals.f1_micro
        return self.score.as_dict() | {
            "accuracy_interval": self.accuracy_interval,
            "map_interval": self.intervals.mean_average_precision,
            "macro": macro,
            "micro": micro,
            "classes": [
                each.as_dict()
                | {
                    "threshold": float(str(threshold)),
                    "average_precision": precision,
                    "average_precision_interval": interval,
                }
                for each, threshold, precision, interval in zip(
                    self.classes,
                    self.thresholds,
                    self.average_precisions,
                    self.intervals.average_precision,
                    strict=True,
                )
            ],
            "swaps": [
                {
                    "missed": self.labels[each.missed],
                    "answered": self.labels[each.answered],
                    "count": each.count,
                }
                for each in self.swaps
            ],
            "slices": [each.as_dict() for each in self.slices],
        }


@dataclass(frozen=True)
class LabelExamples:
    """Pictures that a net is wrong about in one label.

    Attributes:
        label: its number.
        missed: whether they have it and the net says not, or the reverse.
        count: all such pictures.
        pixels: uint8 [N, H, W, C], of those that the net is surest about, surest first.
        confidences: float [N], 0 to 1, the probability of the label.
    """

    label: int
    missed: bool
    count: int
    pixels: Pixels
    confidences: npt.NDArray[np.float32]


def judge(
    labels: Sequence[str], answers: Answers, thresholds: Thresholds, traits: Traits
) -> LabelsJudgement:
    """Returns the figures of a net.

    Args:
        labels: names of the K labels.
        answers: to N pictures, one or more.
        thresholds: of the labels.
        traits: of the same pictures; none is needed.
    """
    probabilities, has = answers.probabilities, answers.labels.astype(bool)
    answered = probabilities >= thresholds
    found: Score = score(probabilities, answers.labels, thresholds)
    assert isinstance(found, SeveralScore)
    return LabelsJudgement(
        labels,
        thresholds,
        found,
        [
            classes.of_class(label, has[:, n], answered[:, n], probabilities[:, n])
            for n, label in enumerate(labels)
        ],
        ranking.average_precisions(has, probabilities),
        _intervals(answers, thresholds),
        _swaps(has, answered),
        int((~has.any(axis=1)).sum()),
        slices.sliced(traits, right(probabilities, answers.labels, thresholds)),
    )


def examples(answers: Answers, thresholds: Thresholds, pictures: Pictures) -> list[LabelExamples]:
    """Returns pictures of the PAIRS commonest mistakes, EACH of one at most.

    Args:
        answers: to all pictures.
        thresholds: of the labels.
        pictures: all, in the order of the answers.

    Returns:
        Nothing where some pictures have no answer: they were lost, and nobody knows which is which.

    Raises:
        DataError: too many pictures cannot be read.
    """
    probabilities, has = answers.probabilities, answers.labels.astype(bool)
    if len(has) != len(pictures):
        return []
    answered = probabilities >= thresholds
    kinds = [
        (label, missed, np.flatnonzero((has[:, label] == missed) & (answered[:, label] != missed)))
        for label in range(has.shape[1])
        for missed in (True, False)
    ]
    found = []
    for label, missed, numbers in sorted(kinds, key=lambda each: -len(each[2]))[:PAIRS]:
        if not len(numbers):
            continue
        sure = probabilities[numbers, label]
        first = np.argsort(sure if missed else -sure, kind="stable")[:EACH]
        [(pixels, _)] = pictures.batches(map(int, numbers[first]), EACH)
        found.append(LabelExamples(label, missed, len(numbers), pixels, sure[first]))
    return found


def _intervals(answers: Answers, thresholds: Thresholds) -> Intervals:
    drawn = resampling.Drawn(answers, thresholds)
    found = [drawn.figures(counts) for counts in resampling.draws(answers)]
    return Intervals(
        [intervals.percentiles(each) for each in np.array([f.average_precision for f in found]).T],
        *(
            intervals.percentiles(np.array([getattr(figures, name) for figures in found]))
            for name in ("mean_average_precision", "f1_micro", "f1_macro")
        ),
    )


def _swaps(has: npt.NDArray[np.bool_], answered: npt.NDArray[np.bool_]) -> list[Swap]:
    """Returns the pairs of labels of which one is missed where the other is answered wrongly."""
    missed, wrong = (has & ~answered).astype(np.int64), (~has & answered).astype(np.int64)
    counts = missed.T @ wrong
    found = [Swap(int(a), int(b), int(counts[a, b])) for a, b in np.argwhere(counts)]
    return sorted(found, key=lambda each: -each.count)

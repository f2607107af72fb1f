"""How well probabilities meet labels; one formula for Keras and for ONNX Runtime."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation import ranking

EPSILON = 1e-7  # Keras clips probabilities there before it takes the logarithm

Thresholds: TypeAlias = npt.NDArray[np.float32]
"""Float32 [K]: a picture has each label whose probability is this or more."""


@dataclass(frozen=True)
class Score:
    """Figures on held-out images.

    Attributes:
        correct: images whose most probable label is the right one.
        total: images.
        loss: mean categorical cross-entropy, nats.
    """

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of images that are right, 0 to 1."""
        return self.correct / self.total

    def as_dict(self) -> dict[str, float]:
        """Returns the metrics of a manifest."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "correct": self.correct,
            "total": self.total,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, accuracy {self.accuracy:.4f} "
            f"({self.correct:,} of {self.total:,} right)"
        )


@dataclass(frozen=True)
class SeveralScore(Score):
    """The same where images have several labels.

    `correct` are the images that have all their labels and no other; `loss` is the mean binary
    cross-entropy over images and labels.

    Attributes:
        mean_average_precision: mean over the labels that an image has; 0 to 1.
        f1_micro: F1 of all decisions together, 0 to 1.
        f1_macro: mean of the labels' F1, of those that are there or were answered.
    """

    mean_average_precision: float
    f1_micro: float
    f1_macro: float

    def as_dict(self) -> dict[str, float]:
        """Returns the metrics of a manifest."""
        return super().as_dict() | {
            "map": self.mean_average_precision,
            "f1_micro": self.f1_micro,
            "f1_macro": self.f1_macro,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, mAP {self.mean_average_precision:.4f}, F1 {self.f1_micro:.4f} "
            f"(micro) and {self.f1_macro:.4f} (macro), all labels right of "
            f"{self.correct:,} of {self.total:,}"
        )


def score(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    thresholds: Thresholds | None = None,
) -> Score:
    """Returns the figures of float32 [N, K] against int [N]; of several labels against [N, K].

    Args:
        probabilities: of the classes.
        labels: that are right.
        thresholds: where pictures have several labels; None otherwise.
    """
    correct = int(right(probabilities, labels, thresholds).sum())
    if thresholds is None:
        sure = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        return Score(correct, len(labels), _loss(sure))
    has, answered = labels.astype(bool), probabilities >= thresholds
    sure = np.where(has, probabilities, 1 - probabilities.astype(np.float64))
    both, one = (has & answered).sum(axis=0), (has ^ answered).sum(axis=0)
    return SeveralScore(
        correct,
        len(labels),
        _loss(sure),
        ranking.mean_average_precision(has, probabilities),
        f1(both.sum(), one.sum()) or 0.0,
        macro_f1(both, one),
    )


def right(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    thresholds: Thresholds | None = None,
) -> npt.NDArray[np.bool_]:
    """Returns whether each picture is answered rightly, bool [N]; see `score`."""
    if thresholds is None:
        found: npt.NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
        return found
    return np.asarray(((probabilities >= thresholds) == labels.astype(bool)).all(axis=1))


def f1(both: int, one: int) -> float | None:
    """Returns F1, 0 to 1; None where a label is neither there nor answered.

    Args:
        both: decisions for a label that are right.
        one: for a label that is not there, and against one that is.
    """
    return 2 * int(both) / (2 * int(both) + int(one)) if both or one else None


def macro_f1(both: npt.NDArray[np.integer], one: npt.NDArray[np.integer]) -> float:
    """Returns the mean of F1 over labels, int [K] each, that have one; 0 if none has; see `f1`."""
    found = [value for pair in zip(both, one, strict=True) if (value := f1(*pair)) is not None]
    return float(np.mean(found)) if found else 0.0


def _loss(sure: npt.NDArray[np.float64]) -> float:
    """Returns the mean cross-entropy, nats, of the probabilities of what is right."""
    return float(-np.log(np.clip(sure, EPSILON, 1 - EPSILON)).mean())

"""Thresholds of several labels: from which probability on a picture has a label.

Chosen for each label by F1 on pictures that were kept out of the training, and never on those that
are held out: a threshold that they chose would look better than it is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Thresholds

DEFAULT = 0.5
#: Pictures with a label, and without it, that a threshold of its own needs; of fewer, chance would
#: choose it.
LEAST = 10


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        thresholds: float32 [K].
        own: bool [K], whether each was chosen, and is not the default for want of pictures.
        pictures: that it was chosen on.
    """

    thresholds: Thresholds
    own: npt.NDArray[np.bool_]
    pictures: int

    def __str__(self) -> str:
        text = (
            f"thresholds {self.thresholds.min():.3f} to {self.thresholds.max():.3f}, by F1 on "
            f"{self.pictures:,} pictures kept out of the training"
        )
        few = int((~self.own).sum())
        return text + (
            f"; {DEFAULT:g} for {few} of {len(self.own)} labels, with fewer than {LEAST} pictures "
            "that have it or have it not"
            if few
            else ""
        )


def choose(answers: Answers) -> Choice:
    """Returns the threshold of each label.

    Args:
        answers: to pictures that were neither trained on nor are held out.
    """
    has = answers.labels.astype(bool)
    own = np.minimum(has.sum(axis=0), (~has).sum(axis=0)) >= LEAST
    found = [
        best(*columns) if enough else DEFAULT
        for *columns, enough in zip(has.T, answers.probabilities.T, own, strict=True)
    ]
    return Choice(np.array(found, np.float32), own, len(has))


def best(has: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> float:
    """Returns the threshold of the highest F1, above 0 and at most 1.

    It lies in the middle between two scores, so that rounding changes no decision; of equally good
    ones it is the one next to DEFAULT.

    Args:
        has: bool [N], whether each picture has the label; one or more has.
        scores: float32 [N], 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(has[order])[ends]
    # Answered are all up to an end: 2 both / (answered + those that have it).
    values = 2 * hits / (ends + 1 + has.sum())
    # A threshold below the lowest score is half of that.
    below = np.append(ordered[ends[:-1] + 1], 0.0)
    middles = ((ordered[ends] + below) / 2).astype(np.float32)
    # Of neighbours that a float32 cannot part, the upper one, which is answered, too.
    middles = np.where(middles > below, middles, ordered[ends].astype(np.float32))
    possible = middles > 0  # a score of 0 is never answered
    values, middles = values[possible], middles[possible]
    if not len(values):
        return DEFAULT
    good = middles[values >= values.max() - 1e-12]
    return float(min(good, key=lambda each: abs(float(each) - DEFAULT)))

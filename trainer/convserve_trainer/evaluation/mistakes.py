"""Pictures that a net is wrong about, of the classes that it confuses most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pictures, Pixels
from convserve_trainer.evaluation.judgement import Confusion
from convserve_trainer.evaluation.predict import Answers

PAIRS, EACH = 6, 6


@dataclass(frozen=True)
class Examples:
    """Pictures of one class that are mistaken for another one.

    Attributes:
        confusion: the two classes, and how many such pictures there are.
        pixels: uint8 [N, H, W, C], of those that the net is surest about, surest first.
        confidences: float [N], 0 to 1, what it says of its wrong answer.
    """

    confusion: Confusion
    pixels: Pixels
    confidences: npt.NDArray[np.float32]


def examples(
    answers: Answers, pictures: Pictures, confusions: Sequence[Confusion]
) -> list[Examples]:
    """Returns pictures of the first PAIRS confusions, EACH of one at most.

    Args:
        answers: to all pictures.
        pictures: all, in the order of the answers.
        confusions: commonest first.

    Returns:
        Nothing where some pictures have no answer: they were lost, and nobody knows which is which.

    Raises:
        DataError: too many pictures cannot be read.
    """
    probabilities, right = answers
    if len(right) != len(pictures):
        return []
    answered = probabilities.argmax(axis=1)
    found = []
    for each in confusions[:PAIRS]:
        numbers = np.flatnonzero((right == each.true) & (answered == each.answered))
        sure = probabilities[numbers, each.answered]
        first = np.argsort(-sure, kind="stable")[:EACH]
        [(pixels, _)] = pictures.batches(map(int, numbers[first]), EACH)
        found.append(Examples(each, pixels, sure[first]))
    return found

"""Confidence and its calibration: how far a net may be believed, and one number that mends it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15
LEAST, LARGEST = 0.05, 20.0
"""Temperatures that are looked at."""

_SMALLEST = 1e-45  # float32 has no smaller number above 0: what a softmax rounds to 0 is below it


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        count: answers.
        confidence: their mean, 0 to 1; nothing is in a bin without answers.
        accuracy: share of them that is right.
    """

    count: int
    confidence: float
    accuracy: float


def as_two_classes(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.integer]]:
    """Returns each decision on a label as the answer to a picture of two classes.

    A sigmoid is a softmax of its logit and 0, so that one temperature of all labels is found as
    that of a softmax is.

    Args:
        probabilities: [N, K], of several labels.
        labels: [N, K], 0 or 1.

    Returns:
        [N * K, 2], rows sum to 1, and [N * K], 0 or 1.
    """
    sure = probabilities.astype(np.float64).reshape(-1)
    return np.stack([1 - sure, sure], axis=1), labels.reshape(-1)


def bins(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], count: int = BINS
) -> list[Bin]:
    """Returns the answers by their confidence, in bins of equal width, each with its upper edge.

    Args:
        probabilities: [N, K], rows sum to 1.
        labels: [N].
        count: of bins.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    indices = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    found = []
    for index in range(count):
        inside = indices == index
        number = int(inside.sum())
        means = (confidence[inside].mean(), right[inside].mean()) if number else (0.0, 0.0)
        found.append(Bin(number, float(means[0]), float(means[1])))
    return found


def calibration_error(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], count: int = BINS
) -> float:
    """Returns the expected calibration error, 0 to 1: the mean gap of accuracy and confidence.

    Source: C. Guo and others, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    found = bins(probabilities, labels, count)
    gaps = sum(each.count * abs(each.accuracy - each.confidence) for each in found)
    return gaps / len(labels)


def apply_temperature(
    probabilities: npt.NDArray[np.floating], temperature: float
) -> npt.NDArray[np.float64]:
    """Returns the probabilities of the logits divided by a temperature, float64 [N, K].

    The logarithms of probabilities are logits but for a constant in each row, which a softmax does
    not see.
    """
    logits = _logits(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softened: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return softened


def fit(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Returns the temperature, LEAST to LARGEST, that minimises the mean cross-entropy.

    The loss is convex in 1/T, so that halving finds where its slope changes sign. Where all answers
    are right there is no minimum: the lower, the better, and LEAST is returned.

    Args:
        probabilities: [N, K] on pictures that the net was not trained on.
        labels: [N].

    Source: Guo and others, 2017, section 4.2.
    """
    logits = _logits(probabilities)
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        powers = np.exp(logits * inverse)
        expected = (powers * logits).sum(axis=1) / powers.sum(axis=1)
        return float((expected - right).mean())

    low, high = 1 / LARGEST, 1 / LEAST
    for _ in range(60):
        middle = (low + high) / 2
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return 1 / low if slope(high) <= 0 else 1 / ((low + high) / 2)


def _logits(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    logarithms: npt.NDArray[np.float64] = np.log(
        np.maximum(probabilities.astype(np.float64), _SMALLEST)
    )
    return logarithms

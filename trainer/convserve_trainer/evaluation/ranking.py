"""Average precision: how well probabilities put the pictures of a label before all others."""

import numpy as np
import numpy.typing as npt


def average_precision(has: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float | None:
    """Returns the average precision of a label, 0 to 1; None if no picture has it.

    The area below the steps of precision over recall, as the score falls: the sum, over distinct
    scores, of the recall that is won times the precision there. Pictures of equal score come
    together.

    Args:
        has: bool [N], whether each picture has the label.
        scores: float [N].

    Source: C. D. Manning, P. Raghavan and H. Schuetze, "Introduction to Information Retrieval",
        2008, section 8.4; without interpolation.
    """
    found = int(has.sum())
    if not found:
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each distinct score
    hits = np.cumsum(has[order])[ends]
    won = np.diff(hits, prepend=0)
    return float((won * (hits / (ends + 1))).sum() / found)


def average_precisions(
    has: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> list[float | None]:
    """Returns the average precision of each label; see `average_precision`.

    Args:
        has: bool [N, K].
        scores: float [N, K].
    """
    return [average_precision(*columns) for columns in zip(has.T, scores.T, strict=True)]


def mean_average_precision(has: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Returns the mean over the labels that a picture has, 0 to 1; 0 if none has any."""
    found = [value for value in average_precisions(has, scores) if value is not None]
    return float(np.mean(found)) if found else 0.0

import math

import numpy as np
import pytest

from convserve_trainer.evaluation.score import score


def test_score_counts_right_answers_and_averages_the_cross_entropy() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0, 0, 1]], dtype=np.float32)
    found = score(probabilities, np.array([0, 1, 2], dtype=np.uint8))
    assert (found.correct, found.total) == (2, 3)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx((math.log(2) + math.log(4)) / 3, abs=1e-6)


def test_score_of_an_impossible_answer_is_finite() -> None:
    found = score(np.array([[1, 0]], dtype=np.float32), np.array([1], dtype=np.uint8))
    assert found.correct == 0
    assert found.loss == pytest.approx(-math.log(1e-7))

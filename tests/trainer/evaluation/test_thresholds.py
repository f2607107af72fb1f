"""Thresholds of several labels: the best F1, and what few pictures decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_trainer.evaluation import thresholds
from convserve_trainer.evaluation.predict import Answers


def f1(has: np.ndarray, answered: np.ndarray) -> float:
    both = int((has & answered).sum())
    return 2 * both / (int(has.sum()) + int(answered.sum()))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=40).filter(
        lambda rows: any(has for has, _ in rows)
    )
)
def test_threshold_has_the_best_f1_of_all(rows: list[tuple[bool, int]]) -> None:
    has = np.array([each for each, _ in rows])
    scores = np.array([each for _, each in rows], np.float32) / np.float32(20)
    found = thresholds.best(has, scores)
    assert 0 < found <= 1
    # Between the scores, and below and above all of them.
    every = np.arange(1, 41) / 40
    best = max(f1(has, scores >= each) for each in every)
    assert f1(has, scores >= np.float32(found)) == pytest.approx(best)


def test_threshold_lies_in_the_middle_between_those_with_and_without() -> None:
    has = np.array([True, True, False, False])
    scores = np.array([0.9, 0.7, 0.3, 0.1], np.float32)
    assert thresholds.best(has, scores) == pytest.approx(0.5)


def test_neighbours_of_float32_are_still_parted() -> None:
    low = np.float32(0.25)
    high = np.nextafter(low, np.float32(1))
    found = thresholds.best(np.array([True, False]), np.array([high, low]))
    assert np.float32(found) == high


def test_label_of_few_pictures_keeps_the_default() -> None:
    random = np.random.default_rng(1)
    labels = np.zeros((100, 4), np.int64)
    labels[:10, 0], labels[:9, 1], labels[:91, 2], labels[:90, 3] = 1, 1, 1, 1
    # All are best parted at 0.2.
    probabilities = 0.2 + np.where(labels, 0.1, -0.1) * random.uniform(0.5, 1, labels.shape)
    choice = thresholds.choose(Answers(probabilities.astype(np.float32), labels))
    assert choice.own.tolist() == [True, False, False, True]
    assert choice.thresholds.dtype == np.float32
    assert choice.thresholds[[1, 2]].tolist() == [0.5, 0.5]
    assert np.abs(choice.thresholds[[0, 3]] - 0.2).max() < 0.1
    assert str(choice).endswith(
        "by F1 on 100 pictures kept out of the training; 0.5 for 2 of 4 labels, with fewer than 10 "
        "pictures that have it or have it not"
    )

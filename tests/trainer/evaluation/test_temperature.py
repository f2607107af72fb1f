"""Calibration on hand-made answers."""

import numpy as np
import pytest

from convserve_trainer.evaluation import temperature


def _binary(confidences: list[float]) -> np.ndarray:
    sure = np.array(confidences)
    return np.stack([sure, 1 - sure], axis=1)


def test_error_is_the_gap_weighted_by_the_answers() -> None:
    # Four answers at 0.95, three right: a gap of 0.20. Two at 0.65, both right: 0.35.
    answers = _binary([0.95] * 4 + [0.65] * 2)
    labels = np.array([0, 0, 0, 1, 0, 0])
    found = temperature.calibration_error(answers, labels)
    assert found == pytest.approx(4 / 6 * 0.20 + 2 / 6 * 0.35)


def test_error_cancels_within_a_bin_but_not_between_bins() -> None:
    answers = _binary([0.95, 0.97])
    assert temperature.calibration_error(answers, np.array([0, 0])) == pytest.approx(0.04)
    answers = _binary([0.55, 0.95])
    found = temperature.calibration_error(answers, np.array([1, 0]))
    assert found == pytest.approx((0.55 + 0.05) / 2)


def test_bins_hold_their_upper_edge() -> None:
    answers = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [1.0, 0, 0, 0, 0]])
    found = temperature.bins(answers, np.array([0, 0]), count=5)
    assert [each.count for each in found] == [1, 0, 0, 0, 1]
    assert found[4].confidence == found[4].accuracy == 1.0


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_temperature_of_made_up_logits_is_found(true: float) -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (40_000, 5))
    drawn = _softmax(logits)
    labels = (drawn.cumsum(axis=1) < generator.random((len(drawn), 1))).sum(axis=1)
    found = temperature.fit(_softmax(logits * true), labels)
    assert found == pytest.approx(true, rel=0.03)
    mended = temperature.apply_temperature(_softmax(logits * true), found)
    assert temperature.calibration_error(mended, labels) < 0.01


def test_temperature_minimises_the_loss() -> None:
    answers = _softmax(np.random.default_rng(1).normal(0, 3, (500, 4)))
    labels = np.random.default_rng(2).integers(0, 4, 500)
    labels[:350] = answers[:350].argmax(axis=1)
    best = temperature.fit(answers, labels)
    losses = [
        -np.log(temperature.apply_temperature(answers, each)[np.arange(500), labels]).mean()
        for each in (best * 0.9, best, best * 1.1)
    ]
    assert 1 < best < temperature.LARGEST
    assert losses[1] == min(losses)


def test_answers_that_are_all_right_ask_for_the_least_temperature() -> None:
    answers = _binary([0.7, 0.8])
    assert temperature.fit(answers, np.array([0, 0])) == pytest.approx(temperature.LEAST)
    assert temperature.fit(answers, np.array([1, 1])) == pytest.approx(temperature.LARGEST)


def test_cooling_changes_no_answer_and_accepts_zeros() -> None:
    answers = np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2]], np.float32)
    apply_temperature = temperature.apply_temperature(answers, 3.0)
    assert apply_temperature.argmax(axis=1).tolist() == [0, 0]
    assert apply_temperature.sum(axis=1) == pytest.approx(np.ones(2))
    assert temperature.apply_temperature(answers, 1.0) == pytest.approx(answers)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))

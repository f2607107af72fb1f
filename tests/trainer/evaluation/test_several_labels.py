"""Figures of several labels, against the definition and against sums of one's own."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from convserve_trainer.datasets.pictures import ArrayPictures
from convserve_trainer.evaluation import labels_judgement, ranking, resampling, temperature
from convserve_trainer.evaluation.differences import differences
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import SeveralScore, right, score

LABELS = ("a", "b", "c")
THRESHOLDS = np.array([0.5, 0.3, 0.7], np.float32)
#: Of four pictures: all right, one missed and one wrong, none and right, one wrong.
HAS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
FOUND = np.array([[0.5, 0.3, 0.6], [0.4, 0.4, 0.1], [0.1, 0.2, 0.3], [0.2, 0.9, 0.7]], np.float32)
ANSWERS = Answers(FOUND, HAS)


def by_definition(has: npt.NDArray[np.bool_], scores: Sequence[float]) -> float:
    """The sum, over thresholds, of recall that is won times precision there."""
    total, found = int(has.sum()), 0.0
    before = 0.0
    for threshold in sorted(set(scores), reverse=True):
        answered = np.array(scores) >= threshold
        both = int((has & answered).sum())
        found += (both / total - before) * both / int(answered.sum())
        before = both / total
    return found


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    has = random.random(60) < 0.3
    scores = random.integers(0, 12, 60) / 12  # many are equal
    found = ranking.average_precision(has, scores)
    assert found == pytest.approx(by_definition(has, scores.tolist()), abs=1e-12)


def test_average_precision_of_the_best_the_worst_and_none() -> None:
    has = np.array([True, False, False, False])
    assert ranking.average_precision(has, np.array([4.0, 3, 2, 1])) == 1.0
    assert ranking.average_precision(has, np.array([1.0, 3, 2, 4])) == 0.25
    assert ranking.average_precision(has, np.full(4, 0.5)) == 0.25, "all are equal"
    assert ranking.average_precision(~has & has, np.ones(4)) is None
    every = np.stack([has, has & ~has], axis=1)
    assert ranking.mean_average_precision(every, np.ones((4, 2))) == 0.25, "of the one there is"


def test_score_counts_pictures_with_all_labels_right() -> None:
    found = score(FOUND, HAS, THRESHOLDS)
    assert isinstance(found, SeveralScore)
    assert (found.correct, found.total) == (2, 4)
    assert right(FOUND, HAS, THRESHOLDS).tolist() == [True, False, True, False]
    # a: 1 both, 1 missed; b: 2 both, 1 wrong; c: 1 wrong.
    assert found.f1_micro == pytest.approx(6 / (6 + 3))
    assert found.f1_macro == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert found.loss == pytest.approx(
        -np.log(np.where(HAS, FOUND, 1 - FOUND.astype(np.float64))).mean()
    )
    assert found.mean_average_precision == pytest.approx(
        (1 + by_definition(HAS[:, 1] == 1, FOUND[:, 1].tolist())) / 2
    )
    assert set(found.as_dict()) >= {"accuracy", "loss", "correct", "total", "map", "f1_micro"}


def test_judgement_names_what_is_missed_where_another_label_is_wrong() -> None:
    found = labels_judgement.judge(LABELS, ANSWERS, THRESHOLDS, {})
    assert [(each.missed, each.answered, each.count) for each in found.swaps] == [(0, 1, 1)]
    assert found.nothing == 1
    assert found.average_precisions[2] is None
    micro = found.micro
    assert (micro.both, micro.missed, micro.mistaken, micro.neither) == (3, 1, 2, 6)
    written = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [each["threshold"] for each in written["classes"]] == [0.5, 0.3, 0.7]
    assert written["swaps"] == [{"missed": "a", "answered": "b", "count": 1}]


def test_examples_are_those_that_the_net_is_surest_about() -> None:
    pictures = ArrayPictures(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), HAS)
    found = labels_judgement.examples(ANSWERS, THRESHOLDS, pictures)
    assert [(LABELS[each.label], each.missed, each.count) for each in found] == [
        ("a", True, 1), ("b", False, 1), ("c", False, 1),
    ]  # fmt: skip
    assert [each.pixels.reshape(-1).tolist() for each in found] == [[1], [1], [3]]
    assert [each.confidences.tolist() for each in found] == [
        [FOUND[1, 0]], [FOUND[1, 1]], [FOUND[3, 2]],
    ]  # fmt: skip
    fewer = Answers(FOUND[:3], HAS[:3])
    assert labels_judgement.examples(fewer, THRESHOLDS, pictures) == [], "one was lost"


def _drawn(seed: int, count: int = 300, better: float = 0.0) -> Answers:
    """Answers to `count` pictures, the same for each seed, that are more or less right."""
    labels = (np.random.default_rng(0).random((count, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.int64)
    noise = np.random.default_rng(seed).normal(0, 0.3 - better, labels.shape)
    found_rows = np.clip(0.3 + 0.4 * labels + noise, 0, 1).round(2)
    return Answers(found_rows.astype(np.float32), labels)


def test_figures_of_draws_are_those_of_the_pictures_that_are_drawn() -> None:
    answers, thresholds = _drawn(1), np.full(4, 0.5, np.float32)
    drawn = resampling.Drawn(answers, thresholds)
    for counts, _ in zip(resampling.draws(answers), range(3), strict=False):
        assert counts.sum() == len(answers.labels)
        numbers = np.repeat(np.arange(len(counts)), counts)
        found = drawn.figures(counts)
        expected = score(answers.probabilities[numbers], answers.labels[numbers], thresholds)
        assert isinstance(expected, SeveralScore)
        assert found.mean_average_precision == pytest.approx(expected.mean_average_precision)
        assert found.f1_micro == pytest.approx(expected.f1_micro)
        assert found.f1_macro == pytest.approx(expected.f1_macro)


def test_interval_holds_the_figure_and_is_none_where_there_is_none() -> None:
    found = labels_judgement.judge(("a", "b", "c", "d"), _drawn(1), np.full(4, 0.5, np.float32), {})
    low, high = found.intervals.mean_average_precision or (1, 0)
    assert low < found.score.mean_average_precision < high
    assert found.intervals.average_precision[3] is None


def test_difference_of_two_nets_is_luck_or_not() -> None:
    thresholds = np.full(4, 0.5, np.float32)
    same = differences((_drawn(1), thresholds), (_drawn(2), thresholds))
    assert same[0].p > 0.05
    assert same[0].interval[0] < 0 < same[0].interval[1]
    apart = differences((_drawn(1), thresholds), (_drawn(2, better=0.2), thresholds))
    assert [each.name for each in apart] == ["mean_average_precision", "f1_macro", "f1_micro"]
    assert all(each.p < 0.01 and each.interval[0] > 0 for each in apart)
    reverse = differences((_drawn(2, better=0.2), thresholds), (_drawn(1), thresholds))
    assert reverse[0].difference == pytest.approx(-apart[0].difference)
    assert reverse[0].p == apart[0].p


def test_temperature_of_several_labels_finds_what_sigmoids_were_multiplied_by() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (4_000, 3))
    labels = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    too_sure = (1 / (1 + np.exp(-2.5 * logits))).astype(np.float32)
    answers, decisions = temperature.as_two_classes(too_sure, labels)
    assert temperature.fit(answers, decisions) == pytest.approx(2.5, rel=0.05)

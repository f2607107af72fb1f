"""Intervals: against values of other sources, and how often they hold what is true."""

import numpy as np
import pytest

from convserve_trainer.evaluation import classes, intervals


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_of_a_share_is_wilsons(
    successes: int, total: int, low: float, high: float
) -> None:
    found = intervals.proportion(successes, total)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_interval_of_nothing_is_none() -> None:
    assert intervals.proportion(0, 0) is None
    assert intervals.f1(0, 0) is None
    assert intervals.roc_auc(0.7, 0, 5) is None


def test_interval_of_f1_is_wilsons_on_another_scale() -> None:
    found = intervals.f1(81, 263 - 81)
    assert found == pytest.approx((2 * 0.2553 / 1.2553, 2 * 0.3662 / 1.3662), abs=1e-4)


def test_no_interval_is_without_width_or_beyond_what_can_be() -> None:
    for found in (
        *(intervals.proportion(n, 50) for n in (0, 50)),
        *(intervals.f1(n, 50 - n) for n in (0, 50)),
        *(intervals.roc_auc(area, 5, 50) for area in (0.0, 0.5, 1.0)),
    ):
        assert found is not None
        low, high = found
        assert 0 <= low < high <= 1


def test_interval_of_an_area_is_as_far_away_as_it_should_be() -> None:
    """Newcombe 2006, equation of method 5, solved by hand for m = n = 10, so that N* is 9."""
    found = intervals.roc_auc(0.8, 10, 10)
    assert found is not None
    for true in found:
        spread = 1 + 9 * (1 - true) / (2 - true) + 9 * true / (1 + true)
        deviation = (true * (1 - true) * spread / 100) ** 0.5
        assert abs(0.8 - true) / deviation == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize(("inside", "outside"), [(50, 450), (100, 100)])
def test_interval_of_an_area_holds_the_true_one_about_95_times_in_100(
    inside: int, outside: int
) -> None:
    """Scores of two normal distributions a distance of 1.5 apart: the true area is 0.8556."""
    random = np.random.default_rng(3)
    true = np.arange(inside + outside) < inside
    held = []
    for _ in range(600):
        area = classes.roc_auc(true, random.normal(size=len(true)) + 1.5 * true)
        assert area is not None
        found = intervals.roc_auc(area, inside, outside)
        assert found is not None
        held.append(found[0] <= 0.85558 <= found[1])
    assert 0.92 <= np.mean(held) <= 0.99


def test_interval_of_f1_holds_the_true_one_about_95_times_in_100() -> None:
    shares = (0.15, 0.03, 0.05, 0.77)  # both, missed, mistaken, neither: F1 is 0.7895
    draws = np.random.default_rng(4).multinomial(300, shares, 2_000)
    bounds = [intervals.f1(int(both), int(a + b)) for both, a, b, _ in draws]
    held = [found is not None and found[0] <= 0.30 / 0.38 <= found[1] for found in bounds]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_bootstrap_is_the_same_each_time_and_near_a_formula() -> None:
    counts = np.array([810, 1820])
    found = intervals.bootstrap(counts, lambda drawn: drawn[0] / drawn.sum())
    assert found == intervals.bootstrap(counts, lambda drawn: drawn[0] / drawn.sum())
    assert found == pytest.approx(intervals.proportion(810, 2630), abs=0.004)

"""Which batch sizes there are, and which is found to be the largest worth while."""

import math
from collections.abc import Callable

import pytest

from convserve_server.engines.batch_sizes import bucket_sizes, largest_worthwhile


@pytest.mark.parametrize(
    ("max_batch", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (6, [1, 2, 4, 6]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
        (65, [1, 2, 4, 8, 16, 32, 64, 65]),
    ],
)
def test_bucket_sizes_are_powers_of_two_and_max_batch(max_batch: int, sizes: list[int]) -> None:
    assert bucket_sizes(max_batch) == sizes


def alike(image_s: float, first_s: float = 0.0) -> Callable[[int], float]:
    """Every image costs the same, and every run something more."""
    return lambda count: first_s + count * image_s


@pytest.mark.parametrize(
    ("seconds", "longest_s", "chosen"),
    [
        # A digit: what a batch costs beside the run makes large ones worth while.
        (alike(60e-6), 0.06, 32),
        # A photograph: larger batches save nothing.
        (alike(4e-3), 0.06, 1),
        # The first image of a batch is expensive, so two are worth while, four hardly, eight not.
        (alike(4e-3, first_s=0.5e-3), 0.06, 4),
        # A device that computes many as fast as one.
        (alike(1e-7, first_s=2e-4), math.inf, 64),
        # Too long, though larger batches save a lot.
        (alike(1e-3, first_s=20e-3), 0.06, 2),
        # Not even one is short enough: one it is.
        (alike(5.0), 0.06, 1),
    ],
)
def test_largest_that_lowers_the_cost_of_an_image(
    seconds: Callable[[int], float], longest_s: float, chosen: int
) -> None:
    assert largest_worthwhile(seconds, bucket_sizes(64), longest_s) == chosen


def test_no_size_is_run_beyond_the_first_that_is_not_worth_while() -> None:
    asked: list[int] = []

    def seconds(count: int) -> float:
        asked.append(count)
        return count * 0.004

    assert largest_worthwhile(seconds, bucket_sizes(64), 10.0) == 1
    assert asked == [1, 2]


def test_short_batches_are_passed_over_whatever_they_cost() -> None:
    """Where something else disturbed the run of four, eight are still looked at."""
    disturbed = {1: 60e-6, 2: 110e-6, 4: 900e-6, 8: 420e-6, 16: 800e-6}
    assert largest_worthwhile(disturbed.__getitem__, bucket_sizes(16), 0.06) == 16


def test_run_is_short_by_its_own_time_and_not_by_that_of_a_single_image() -> None:
    """On a device 64 images take hardly longer than one; others at work there disturb."""
    device = {1: 1e-4, 2: 1e-4, 4: 1e-4, 8: 1e-4, 16: 4e-4, 32: 8e-4, 64: 2e-4}
    assert largest_worthwhile(device.__getitem__, bucket_sizes(64), math.inf) == 64


def test_how_short_is_short_enough_can_be_set() -> None:
    flat = alike(1e-4)
    assert largest_worthwhile(flat, bucket_sizes(64), math.inf, 0.005) == 64
    assert largest_worthwhile(flat, bucket_sizes(64), math.inf, 0.0005) < 64


def test_size_that_cannot_be_run_is_not_chosen_however_short_the_others_are() -> None:
    runs = {1: 1e-4, 2: 1e-4, 4: math.inf, 8: 1e-4}
    assert largest_worthwhile(runs.__getitem__, bucket_sizes(8), math.inf, 1.0) == 2

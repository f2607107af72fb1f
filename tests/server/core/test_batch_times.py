"""How long a batch takes, from few measurements, and how it is learnt while serving."""

import random

import pytest

from convserve_server.core.batch_times import BatchTimes

#: Measured with CUDA graphs: seconds by batch size.
CUDA = {1: 90e-6, 64: 162e-6}


def noted(times: BatchTimes, count: int, seconds: float, how_often: int) -> BatchTimes:
    for _ in range(how_often):
        times.note(count, seconds)
    return times


@pytest.mark.parametrize(
    ("count", "us"), [(1, 90), (64, 162), (2, 91.1), (32, 125.4), (48, 143.7), (128, 235)]
)
def test_between_and_beyond_what_was_measured_times_are_on_straight_lines(
    count: int, us: float
) -> None:
    assert BatchTimes(CUDA).seconds(count) == pytest.approx(us * 1e-6, rel=0.005)


def test_size_that_is_no_power_of_two_keeps_what_was_measured() -> None:
    assert BatchTimes({1: 0.001, 16: 0.01, 20: 0.012}).seconds(20) == pytest.approx(0.012, rel=0.05)


@pytest.mark.parametrize(("count", "seconds"), [(0, 0.0), (1, 1.0), (4, 4.0), (5, 5.0), (9, 9.0)])
def test_images_that_are_more_than_a_batch_take_several(count: int, seconds: float) -> None:
    times = BatchTimes({1: 1.0, 4: 4.0})
    assert times.of_images(count, 4) == pytest.approx(seconds)


def test_larger_batch_never_takes_less_whatever_was_measured() -> None:
    times = BatchTimes({1: 0.002, 2: 0.001, 8: 0.004})
    seconds = [times.seconds(count) for count in range(1, 20)]
    assert seconds == sorted(seconds)


def test_nothing_is_known_until_several_batches_have_run() -> None:
    times = BatchTimes({})
    assert times.seconds(5) == 0.0
    noted(times, 4, 0.004, 7)
    assert not times.known
    assert times.seconds(4) == pytest.approx(0.004)
    assert noted(times, 4, 0.004, 1).known


def test_first_batches_count_with_their_least_time_and_promise_nothing_of_larger_ones() -> None:
    times = BatchTimes({})
    for seconds in (3.0, 0.5, 0.004, 0.005, 0.004, 0.006, 0.004, 0.004):
        times.note(4, seconds)
    assert times.seconds(4) == pytest.approx(0.004)
    assert times.seconds(64) == pytest.approx(0.004)


def test_one_batch_that_takes_very_long_is_hardly_seen() -> None:
    times = noted(BatchTimes({1: 0.001, 16: 0.008}), 16, 1.0, 1)
    assert times.seconds(16) <= 0.008 * 1.2 + 1e-9
    assert noted(times, 16, 0.008, 10).seconds(16) == pytest.approx(0.008, rel=0.1)


@pytest.mark.parametrize("count", [16, 13])
@pytest.mark.parametrize("times_as_long", [0.1, 0.5, 2.0, 10.0])
def test_lasting_change_is_learnt_in_forty_batches(count: int, times_as_long: float) -> None:
    times = BatchTimes({1: 0.001, 16: 0.016})
    seconds = times.seconds(count) * times_as_long
    assert noted(times, count, seconds, 40).seconds(count) == pytest.approx(seconds, rel=0.05)


def test_noise_leaves_the_mean() -> None:
    choose = random.Random(1)
    times = BatchTimes({1: 0.001, 16: 0.016})
    seen = []
    for _ in range(2000):
        times.note(16, 0.016 * choose.uniform(0.8, 1.2))
        seen.append(times.seconds(16))
    assert min(seen) > 0.9 * 0.016
    assert max(seen) < 1.1 * 0.016


def test_what_is_learnt_of_one_size_bounds_the_others() -> None:
    slow = noted(BatchTimes({1: 0.001, 64: 0.008}), 1, 1.0, 100)
    assert slow.seconds(64) >= slow.seconds(1) == pytest.approx(1.0, rel=0.01)
    fast = noted(BatchTimes({1: 1.0, 64: 8.0}), 64, 0.008, 100)
    assert fast.seconds(1) <= fast.seconds(64) == pytest.approx(0.008, rel=0.01)


def test_large_batches_are_not_thought_slow_for_ever_where_only_small_ones_run() -> None:
    times = noted(BatchTimes({1: 1.0, 64: 1.0}), 1, 0.0001, 5)
    assert times.seconds(4) < 0.001


@pytest.mark.parametrize("count", [1, 4096, 10_000, 100_000])
def test_any_size_has_a_time(count: int) -> None:
    times = BatchTimes(CUDA)
    times.note(count, 0.5)
    assert times.seconds(count) > 0.0

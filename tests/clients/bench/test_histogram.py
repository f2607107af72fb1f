import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convserve_bench.histogram import RELATIVE_ERROR, Histogram

DURATIONS = st.lists(st.floats(1e-6, 3600.0), min_size=1, max_size=300)
SHARES = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)


@given(DURATIONS)
def test_percentiles_are_numpys_to_the_stated_error(durations: list[float]) -> None:
    histogram = Histogram()
    histogram.add(durations)
    for share in SHARES:
        right = np.percentile(durations, share * 100, method="inverted_cdf")
        assert abs(histogram.percentile(share) - right) <= right * (RELATIVE_ERROR + 1e-9)


@given(DURATIONS, DURATIONS)
def test_parts_make_the_whole(first: list[float], second: list[float]) -> None:
    parts = Histogram()
    parts.add(first)
    before = parts.copy()
    parts.add(second)
    whole, later = Histogram(), Histogram()
    whole.add(first + second)
    later.add(second)
    for share in SHARES:
        assert parts.percentile(share) == whole.percentile(share)
    assert (parts.count, parts.longest_s) == (whole.count, max(first + second))
    assert math.isclose(parts.mean(), float(np.mean(first + second)))
    added = parts.since(before)
    assert added.count == len(second)
    assert added.percentile(0.5) == min(later.percentile(0.5), later.longest_s) or (
        # Only the longest of all is known, not that of the later part.
        added.percentile(0.5) >= later.percentile(0.5)
    )


def test_extremes_are_counted_and_the_longest_is_exact() -> None:
    histogram = Histogram()
    histogram.add([0.0, 1e-9, 1e6])
    assert histogram.count == 3
    assert histogram.longest_s == 1e6
    assert histogram.percentile(0.5) <= 2e-6


def test_nothing_has_no_percentile() -> None:
    histogram = Histogram()
    histogram.add([])
    assert math.isnan(histogram.percentile(0.5))
    assert math.isnan(histogram.mean())


def test_memory_does_not_grow_with_what_is_counted() -> None:
    histogram = Histogram()
    before = histogram._counts.nbytes
    histogram.add(np.geomspace(1e-9, 1e9, 100_000))
    assert histogram._counts.nbytes == before < 64 * 1024

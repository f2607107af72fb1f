"""The numbers of `convserve top`: quantiles, increases, and how they are written."""

import math

import pytest

from convserve.command.top.histograms import Histogram
from convserve.command.top.numbers import count, mebibytes, milliseconds, short
from convserve.command.top.page import Increase, Page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (math.nan, "-"), (0, "0"), (0.0004, "0"), (0.0006, "0.001"), (0.1, "0.100"),
        (1, "1.00"), (9.999, "10.00"), (12.34, "12.3"), (99.96, "100.0"), (123.4, "123"),
        (999.4, "999"), (999.6, "1,000"), (99_999.4, "99,999"), (99_999.6, "100k"),
        (187_500, "188k"), (999_400, "999k"), (999_600, "1.0M"),
        (12_345_678, "12.3M"), (5e9, "5.0G"), (2e15, "2000T"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert short(value) == text


def test_counts_bytes_and_seconds() -> None:
    assert [count(n) for n in (0, 7, 99_999, 100_000)] == ["0", "7", "99,999", "100k"]
    assert [mebibytes(n) for n in (None, 0, 3 << 20)] == ["-", "0", "3"]
    assert [milliseconds(n) for n in (None, 0.0123)] == ["-", "12.3"]


@pytest.mark.parametrize(
    ("upto", "share", "value"),
    [
        ({}, 0.5, None),
        ({1.0: 0, math.inf: 0}, 0.5, None),
        ({1.0: 4, 2.0: 4, math.inf: 4}, 0.5, 0.5),
        ({1.0: 0, 2.0: 4, math.inf: 4}, 0.25, 1.25),
        ({1.0: 2, 2.0: 2, 4.0: 4, math.inf: 4}, 0.75, 3.0),
        # Beyond the last bound nobody knows how far.
        ({1.0: 1, 2.0: 2, math.inf: 4}, 0.99, 2.0),
        ({math.inf: 4}, 0.5, None),
    ],
)
def test_quantile_is_interpolated(
    upto: dict[float, float], share: float, value: float | None
) -> None:
    assert Histogram(upto).quantile(share) == value


def page(*lines: str) -> Page:
    return Page.parse("\n".join(("convserve_workers 1", *lines)) + "\n", 0.0)


def test_increase_is_that_of_each_series_and_new_ones_begin_at_zero() -> None:
    before = page('convserve_calls_total{code="OK"} 5')
    after = page('convserve_calls_total{code="OK"} 7', 'convserve_calls_total{code="NO"} 2')
    found = Increase.between(before, after).of("convserve_calls_total")
    assert {labels["code"]: value for labels, value in found} == {"OK": 2, "NO": 2}


def test_one_counter_that_fell_means_that_all_began_anew() -> None:
    before = page("convserve_images_total 5", "convserve_cancelled_total 3")
    after = page("convserve_images_total 6", "convserve_cancelled_total 0")
    found = Increase.between(before, after)
    assert [value for _, value in found.of("convserve_images_total")] == [6]
    # A gauge may fall as it likes.
    lower = Page.parse("convserve_workers 0\nconvserve_cancelled_total 3\n", 1.0)
    assert Increase.between(before, lower).before is before


def test_names_of_others_and_created_times_are_passed_over() -> None:
    found = page(
        "go_gc 1", "# TYPE convserve_x counter", "convserve_x_total 1", "convserve_x_created 9"
    )
    assert "go_gc" not in found.values
    assert [value for _, value in found.of("convserve_x_total")] == [1]

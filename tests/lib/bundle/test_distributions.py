"""The population stability index: against values computed by hand, and what luck makes of it."""

import math

import numpy as np
import pytest
from google.protobuf import json_format

from convserve_bundle import distributions, stability
from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import Distribution, PictureStatistics


def index_of(reference: Distribution, values: np.ndarray) -> float:
    found = distributions.counted(values, reference.bounds)
    return stability.stability_index(reference.counts, found.tolist())


def test_index_is_that_computed_by_hand() -> None:
    reference = Distribution(bounds=[1.0, 2.0], counts=[0, 9, 1])
    # Half a picture more in each of three bins: 0.5, 9.5, 1.5 of 11.5 against 1.5, 2.5, 2.5 of 6.5.
    expected = sum(
        (now / 6.5 - before / 11.5) * math.log(now / 6.5 / (before / 11.5))
        for before, now in ((0.5, 1.5), (9.5, 2.5), (1.5, 2.5))
    )
    values = np.array([1.0, 1.5, 2.0, 3.0, 3.0])  # on a bound: in the bin below it
    assert index_of(reference, values) == pytest.approx(expected)


def test_index_of_the_same_values_is_nothing() -> None:
    values = np.random.default_rng(5).normal(size=700)
    assert index_of(distributions.summarise(values), values) < 1e-12


def test_bins_have_as_many_pictures_each_and_none_beyond() -> None:
    found = distributions.summarise(np.arange(1000, dtype=np.float32))
    assert list(found.counts) == [0, *[100] * 10, 0]
    assert found.mean == pytest.approx(499.5)
    assert found.standard_deviation == pytest.approx(288.675, abs=1e-3)


def test_equal_values_are_one_bin_and_another_value_is_far_away() -> None:
    found = distributions.summarise(np.full(50, 150.0))
    assert list(found.counts) == [0, 50, 0]
    assert index_of(found, np.full(40, 150.0)) < 0.01
    assert index_of(found, np.full(40, 150.01)) > 5


def test_distribution_survives_json_exactly() -> None:
    values = np.random.default_rng(6).gamma(2.0, 40.0, 3_000).astype(np.float32)
    found = distributions.summarise(values)
    read = json_format.Parse(json_format.MessageToJson(found), Distribution())
    assert read == found
    assert index_of(read, values) < 1e-12


@pytest.mark.parametrize(("known", "count"), [(2_000, 100), (300, 1_000)])
def test_equals_are_hardly_ever_beyond_luck_and_not_far_below(known: int, count: int) -> None:
    """Of 2,000 pairs of equals 5 are expected to be beyond; and one in twenty beyond half of it."""
    random = np.random.default_rng(7)
    beyond = []
    for _ in range(2_000):
        reference = distributions.summarise(random.normal(size=known))
        index = index_of(reference, random.normal(size=count))
        beyond.append(index / stability.by_luck(reference.counts, count))
    assert np.mean(np.array(beyond) > 1) < 0.01
    assert np.mean(np.array(beyond) > 0.4) > 0.05


def test_known_distributions_are_those_that_are_stated() -> None:
    stated = PictureStatistics(size=distributions.summarise(np.arange(40.0)))
    found = distributions.known_of(stated)
    assert found == {"size": (tuple(stated.size.bounds), tuple(stated.size.counts))}


@pytest.mark.parametrize(
    ("bounds", "counts", "problem"),
    [
        ([1.0, 2.0], [1, 2], "size.counts: expected 3, got 2"),
        ([2.0, 1.0], [1, 2, 3], "size.bounds: expected finite and ascending"),
        ([float("nan")], [1, 2], "size.bounds: expected finite and ascending"),
        ([float(n) for n in range(12)], [1] * 13, "size.bounds: expected 1 to 11, got 12"),
        ([1.0], [0, 0], "size.counts: expected pictures, got none"),
    ],
)
def test_distribution_that_is_none_is_refused(
    bounds: list[float], counts: list[int], problem: str
) -> None:
    stated = PictureStatistics(size=Distribution(bounds=bounds, counts=counts))
    with pytest.raises(BundleError, match=problem):
        distributions.known_of(stated)

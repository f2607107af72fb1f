"""Histograms of a metrics page: quantiles and means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from convserve.command.top.page import Increase

Version = tuple[str, str]
"""Name of a model and its version, as the labels have them."""


@dataclass
class Histogram:
    """Counts of one histogram.

    Attributes:
        upto: How many values were at most a bound, by the bound.
        sum: Of the values.
    """

    upto: dict[float, float] = field(default_factory=dict)
    sum: float = 0.0

    @property
    def count(self) -> float:
        """How many values there were."""
        return self.upto.get(math.inf, 0.0)

    @property
    def mean(self) -> float | None:
        """The mean of the values; None if there were none."""
        return self.sum / self.count if self.count > 0 else None

    def quantile(self, share: float) -> float | None:
        """Returns the value below which a share of all values is, interpolated in its bucket.

        Source: histogram_quantile() of Prometheus, whose results these are: a bucket's values are
        evenly spread, the first begins at 0, and beyond the last bound there is nothing to know.

        Args:
            share: 0 to 1.

        Returns:
            None if there were no values.
        """
        bounds = sorted(self.upto)
        if not self.count > 0 or len(bounds) < 2:
            return None
        rank = share * self.count
        below, start = 0.0, 0.0
        for bound in bounds[:-1]:
            upto = self.upto[bound]
            if upto >= rank and upto > below:
                return start + (bound - start) * ((rank - below) / (upto - below))
            below, start = max(below, upto), bound
        return bounds[-2]


def histograms(increase: Increase, name: str) -> dict[Version, Histogram]:
    """Returns the histograms of a name, by model version."""
    found: dict[Version, Histogram] = {}
    for labels, value in increase.of(f"{name}_bucket"):
        found.setdefault(version_of(labels), Histogram()).upto[float(labels["le"])] = value
    for labels, value in increase.of(f"{name}_sum"):
        found.setdefault(version_of(labels), Histogram()).sum = value
    return found


def version_of(labels: dict[str, str]) -> Version:
    """Returns which model version a sample is about."""
    return labels.get("model", ""), labels.get("version", "")


def by_version(samples: Iterator[tuple[dict[str, str], float]]) -> dict[Version, float]:
    """Returns the sums of samples by model version."""
    sums: dict[Version, float] = {}
    for labels, value in samples:
        version = version_of(labels)
        sums[version] = sums.get(version, 0.0) + value
    return sums

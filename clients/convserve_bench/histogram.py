"""A histogram of durations: any number of them, in little memory, each to within 0.4 %.

Source: the idea of HdrHistogram, buckets whose width is a share of their value; here each power of
two is divided into 128 buckets of one width.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import numpy.typing as npt

_PER_POWER = 128
#: Powers of two of the shortest and the longest duration in seconds: 1 µs, and two hours.
_FIRST, _LAST = -20, 13

RELATIVE_ERROR = 1 / (2 * _PER_POWER)
"""The largest of a duration that is reported, to the true one, as a share of it."""


class Histogram:
    """Counts durations in seconds.

    Attributes:
        count: How many there are.
        longest_s: The longest, exactly; 0 if there is none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0
        self._sum_s = 0.0
        self._counts = np.zeros((_LAST - _FIRST) * _PER_POWER, np.int64)

    def add(self, durations_s: npt.ArrayLike) -> None:
        """Counts durations: float [N], seconds; those of less than 1 µs count as 1 µs."""
        values = np.asarray(durations_s, np.float64)
        if not len(values):
            return
        # frexp gives a share of 0.5 to 1 and the power above it.
        shares, powers = np.frexp(np.clip(values, 2.0**_FIRST, 2.0**_LAST * (1 - 2.0**-20)))
        buckets = (powers - 1 - _FIRST) * _PER_POWER
        buckets += ((shares - 0.5) * 2 * _PER_POWER).astype(np.intp)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self.count += len(values)
        self._sum_s += float(values.sum())
        self.longest_s = max(self.longest_s, float(values.max()))

    def copy(self) -> Self:
        """Returns one with the same counts."""
        copied = type(self)()
        copied._counts += self._counts
        copied.count, copied.longest_s, copied._sum_s = self.count, self.longest_s, self._sum_s
        return copied

    def since(self, earlier: Self) -> Self:
        """Returns what was added since a copy was made; the longest is that of all."""
        added = self.copy()
        added._counts -= earlier._counts
        added.count -= earlier.count
        added._sum_s -= earlier._sum_s
        return added

    def percentile(self, share: float) -> float:
        """Returns the duration, in seconds, that a share of all do not exceed.

        Args:
            share: 0 to 1.

        Returns:
            That of the smallest such rank, to RELATIVE_ERROR; NaN if there are none.
        """
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(share * self.count))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        power, part = divmod(bucket, _PER_POWER)
        middle = 2.0 ** (power + _FIRST) * (1 + (part + 0.5) / _PER_POWER)
        return min(middle, self.longest_s)

    def mean(self) -> float:
        """Returns the mean in seconds, exactly; NaN if there are none."""
        return self._sum_s / self.count if self.count else math.nan

"""How long an engine needs for a batch of each size: measured at warm-up, kept true while serving.

Never a time per image: on CUDA one image takes 90 µs and 64 take 162. Times are kept for the powers
of two, and those between are on straight lines. Each batch that runs moves the times of the sizes
next to its own a little towards what it took.
"""

import itertools
from collections.abc import Mapping

#: Weight of one batch against all before it.
_WEIGHT = 0.1
#: One batch counts as at most so many times slower than expected: a pause of the machine moves a
#: time by a fifth, and a lasting slowdown by ten times is learnt in 13 batches.
_MOST_RATIO = 3.0
#: A batch that is faster than this part of what was expected is no accident, and counts at once.
_FAST_RATIO = 0.5
#: Twice as many images take so many times as long at the most, whatever was measured.
_MOST_GROWTH = 2.5
#: Batches that a model without a measurement runs before its times are used. The least of each size
#: counts: the first ones are slow.
_FIRST_BATCHES = 8
#: Largest size that has a time of its own, as a power of two.
_MOST_BITS = 13


class BatchTimes:
    """Seconds by batch size. Not thread-safe: the batcher notes and asks with its lock.

    Args:
        measured: seconds by the size of the batch, images; empty if nothing was measured.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._first: dict[int, float] = {}
        self._noted = 0
        #: Seconds of 1, 2, 4, ... images, never falling; empty while nothing is known.
        self._at: list[float] = _at_powers(measured) if measured else []

    @property
    def known(self) -> bool:
        """Whether there are times to decide by; without, they are a first guess or 0."""
        return bool(self._at)

    def seconds(self, count: int) -> float:
        """Returns what one batch takes; 0 before the first one.

        Args:
            count: its images, at least 1.
        """
        at = self._at or (_at_powers(self._first) if self._first else [])
        if not at:
            return 0.0
        bits = min(count.bit_length(), _MOST_BITS) - 1
        least = 1 << bits
        below = at[bits]
        if count == least:
            return below
        return below + (at[bits + 1] - below) * (count - least) / least

    def of_images(self, count: int, max_batch: int) -> float:
        """Returns what images take in full batches and a rest, one batch after the other.

        Args:
            count: of the images.
            max_batch: most of them in one batch.
        """
        if count <= max_batch:
            return self.seconds(count) if count > 0 else 0.0
        batches, rest = divmod(count, max_batch)
        return batches * self.seconds(max_batch) + (self.seconds(rest) if rest else 0.0)

    def note(self, count: int, seconds: float) -> None:
        """Learns from a batch that has run.

        Args:
            count: its images, at least 1.
            seconds: that it took.
        """
        if not self._at:
            self._first[count] = min(seconds, self._first.get(count, seconds))
            self._noted += 1
            if self._noted >= _FIRST_BATCHES:
                self._at = _at_powers(self._first)
            return
        expected = self.seconds(count)
        ratio = seconds / expected if expected > 0.0 else _MOST_RATIO
        weight = _WEIGHT if ratio > _FAST_RATIO else 1.0
        change = weight * (min(_MOST_RATIO, ratio) - 1.0)
        bits = min(count.bit_length(), _MOST_BITS) - 1
        least = 1 << bits
        part = (count - least) / least
        at = self._at
        at[bits] *= 1.0 + change * (1.0 - part)
        at[bits + 1] *= 1.0 + change * part
        # What is seen of one size bounds the others, which may not have been seen for long.
        near = bits if part < 0.5 else bits + 1
        for index in range(near - 1, -1, -1):
            bounded = min(max(at[index], at[index + 1] / _MOST_GROWTH), at[index + 1])
            if bounded == at[index]:
                break
            at[index] = bounded
        for index in range(near + 1, len(at)):
            bounded = min(max(at[index], at[index - 1]), at[index - 1] * _MOST_GROWTH)
            if bounded == at[index]:
                break
            at[index] = bounded


def _at_powers(measured: Mapping[int, float]) -> list[float]:
    """Returns the seconds of 1, 2, 4, ... images.

    Below the least size that was measured they are in proportion, which is no more than they take.
    Above the largest one they go on as they rose before it; from one size alone nobody can tell how
    they rise, and they stay as they are, which is no more than they take either.
    """
    points = sorted({0: 0.0, **measured}.items())
    times = list(itertools.accumulate((seconds for _, seconds in points), max))
    sizes = [size for size, _ in points]
    slope = 0.0
    if len(points) > 2:
        slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
    result = []
    for bits in range(_MOST_BITS + 1):
        count = 1 << bits
        above = next((index for index, size in enumerate(sizes) if size >= count), None)
        if above is None:
            result.append(times[-1] + slope * (count - sizes[-1]))
        else:
            part = (count - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
            result.append(times[above - 1] + part * (times[above] - times[above - 1]))
    return result

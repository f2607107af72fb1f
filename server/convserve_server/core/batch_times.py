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
#: A batch that is faster than this part of what was expected counts at once: nothing makes an
#: engine faster than it is.
_FAST_RATIO = 0.5
#: One batch makes no time shorter than this part of it; and no measurement is shorter than this, s.
_LEAST_RATIO, _LEAST_S = 0.01, 1e-7
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
        at = self._at
        bits = min(count.bit_length(), _MOST_BITS) - 1
        least = 1 << bits
        if count == least:
            near = bits
            at[bits] += self._change(at[bits], seconds) * at[bits]
        else:
            # The time of this size is between those of two, and moves as much as they do together.
            part = (count - least) / least
            near = bits if part < 0.5 else bits + 1
            below, above = at[bits], at[bits + 1]
            expected = below + (above - below) * part
            change = self._change(expected, seconds)
            change *= expected / ((1.0 - part) ** 2 * below + part**2 * above)
            at[bits] = below * max(_LEAST_RATIO, 1.0 + change * (1.0 - part))
            at[bits + 1] = above * max(_LEAST_RATIO, 1.0 + change * part)
        # What is seen of one size bounds the others, which may not have been seen for long.
        for index in range(near - 1, -1, -1):
            larger = at[index + 1]
            if at[index] > larger:
                at[index] = larger
            elif at[index] * _MOST_GROWTH < larger:
                at[index] = larger / _MOST_GROWTH
            else:
                break
        for index in range(near + 1, len(at)):
            smaller = at[index - 1]
            if at[index] < smaller:
                at[index] = smaller
            elif at[index] > smaller * _MOST_GROWTH:
                at[index] = smaller * _MOST_GROWTH
            else:
                break

    @staticmethod
    def _change(expected: float, seconds: float) -> float:
        """Returns by which part of it a time moves, for what one batch took."""
        ratio = seconds / expected
        if ratio > _MOST_RATIO:
            return _WEIGHT * (_MOST_RATIO - 1.0)
        if ratio < _FAST_RATIO:
            return max(_LEAST_RATIO, ratio) - 1.0
        return _WEIGHT * (ratio - 1.0)


def _at_powers(measured: Mapping[int, float]) -> list[float]:
    """Returns the seconds of 1, 2, 4, ... images.

    Below the least size that was measured they are in proportion, which is no more than they take.
    Above the largest one they go on as they rose before it; from one size alone nobody can tell how
    they rise, and they stay as they are, which is no more than they take either.
    """
    points = [(0, 0.0), *sorted(measured.items())]
    times = [0.0, *itertools.accumulate((max(s, _LEAST_S) for _, s in points[1:]), max)]
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

"""The sizes of batches: which there are, and the largest that is worth while."""

import math
import time
from collections.abc import Callable, Sequence

#: Spent on a batch beside the engine's run: threads that wake each other, answers that begin, s.
_OVERHEAD_S = 0.0001
#: A larger batch must save so much of the cost of an image; less is within what clocks and other
#: processes change.
_GAIN = 0.03
#: Batches that take less are not worth a look: what one costs varies more than images do, s.
_SHORT_S = 0.001
_RUNS = 5


def bucket_sizes(max_batch: int) -> list[int]:
    """Powers of two below max_batch, and max_batch."""
    sizes = [1]
    while sizes[-1] < max_batch:
        sizes.append(min(2 * sizes[-1], max_batch))
    return sizes


def largest_worthwhile(
    seconds: Callable[[int], float],
    sizes: Sequence[int],
    longest_s: float,
    short_s: float = _SHORT_S,
) -> int:
    """Returns the size beyond which batches cost no less an image, or take too long.

    Looks from the smallest up and no further than needed: what the largest batch takes of memory
    stays with the engine, and may slow small ones down.

    Args:
        seconds: time of one run of so many images; infinite if it cannot be run.
        sizes: in ascending order, from 1.
        longest_s: longest run, by the time of a single image.
        short_s: runs that take less are worth while, whatever they cost.
    """
    single_s = run_s = seconds(sizes[0])
    chosen, cost = sizes[0], run_s + _OVERHEAD_S
    for size in sizes[1:]:
        if size * single_s > longest_s:
            break
        larger_s = seconds(size)
        larger = (larger_s + _OVERHEAD_S) / size
        if math.isinf(larger_s) or (larger > (1 - _GAIN) * cost and run_s >= short_s):
            break
        chosen, run_s, cost = size, larger_s, min(cost, larger)
    return chosen


def least_seconds(run: Callable[[], object]) -> float:
    """Returns the time of a run, s: the least of several, as the first ones allocate."""
    spent = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        spent.append(time.perf_counter() - started)
    return min(spent)

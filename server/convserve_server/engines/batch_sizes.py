"""The sizes of batches: how long each takes, and the largest that is worth while.

What a batch costs beside the engine's run, 0.1 to 0.3 ms of threads that wake each other, is
hardly seen in one that takes 2.5 ms. Beyond that, larger batches are worth while only where an
image costs less in them, and make everybody wait longer.

Other processes make runs take longer, half as long again for seconds on end, and never shorter:
every size is run again and again, in turn, and the least counts. What is left of that noise must
not decide. Between neighbouring sizes an image's cost changes by less than the noise; so sizes are
four times apart, and where the gain decides they are compared by rounds that run one right after
the other.
"""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

log = logging.getLogger(__name__)

#: A batch that takes so long, on one thread, is worth while, s.
_ENOUGH_S = 0.0025
#: Beyond, one that is _STEP times as large must save so much of the cost of an image, which
#: includes its share of what a batch costs beside the run, s.
_GAIN, _BESIDE_S = 0.07, 0.0002
#: Between the sizes that we choose from.
_STEP = 4

#: No larger size is run after one that takes so long and saves less than half as much: twice as
#: long as is enough, by the least of a few runs, and of a few more to be sure.
_NO_MORE_S, _FIRST_RUNS, _MORE_RUNS = 2 * _ENOUGH_S, 3, 5
#: Nor one on the way to a step that would take so many times longer than may be, by the time of the
#: size before.
_LONGER = 1.5
#: Further runs: so many of each size at least; then until for so long none took less by so much
#: than all before, or until all took so long, s.
_LEAST_RUNS, _STEADY_S, _STEADY, _MOST_S = 2, 0.25, 0.01, 0.4
#: Rounds that compare two sizes: so many at least; then until this long, unless all agree, s.
_LEAST_ROUNDS, _ROUNDS_S = 5, 1.0
#: A clock of the thread's own time that shows less of the time that passed is too coarse.
_PLAUSIBLE = 0.1


def bucket_sizes(max_batch: int) -> list[int]:
    """Powers of two below max_batch, and max_batch."""
    sizes = [1]
    while sizes[-1] < max_batch:
        sizes.append(min(2 * sizes[-1], max_batch))
    return sizes


@dataclass(frozen=True)
class BatchSizes:
    """How the size of the largest batch is found.

    Attributes:
        max_batch: largest size that there may be, images.
        chosen: whether somebody has chosen max_batch: it is kept whatever it costs.
        longest_s: batches that take longer are not worth while.
        pause: called after each run with its seconds, to let others work.
    """

    max_batch: int
    chosen: bool = False
    longest_s: float = math.inf
    pause: Callable[[float], None] = lambda _: None

    def largest(self, batch_s: Mapping[int, float]) -> int:
        """Returns the size of the largest batch by a table that was measured; see measure."""
        return self.max_batch if self.chosen else min(self.max_batch, max(batch_s))

    def worthwhile(
        self,
        batch_s: Mapping[int, float],
        saves: Callable[[int, int], bool] | None = None,
    ) -> int:
        """Returns the size beyond which batches are not worth while.

        Args:
            batch_s: seconds by size, images, of an engine with one thread; with size 1.
            saves: whether the larger of two sizes saves enough; None: by the seconds.
        """
        saves = saves or partial(_saves, batch_s)
        found = 1
        for size in _steps(self.max_batch):
            if size not in batch_s or batch_s[size] > self.longest_s:
                break
            if batch_s[found] >= _ENOUGH_S and not saves(found, size):
                break
            found = size
        return found

    def measure(
        self,
        run: Callable[[int], object],
        sizes: Iterable[int],
        seconds: Callable[[Callable[[], object]], float],
    ) -> dict[int, float]:
        """Returns how long batches take, s, by size, up to the largest that is worth while.

        Looks from the smallest up and, unless the largest was chosen, not much further than is
        worth while: what a large batch takes of memory stays with the engine.

        Args:
            run: runs a batch of so many images.
            sizes: in ascending order, from 1.
            seconds: runs what it is given, and returns how long that took.
        """
        table: dict[int, float] = {}

        def measure(size: int) -> float:
            spent_s = seconds(lambda: run(size))
            self.pause(spent_s)
            return spent_s

        for size in sizes:
            if table and self._is_too_long(table, size):
                break
            measure(size)  # allocates
            table[size] = min(measure(size) for _ in range(_FIRST_RUNS))
            if self._is_beyond(table, size):
                table[size] = min(table[size], *(measure(size) for _ in range(_MORE_RUNS)))
                if self._is_beyond(table, size):
                    break
        runs, spent_s = dict.fromkeys(table, 0), dict.fromkeys(table, 0.0)
        unchanged_s = 0.0
        while min(runs.values()) < _LEAST_RUNS or (
            unchanged_s < _STEADY_S and sum(spent_s.values()) < _MOST_S
        ):
            # The same time for each: small sizes need more runs to have an undisturbed one.
            size = min(table, key=lambda size: (runs[size] >= _LEAST_RUNS, spent_s[size]))
            run_s = measure(size)
            runs[size] += 1
            spent_s[size] += run_s
            unchanged_s = 0.0 if run_s < (1 - _STEADY) * table[size] else unchanged_s + run_s
            table[size] = min(table[size], run_s)
        most = self.max_batch if self.chosen else self.worthwhile(table, partial(_compare, measure))
        return {size: least_s for size, least_s in table.items() if size <= most}

    def _is_too_long(self, batch_s: Mapping[int, float], size: int) -> bool:
        """Returns whether the step that a size leads to would take too long to be chosen."""
        last = max(batch_s)
        step = min(each for each in _steps(self.max_batch) if each >= size)
        return not self.chosen and batch_s[last] * step / last > _LONGER * self.longest_s

    def _is_beyond(self, batch_s: Mapping[int, float], size: int) -> bool:
        """Returns whether sizes above this one are not worth a look: it saves hardly anything.

        The first step is always looked at: it is the smallest, and takes little memory.
        """
        first = next(_steps(self.max_batch), size + 1)
        if self.chosen or size < first or batch_s[size] < _NO_MORE_S:
            return False
        step = max(each for each in (1, *_steps(self.max_batch)) if each < size)
        return not _saves(batch_s, step, size, _GAIN / 2)


def fitting_sizes(run: Callable[[int], object], sizes: Iterable[int]) -> Iterator[int]:
    """Yields sizes of batches, each after a run of it, as long as they fit a device's memory.

    Args:
        run: runs a batch of so many images.
        sizes: in ascending order, from 1.
    """
    for size in sizes:
        try:
            run(size)
        except Exception as error:
            if size == 1 or "memory" not in str(error).lower():
                raise
            log.warning("batches of %d do not fit the device's memory: %s", size, error)
            return
        yield size


def _saves(batch_s: Mapping[int, float], size: int, larger: int, enough: float = _GAIN) -> bool:
    """Returns whether an image costs less by such a share in the larger of two batches."""
    cost_s = {each: (batch_s[each] + _BESIDE_S) / each for each in (size, larger)}
    return cost_s[larger] <= (1 - enough) * cost_s[size]


def _compare(measure: Callable[[int], float], size: int, larger: int) -> bool:
    """Returns whether the larger size saves enough, by rounds of both.

    A round takes each about the same time, one right after the other, so that what slows one down
    mostly slows down both.

    Args:
        measure: runs a batch of so many images; returns its seconds.
        size: the smaller one.
        larger: the other one.
    """
    verdicts: list[bool] = []
    spent_s = 0.0
    while len(verdicts) < _LEAST_ROUNDS or (spent_s < _ROUNDS_S and len({*verdicts}) > 1):
        smaller_s = [measure(size) for _ in range(larger // size)]
        larger_s = measure(larger)
        verdicts.append(
            _saves({size: statistics.median(smaller_s), larger: larger_s}, size, larger)
        )
        spent_s += sum(smaller_s) + larger_s
    return 2 * sum(verdicts) > len(verdicts)


def _steps(max_batch: int) -> Iterator[int]:
    """Yields the sizes above 1 that we choose from."""
    size = 1
    while size < max_batch:
        size = min(_STEP * size, max_batch)
        yield size


def seconds_of_thread(run: Callable[[], object]) -> float:
    """Returns the time that a run takes of this thread, s: others on this CPU do not count."""
    started, own = time.perf_counter(), time.thread_time()
    run()
    own_s, passed_s = time.thread_time() - own, time.perf_counter() - started
    return own_s if own_s > _PLAUSIBLE * passed_s else passed_s


def seconds_passed(run: Callable[[], object]) -> float:
    """Returns the time in which a run is over, s."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started

"""The rows of the shared memory that one process writes; called with the lock of who counts.

What changes with every batch or call is also kept here: to keep it costs less than to read it.
"""

import itertools
from bisect import bisect_left
from collections.abc import Sequence

from convserve_server.telemetry.layouts import (
    BOUNDS,
    BUCKETS,
    CALL,
    SIZES,
    VERSION,
    size_bucket,
)
from convserve_server.telemetry.slab import Row, Table

_ROWS = VERSION.at("rows")
_QUEUE_S, _COMPUTE_S, _WHOLE_S = map(VERSION.at, ("queue_s", "compute_s", "whole_s"))
_QUEUE, _COMPUTE, _OTHER_SIZES = map(VERSION.at, ("queue", "compute", "other_sizes"))
_AT_SIZES, _BATCHES, _BATCHES_S = map(VERSION.at, ("sizes", "batches", "batches_s"))
_TIMES, _TIMES_S = map(CALL.at, ("times", "times_s"))


class VersionRow:
    """The row of a model version.

    Args:
        row: in use, perhaps by a process before this one.

    Attributes:
        name: its key.
        counts: see Row.
        seconds: see Row.
        rows: that were computed.
        batches: by the index of their size.
        batches_s: what they took, likewise.
        sizes: the index of each batch size that is counted by itself.
    """

    __slots__ = (
        "batches",
        "batches_s",
        "compute",
        "compute_s",
        "counts",
        "name",
        "queue",
        "queue_s",
        "rows",
        "seconds",
        "sizes",
        "whole_s",
    )

    def __init__(self, row: Row) -> None:
        self.name = row.key
        self.counts, self.seconds = row.counts, row.seconds
        self.rows, self.queue_s = row.counts[_ROWS], row.seconds[_QUEUE_S]
        self.compute_s, self.whole_s = row.seconds[_COMPUTE_S], row.seconds[_WHOLE_S]
        self.queue = list(row.counts[_QUEUE : _QUEUE + BUCKETS])
        self.compute = list(row.counts[_COMPUTE : _COMPUTE + BUCKETS])
        self.batches = list(row.counts[_BATCHES : _BATCHES + SIZES + 1])
        self.batches_s = list(row.seconds[_BATCHES_S : _BATCHES_S + SIZES + 1])
        sizes = itertools.takewhile(bool, row.counts[_AT_SIZES : _AT_SIZES + SIZES])
        self.sizes = {size: index for index, size in enumerate(sizes)}

    def add_queues(self, started: float, arrived: Sequence[float]) -> None:
        """Counts the requests of a batch in the histogram of the time in the queue.

        They came in a few buckets, so the bounds are looked up among the requests.

        Args:
            started: when the batch began, time.monotonic().
            arrived: when each request came, at least one.
        """
        ordered = sorted(arrived)
        longer = len(ordered)
        last = bisect_left(BOUNDS, started - ordered[0])
        for bucket in range(bisect_left(BOUNDS, started - ordered[-1]), last):
            still = bisect_left(ordered, started - BOUNDS[bucket], 0, longer)
            if still != longer:
                self.add_queue(bucket, longer - still)
                longer = still
        if longer:
            self.add_queue(last, longer)

    def add_queue(self, bucket: int, requests: int) -> None:
        """Counts requests in the histogram of the time in the queue."""
        self.counts[_QUEUE + bucket] = self.queue[bucket] = self.queue[bucket] + requests

    def add_compute(self, seconds: float, requests: int) -> None:
        """Counts requests in the histogram of the time in the engine."""
        bucket = bisect_left(BOUNDS, seconds)
        self.counts[_COMPUTE + bucket] = self.compute[bucket] = self.compute[bucket] + requests

    def answer(self, queue_s: float, compute_s: float, whole_s: float) -> None:
        """Counts what requests took that are answered, their sums."""
        seconds = self.seconds
        seconds[_QUEUE_S] = self.queue_s = self.queue_s + queue_s
        seconds[_COMPUTE_S] = self.compute_s = self.compute_s + compute_s
        seconds[_WHOLE_S] = self.whole_s = self.whole_s + whole_s

    def index(self, size: int) -> int:
        """Returns where batches of a size are counted that are not counted by themselves yet."""
        index = len(self.sizes)
        if index < SIZES:
            self.sizes[size] = index
            self.counts[_AT_SIZES + index] = size
        else:
            self.counts[_OTHER_SIZES + size_bucket(size)] += 1
        return index


class CallsRow:
    """The row of calls of one method, model version and code.

    Args:
        row: in use, perhaps by a process before this one.

    Attributes:
        counts: see Row.
        seconds: see Row.
        times: how many calls are in each bucket.
        times_s: their sum, s.
    """

    __slots__ = ("counts", "seconds", "times", "times_s")

    def __init__(self, row: Row) -> None:
        self.counts, self.seconds = row.counts, row.seconds
        self.times = list(row.counts[_TIMES : _TIMES + BUCKETS])
        self.times_s = row.seconds[_TIMES_S]


class Keys:
    """The rows of a table, by their keys. Called with the lock of who counts.

    Args:
        table: of this process's slot.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._used = sum(1 for _ in table.own())
        self.rows = table.rows

    def new(self, key: str) -> Row | None:
        """Returns a new row of a key; None if there is none left for it."""
        form = self._table.form
        if self._used >= form.rows or len(key.encode()) > form.key_bytes:
            return None
        row = self._table.row(self._used)
        row.begin(key)
        self._used += 1
        return row

    def other(self, key: str) -> Row:
        """Returns the row of a key among the others; the last one if none is left."""
        others = list(self._table.others())
        for row in others:
            if row.key == key:
                return row
        form = self._table.form
        row = self._table.row(form.rows + min(len(others), form.others - 1))
        row.begin(key)
        return row

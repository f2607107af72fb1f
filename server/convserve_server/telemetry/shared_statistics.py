"""The counts of all workers: each counts in its slot of a slab, any process adds them up."""

import itertools
import logging
import mmap
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from convserve_server.telemetry.layouts import (
    BOUNDS,
    BUCKETS,
    CALL,
    CODES,
    OTHER,
    PROCESS,
    REASON,
    SIZE_BUCKETS,
    SIZES,
    TABLES,
    VERSION,
    VERSIONS,
)
from convserve_server.telemetry.observer import Observer
from convserve_server.telemetry.slab import Row, Slab, Table, slab_bytes
from convserve_server.telemetry.statistics import VersionStatistics
from convserve_server.telemetry.totals import Totals

log = logging.getLogger(__name__)

_ROWS, _REQUESTS, _LAST = map(VERSION.at, ("rows", "requests", "last"))
_QUEUE_S, _COMPUTE_S, _WHOLE_S = map(VERSION.at, ("queue_s", "compute_s", "whole_s"))
_FAILED, _FAILED_S = map(VERSION.at, ("failed", "failed_s"))
_DECODED, _DECODE_S, _DECODE = map(VERSION.at, ("decoded", "decode_s", "decode"))
_QUEUE, _COMPUTE, _BATCH_SIZES = map(VERSION.at, ("queue", "compute", "batch_sizes"))
_WAITING, _WAITING_S = map(VERSION.at, ("waiting", "waiting_s"))
_AT_SIZES, _BATCHES, _BATCHES_S = map(VERSION.at, ("sizes", "batches", "batches_s"))
_TIMES, _TIMES_S = map(CALL.at, ("times", "times_s"))
_REFUSED = REASON.at("refused")
_IN_FLIGHT, _IN_OTHER = map(PROCESS.at, ("in_flight", "in_other"))
#: By stage.
_EXPIRED = {stage: PROCESS.at(f"expired_{stage}") for stage in ("decode", "batch")}

_OTHER_VERSION = f"{OTHER}/0"
_LAST_SIZE = SIZE_BUCKETS - 1

#: Slots of each worker. While one is replaced, its successor already counts.
SLOTS_OF_WORKER = 2


class _Version:
    """The row of a model version that this process writes.

    What changes with every batch is also kept here: to keep it costs less than to read it.
    """

    __slots__ = (
        "compute",
        "compute_s",
        "counts",
        "name",
        "queue",
        "queue_s",
        "requests",
        "rows",
        "seconds",
        "sizes",
        "whole_s",
    )

    def __init__(self, row: Row) -> None:
        self.name = row.key
        self.counts, self.seconds = row.counts, row.seconds
        self.rows, self.requests = row.counts[_ROWS], row.counts[_REQUESTS]
        self.queue_s, self.compute_s = row.seconds[_QUEUE_S], row.seconds[_COMPUTE_S]
        self.whole_s = row.seconds[_WHOLE_S]
        self.queue = list(row.counts[_QUEUE : _QUEUE + BUCKETS])
        self.compute = list(row.counts[_COMPUTE : _COMPUTE + BUCKETS])
        #: The index of each batch size that is counted by itself.
        sizes = itertools.takewhile(bool, row.counts[_AT_SIZES : _AT_SIZES + SIZES])
        self.sizes = {size: index for index, size in enumerate(sizes)}

    def answer(self, requests: int, queue_s: float, compute_s: float, whole_s: float) -> None:
        """Counts requests that are answered; see Observer.batch."""
        counts, seconds = self.counts, self.seconds
        counts[_REQUESTS] = self.requests = self.requests + requests
        seconds[_QUEUE_S] = self.queue_s = self.queue_s + queue_s
        seconds[_COMPUTE_S] = self.compute_s = self.compute_s + compute_s
        seconds[_WHOLE_S] = self.whole_s = self.whole_s + whole_s

    def add_queue(self, bucket: int, requests: int) -> None:
        """Counts requests in the histogram of the time in the queue."""
        self.counts[_QUEUE + bucket] = self.queue[bucket] = self.queue[bucket] + requests

    def add_compute(self, seconds: float, requests: int) -> None:
        """Counts requests in the histogram of the time in the engine."""
        bucket = bisect_left(BOUNDS, seconds)
        self.counts[_COMPUTE + bucket] = self.compute[bucket] = self.compute[bucket] + requests

    def add_queues(self, started: float, arrived: Sequence[float]) -> None:
        """Counts the requests of a batch in the histogram of the time in the queue.

        They came in a few buckets, so the bounds are looked up among the requests.

        Args:
            started: when the batch began, time.monotonic().
            arrived: when each request came, at least one.
        """
        if len(arrived) == 1:
            self.add_queue(bisect_left(BOUNDS, started - arrived[0]), 1)
            return
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

    def index(self, size: int) -> int:
        """Returns where batches of a size are counted, which is new."""
        index = len(self.sizes)
        if index < SIZES:
            self.sizes[size] = index
            self.counts[_AT_SIZES + index] = size
        return index


class _Calls:
    """The row of calls of one method, model version and code that this process writes."""

    __slots__ = ("counts", "seconds", "times", "times_s")

    def __init__(self, row: Row) -> None:
        self.counts, self.seconds = row.counts, row.seconds
        self.times = list(row.counts[_TIMES : _TIMES + BUCKETS])
        self.times_s = row.seconds[_TIMES_S]


class SharedStatistics(Observer):
    """Counts what this process does, and returns what all have done; see Statistics.

    Its methods may be called from any thread.

    Args:
        memory: that all processes have; None: this process counts for itself.
        slot: that this process writes, and no other one.
    """

    def __init__(self, memory: mmap.mmap | None = None, slot: int = 0) -> None:
        if memory is None:
            memory = mmap.mmap(-1, statistics_bytes(1))
        slab = Slab(memory, TABLES)
        self.totals = Totals(memory)
        # Two batches of a version may end at once, and calls be refused meanwhile.
        self._lock = threading.Lock()
        self._methods: frozenset[str] = frozenset()
        self._versions = _Keys(slab.table(slot, "versions"))
        self._counted = {row.key: _Version(row) for row in self._versions.rows()}
        # Versions that have no row of their own.
        self._in_other = 0
        self._calls = _Keys(slab.table(slot, "calls"))
        self._cells: dict[tuple[str, str, int], _Calls] = {}
        for row in self._calls.rows():
            method, model, code = row.key.split("\t")
            self._cells[method, model, CODES.index(code)] = _Calls(row)
        self._reasons = _Keys(slab.table(slot, "reasons"))
        self._refused = {row.key: row for row in self._reasons.rows()}
        self._process = slab.table(slot, "process").row(0)
        if not self._process.used:
            self._process.begin("process")

    def know(self, methods: Collection[str]) -> None:
        """Sets the methods that there are: calls of others are counted together."""
        self._methods = frozenset(methods)

    # Of calls

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        """See Observer.finished."""
        lock = self._lock
        lock.acquire()  # "with" costs as much again
        try:
            calls = self._cells.get((method, model, code)) or self._begin_calls(method, model, code)
            bucket = bisect_left(BOUNDS, seconds)
            times = calls.times
            calls.counts[bucket] = times[bucket] = times[bucket] + 1
            calls.seconds[_TIMES_S] = calls.times_s = calls.times_s + seconds
        finally:
            lock.release()

    def refused(self, method: str, reason: str) -> None:
        """See Observer.refused."""
        with self._lock:
            row = self._refused.get(reason)
            if row is None:
                row = self._reasons.new(reason) or self._reasons.other(OTHER)
                if row.key == reason:
                    self._refused[reason] = row
            row.counts[_REFUSED] += 1

    def expired(self, stage: str, images: int) -> None:
        """See Observer.expired."""
        with self._lock:
            self._process.counts[_EXPIRED[stage]] += 1

    # Of model versions

    def loaded(self, model: str) -> None:
        """See Observer.loaded."""
        with self._lock:
            if model not in self._counted:
                self._begin(model)

    def batch(
        self,
        model: str,
        images: int,
        seconds: float,
        arrived: Sequence[float],
        whole_s: float,
        ended: float,
        /,
    ) -> None:
        """See Observer.batch."""
        lock = self._lock
        lock.acquire()
        try:
            row = self._counted.get(model) or self._begin(model)
            counts, sums = row.counts, row.seconds
            counts[_ROWS] = row.rows = row.rows + images
            sums[_LAST] = ended
            index = row.sizes[images] if images in row.sizes else row.index(images)
            counts[_BATCHES + index] += 1
            sums[_BATCHES_S + index] += seconds
            counts[_BATCH_SIZES + min(_LAST_SIZE, (images - 1).bit_length())] += 1
            if requests := len(arrived):
                started = ended - seconds
                row.answer(requests, requests * started - sum(arrived), requests * seconds, whole_s)
                row.add_queues(started, arrived)
                row.add_compute(seconds, requests)
        finally:
            lock.release()

    def joined(self, model: str, queue_s: float, compute_s: float, whole_s: float) -> None:
        """See Observer.joined."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.answer(1, queue_s, compute_s, whole_s)
            row.add_queue(bisect_left(BOUNDS, queue_s), 1)
            row.add_compute(compute_s, 1)

    def turned_away(self, model: str, requests: int) -> None:
        """See Observer.turned_away."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.counts[_FAILED] += requests

    def failed(self, model: str, reason: str, seconds: float) -> None:
        """See Observer.failed."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.counts[_FAILED] += 1
            row.seconds[_FAILED_S] += seconds

    def decoded(self, model: str, images: int, wait_s: float, decode_s: float) -> None:
        """See Observer.decoded."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.counts[_DECODED] += 1
            row.seconds[_DECODE_S] += decode_s
            row.counts[_DECODE + bisect_left(BOUNDS, decode_s)] += 1

    def set_now(self, in_flight: int, waiting: Iterable[tuple[str, int, float]]) -> None:
        """Notes how it is now; called again and again.

        Args:
            in_flight: calls.
            waiting: of each model version, as "NAME/VERSION", the images that wait, and the seconds
                that the engine needs for them. Of those that are not named, none wait.
        """
        with self._lock:
            counts = self._process.counts
            counts[_IN_FLIGHT], counts[_IN_OTHER] = in_flight, self._in_other
            sums: dict[_Version, tuple[int, float]] = dict.fromkeys(
                self._counted.values(), (0, 0.0)
            )
            for model, images, seconds in waiting:
                row = self._counted.get(model) or self._begin(model)
                before = sums.get(row, (0, 0.0))
                sums[row] = before[0] + images, before[1] + seconds
            for row, (images, seconds) in sums.items():
                row.counts[_WAITING], row.seconds[_WAITING_S] = images, seconds

    def versions(self) -> list[VersionStatistics]:
        """See Statistics.versions.

        A version that has no row of its own is counted in that of OTHER.
        """
        return self.totals.statistics()

    def _begin(self, model: str) -> _Version:
        """Returns where a version is counted that was not yet. Called with the lock."""
        row = self._versions.new(model)
        if row is not None:
            counted = _Version(row)
        else:
            if _OTHER_VERSION not in self._counted:
                log.warning(
                    "statistics: %d versions are counted each by itself; %s and those that follow "
                    "are counted together, as %s", VERSIONS, model, OTHER,
                )  # fmt: skip
                self._counted[_OTHER_VERSION] = _Version(self._versions.other(_OTHER_VERSION))
            counted = self._counted[_OTHER_VERSION]
            self._in_other += 1
        self._counted[model] = counted
        return counted

    def _begin_calls(self, method: str, model: str, code: int) -> _Calls:
        """Returns where calls are counted that were not yet. Called with the lock."""
        known = not self._methods or method in self._methods
        own_method = method if known else OTHER
        own_code = code if 0 <= code < len(CODES) else CODES.index("UNKNOWN")
        own_model = (self._counted.get(model) or self._begin(model)).name if model else ""
        calls = self._cells.get((own_method, own_model, own_code))
        if calls is None:
            row = self._calls.new("\t".join((own_method, own_model, CODES[own_code])))
            if row is None:
                own_method, own_model = OTHER, _OTHER_VERSION
                row = self._calls.other("\t".join((own_method, own_model, CODES[own_code])))
            calls = self._cells.get((own_method, own_model, own_code)) or _Calls(row)
            self._cells[own_method, own_model, own_code] = calls
        if known:  # of unknown ones there is no end
            self._cells[method, model, code] = calls
        return calls


class _Keys:
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


def statistics_bytes(workers: int) -> int:
    """Returns the size of the memory of all workers."""
    return slab_bytes(workers * SLOTS_OF_WORKER, TABLES)

"""The statistics of all workers: each counts in its slot of a slab, any of them adds them up."""

import itertools
import logging
import mmap
import threading
import time
from collections.abc import Sequence

from convserve_server.telemetry.observer import Observer
from convserve_server.telemetry.slab import OTHER, ROWS, Field, Layout, Row, Slab, slab_bytes
from convserve_server.telemetry.statistics import Durations, VersionStatistics

log = logging.getLogger(__name__)

#: Batch sizes of a version that are counted each by itself; the first ones that it has.
_SIZES = 64

#: What is counted of a version. One line more is one number more.
LAYOUT = Layout(
    [
        Field("rows"),
        Field("requests"),
        Field("queue_s", seconds=True),
        Field("compute_s", seconds=True),
        Field("whole_s", seconds=True),
        # time.monotonic(), which all processes of a machine share.
        Field("last", seconds=True),
        Field("failed"),
        Field("failed_s", seconds=True),
        Field("decoded"),
        Field("decode_s", seconds=True),
        # The sizes that are counted, 0 behind the last one; then batches by size, and what they
        # took, where the last number is for all other sizes.
        Field("sizes", words=_SIZES),
        Field("batches", words=_SIZES + 1),
        Field("batches_s", words=_SIZES + 1, seconds=True),
    ]
)
_ROWS, _REQUESTS, _LAST = map(LAYOUT.at, ("rows", "requests", "last"))
_QUEUE_S, _COMPUTE_S, _WHOLE_S = map(LAYOUT.at, ("queue_s", "compute_s", "whole_s"))
_FAILED, _FAILED_S = map(LAYOUT.at, ("failed", "failed_s"))
_DECODED, _DECODE_S = map(LAYOUT.at, ("decoded", "decode_s"))
_AT_SIZES, _BATCHES, _BATCHES_S = map(LAYOUT.at, ("sizes", "batches", "batches_s"))

#: Slots of each worker. While one is replaced, its successor already counts.
SLOTS_OF_WORKER = 2


class _Counted:
    """A row that this process writes, and its sums so far: to keep them costs less than to read."""

    __slots__ = (
        "compute_s",
        "counts",
        "queue_s",
        "requests",
        "rows",
        "seconds",
        "sizes",
        "whole_s",
    )

    def __init__(self, row: Row) -> None:
        self.counts, self.seconds = row.counts, row.seconds
        self.rows, self.requests = row.counts[_ROWS], row.counts[_REQUESTS]
        self.queue_s, self.compute_s = row.seconds[_QUEUE_S], row.seconds[_COMPUTE_S]
        self.whole_s = row.seconds[_WHOLE_S]
        #: The index of each batch size that is counted by itself.
        self.sizes = {size: index for index, size in enumerate(_sizes(row))}

    def answer(self, requests: int, queue_s: float, compute_s: float, whole_s: float) -> None:
        """Counts requests that are answered; see Observer.batch."""
        counts, seconds = self.counts, self.seconds
        self.requests = counts[_REQUESTS] = self.requests + requests
        self.queue_s = seconds[_QUEUE_S] = self.queue_s + queue_s
        self.compute_s = seconds[_COMPUTE_S] = self.compute_s + compute_s
        self.whole_s = seconds[_WHOLE_S] = self.whole_s + whole_s

    def index(self, size: int) -> int:
        """Returns where batches of a size are counted, which is new."""
        index = len(self.sizes)
        if index < _SIZES:
            self.sizes[size] = index
            self.counts[_AT_SIZES + index] = size
        return index


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
        self._slab = Slab(memory, LAYOUT)
        self._slot = slot
        # Two batches of a version may end at once, and calls be refused meanwhile.
        self._lock = threading.Lock()
        rows = list(self._slab.rows(slot))
        self._counted = {_model(row): _Counted(row) for row in rows}
        self._used = len(rows) - (_OTHER in self._counted)

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
        requests: int,
        queue_s: float,
        whole_s: float,
        ended: float,
        /,
    ) -> None:
        """See Observer.batch."""
        lock = self._lock
        lock.acquire()  # "with" costs as much again
        try:
            row = self._counted.get(model) or self._begin(model)
            counts, sums = row.counts, row.seconds
            row.rows = counts[_ROWS] = row.rows + images
            sums[_LAST] = ended
            index = row.sizes[images] if images in row.sizes else row.index(images)
            counts[_BATCHES + index] += 1
            sums[_BATCHES_S + index] += seconds
            if requests:
                row.answer(requests, queue_s, requests * seconds, whole_s)
        finally:
            lock.release()

    def joined(self, model: str, queue_s: float, compute_s: float, whole_s: float) -> None:
        """See Observer.joined."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.answer(1, queue_s, compute_s, whole_s)

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

    def versions(self) -> list[VersionStatistics]:
        """See Statistics.versions.

        A version that has no row of its own is counted in that of OTHER.
        """
        rows: dict[tuple[str, int], list[Row]] = {}
        for slot in range(self._slab.slots):
            for row in self._slab.rows(slot):
                rows.setdefault(row.key, []).append(row)
        # When time.monotonic() was 0, s since 1970.
        epoch_s = time.time() - time.monotonic()
        return [_sum(*key, rows[key], epoch_s) for key in sorted(rows)]

    def _begin(self, model: str) -> _Counted:
        """Returns where a version is counted that was not yet. Called with the lock."""
        counted = self._counted.get(_OTHER)
        if self._used < ROWS:
            row = self._slab.row(self._slot, self._used)
            name, _, version = model.rpartition("/")
            row.begin(name, int(version))
            self._used += 1
            counted = _Counted(row)
        elif counted is None:
            log.warning(
                "statistics: %d versions are counted each by itself; %s and those that follow are "
                "counted together, as %s", ROWS, model, OTHER[0],
            )  # fmt: skip
            row = self._slab.row(self._slot, ROWS)
            row.begin(*OTHER)
            counted = self._counted[_OTHER] = _Counted(row)
        self._counted[model] = counted
        return counted


def statistics_bytes(workers: int) -> int:
    """Returns the size of the memory of all workers."""
    return slab_bytes(workers * SLOTS_OF_WORKER, LAYOUT)


def _model(row: Row) -> str:
    name, version = row.key
    return f"{name}/{version}"


_OTHER = "{}/{}".format(*OTHER)


def _sizes(row: Row) -> list[int]:
    """Returns the batch sizes that are counted each by itself."""
    return list(itertools.takewhile(bool, row.counts[_AT_SIZES : _AT_SIZES + _SIZES]))


def _sum(name: str, version: int, rows: Sequence[Row], epoch_s: float) -> VersionStatistics:
    """Returns what a version has done, by its row of each slot."""

    def count(at: int) -> int:
        return sum(row.counts[at] for row in rows)

    def durations(number: int, at: int) -> Durations:
        # A sum of differences may be less than zero by what a float64 cannot hold.
        return Durations(number, max(0, round(1e9 * sum(row.seconds[at] for row in rows))))

    by_size: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        for index, size in enumerate(_sizes(row)):
            batches = row.counts[_BATCHES + index], row.seconds[_BATCHES_S + index]
            by_size.setdefault(size, []).append(batches)
    sums = {
        size: Durations(sum(n for n, _ in each), round(1e9 * sum(s for _, s in each)))
        for size, each in sorted(by_size.items())
    }
    last = max(row.seconds[_LAST] for row in rows)
    answered = count(_REQUESTS)
    return VersionStatistics(
        name,
        version,
        last_ms=round(1000 * (epoch_s + last)) if last else 0,
        rows=count(_ROWS),
        batches=sum(each.count for each in sums.values()) + count(_BATCHES + _SIZES),
        success=durations(answered, _WHOLE_S),
        fail=durations(count(_FAILED), _FAILED_S),
        queue=durations(answered, _QUEUE_S),
        decode=durations(count(_DECODED), _DECODE_S),
        compute=durations(answered, _COMPUTE_S),
        by_size=sums,
    )

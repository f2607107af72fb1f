"""The counts of all workers: each counts in its slot of a slab, any process adds them up."""

import logging
import mmap
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence

from convserve_bundle.stability import Known
from convserve_server.telemetry.counted_rows import CallsRow, Keys, VersionRow
from convserve_server.telemetry.image_counts import ImageCounts
from convserve_server.telemetry.layouts import (
    BOUNDS,
    CALL,
    CODES,
    OTHER,
    PROCESS,
    REASON,
    TABLES,
    VERSION,
    VERSIONS,
)
from convserve_server.telemetry.observer import Observer
from convserve_server.telemetry.slab import Slab, slab_bytes
from convserve_server.telemetry.statistics import VersionStatistics
from convserve_server.telemetry.totals import Totals

log = logging.getLogger(__name__)

_ROWS, _LAST = map(VERSION.at, ("rows", "last"))
_FAILED, _FAILED_S = map(VERSION.at, ("failed", "failed_s"))
_DECODED, _DECODE_S, _DECODE = map(VERSION.at, ("decoded", "decode_s", "decode"))
_WAITING, _WAITING_S = map(VERSION.at, ("waiting", "waiting_s"))
_BATCHES, _BATCHES_S = map(VERSION.at, ("batches", "batches_s"))
_TIMES_S = CALL.at("times_s")
_REFUSED = REASON.at("refused")
_REFUSED_CONNECTIONS = PROCESS.at("refused_connections")
_IN_FLIGHT, _IN_OTHER = map(PROCESS.at, ("in_flight", "in_other"))
#: By stage.
_EXPIRED = {stage: PROCESS.at(f"expired_{stage}") for stage in ("decode", "batch")}

_OTHER_VERSION = f"{OTHER}/0"

#: Slots of each worker and guard. While one is replaced, its successor already counts.
SLOTS_OF_PROCESS = 2


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
        self._versions = Keys(slab.table(slot, "versions"))
        self._counted = {row.key: VersionRow(row) for row in self._versions.rows()}
        # Versions that have no row of their own.
        self._in_other = 0
        self._calls = Keys(slab.table(slot, "calls"))
        self._cells: dict[tuple[str, str, int], CallsRow] = {}
        for row in self._calls.rows():
            method, model, code = row.key.split("\t")
            self._cells[method, model, CODES.index(code)] = CallsRow(row)
        self._reasons = Keys(slab.table(slot, "reasons"))
        self._refused = {row.key: row for row in self._reasons.rows()}
        self._images = ImageCounts(slab.table(slot, "images"))
        self._process = slab.table(slot, "process").row(0)
        if not self._process.used:
            self._process.begin("process")

    def know(self, methods: Collection[str]) -> None:
        """Sets the methods that there are: calls of others are counted together."""
        self._methods = frozenset(methods)

    # Of calls

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        """See Observer.finished."""
        self._finished(method, model, code, (seconds,))

    def answered(self, method: str, model: str, seconds: Sequence[float], /) -> None:
        """See Observer.answered."""
        self._finished(method, model, 0, seconds)

    def _finished(self, method: str, model: str, code: int, seconds: Sequence[float]) -> None:
        """Counts calls that are alike."""
        lock = self._lock
        lock.acquire()  # "with" costs as much again
        try:
            calls = self._cells.get((method, model, code)) or self._begin_calls(method, model, code)
            times, counts = calls.times, calls.counts
            for one in seconds:
                bucket = bisect_left(BOUNDS, one)
                counts[bucket] = times[bucket] = times[bucket] + 1
            calls.seconds[_TIMES_S] = calls.times_s = calls.times_s + sum(seconds)
        finally:
            lock.release()

    def refused(self, method: str, reason: str) -> None:
        """See Observer.refused."""
        with self._lock:
            self._count_refused(reason, 1)

    def refused_together(self, method: str, model: str, code: int, reason: str, calls: int) -> None:
        """See Observer.refused_together."""
        with self._lock:
            self._count_refused(reason, calls)
            row = self._cells.get((method, model, code)) or self._begin_calls(method, model, code)
            bucket = bisect_left(BOUNDS, 0.0)
            row.counts[bucket] = row.times[bucket] = row.times[bucket] + calls

    def _count_refused(self, reason: str, calls: int) -> None:
        row = self._refused.get(reason)
        if row is None:
            row = self._reasons.new(reason) or self._reasons.other(OTHER)
            if row.key == reason:
                self._refused[reason] = row
        row.counts[_REFUSED] += calls

    def connection_refused(self) -> None:
        """See Observer.connection_refused."""
        with self._lock:
            self._process.counts[_REFUSED_CONNECTIONS] += 1

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
            counts[_BATCHES + index] = row.batches[index] = row.batches[index] + 1
            sums[_BATCHES_S + index] = row.batches_s[index] = row.batches_s[index] + seconds
            if requests := len(arrived):
                started = ended - seconds
                row.answer(requests * started - sum(arrived), requests * seconds, whole_s)
                if requests == 1:
                    row.add_queue(bisect_left(BOUNDS, started - arrived[0]), 1)
                else:
                    row.add_queues(started, arrived)
                row.add_compute(seconds, requests)
        finally:
            lock.release()

    def joined(self, model: str, queue_s: float, compute_s: float, whole_s: float) -> None:
        """See Observer.joined."""
        with self._lock:
            row = self._counted.get(model) or self._begin(model)
            row.answer(queue_s, compute_s, whole_s)
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

    def expects(self, model: str, known: Mapping[str, Known]) -> None:
        """See Observer.expects."""
        with self._lock:
            self._images.expect(model, known)

    def sampled(self, model: str, values: Mapping[str, float], now: float) -> None:
        """See Observer.sampled."""
        with self._lock:
            self._images.add(model, values, now)

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
            sums: dict[VersionRow, tuple[int, float]] = dict.fromkeys(
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

    def _begin(self, model: str) -> VersionRow:
        """Returns where a version is counted that was not yet. Called with the lock."""
        row = self._versions.new(model)
        if row is not None:
            counted = VersionRow(row)
        else:
            if _OTHER_VERSION not in self._counted:
                log.warning(
                    "statistics: %d versions are counted each by itself; %s and those that follow "
                    "are counted together, as %s", VERSIONS, model, OTHER,
                )  # fmt: skip
                self._counted[_OTHER_VERSION] = VersionRow(self._versions.other(_OTHER_VERSION))
            counted = self._counted[_OTHER_VERSION]
            self._in_other += 1
        self._counted[model] = counted
        return counted

    def _begin_calls(self, method: str, model: str, code: int) -> CallsRow:
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
            calls = self._cells.get((own_method, own_model, own_code)) or CallsRow(row)
            self._cells[own_method, own_model, own_code] = calls
        if known:  # of unknown ones there is no end
            self._cells[method, model, code] = calls
        return calls


def statistics_bytes(processes: int) -> int:
    """Returns the size of the memory of all workers and guards, by their number."""
    return slab_bytes(processes * SLOTS_OF_PROCESS, TABLES)

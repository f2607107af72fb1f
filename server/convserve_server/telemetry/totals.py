"""The sums of what all processes have counted, of all slots of the memory that they share."""

import itertools
import mmap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from convserve_server.telemetry import image_counts
from convserve_server.telemetry.image_counts import ImageTotals
from convserve_server.telemetry.layouts import (
    BUCKETS,
    OTHER,
    PROCESS,
    SIZE_BUCKETS,
    SIZES,
    TABLES,
    size_bucket,
)
from convserve_server.telemetry.slab import Layout, Row, Slab
from convserve_server.telemetry.statistics import Durations, VersionStatistics

_NS = 1e9


class CallKey(NamedTuple):
    """What calls are counted by.

    Attributes:
        method: its path; OTHER for one that there is not.
        model: name; empty if no model was to answer.
        version: of the model; empty likewise, and of OTHER.
        code: name of the status.
    """

    method: str
    model: str
    version: str
    code: str


@dataclass(frozen=True)
class Histogram:
    """How many values are in each bucket.

    Attributes:
        counts: of each bucket by itself, the last one without a bound.
        sum: of the values.
    """

    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        both = zip(self.counts, other.counts, strict=True)
        return Histogram(tuple(map(sum, both)), self.sum + other.sum)


@dataclass(frozen=True)
class VersionTotals:
    """What was counted of a model version, and how it is now.

    Attributes:
        images: that were computed.
        engine_s: that engines have run batches.
        queue: of requests, waiting for the engine, s.
        decode: of requests, making pixels of files, s.
        compute: of requests, in the engine, s.
        batch_images: sizes of batches.
        waiting: images that wait now.
        waiting_s: that the engine needs for them.
    """

    images: int
    engine_s: float
    queue: Histogram
    decode: Histogram
    compute: Histogram
    batch_images: Histogram
    waiting: int
    waiting_s: float


class _Sum:
    """Adds up the numbers of several rows.

    Args:
        rows: one of each slot that has it.
        layout: of the rows.
    """

    def __init__(self, rows: Sequence[Row], layout: Layout) -> None:
        self._rows = rows
        self._layout = layout

    def count(self, name: str, index: int = 0) -> int:
        at = self._layout.at(name) + index
        return sum(row.counts[at] for row in self._rows)

    def seconds(self, name: str) -> float:
        at = self._layout.at(name)
        return sum(row.seconds[at] for row in self._rows)

    def most(self, name: str) -> int:
        at = self._layout.at(name)
        return max((row.counts[at] for row in self._rows), default=0)

    def last(self) -> float:
        """Returns the latest time of a batch, time.monotonic(); 0 if there was none."""
        at = self._layout.at("last")
        return max(row.seconds[at] for row in self._rows)

    def engine_s(self) -> float:
        """Returns the time of all batches, s."""
        at = self._layout.at("batches_s")
        return sum(sum(row.seconds[at : at + SIZES + 1]) for row in self._rows)

    def by_size(self) -> dict[int, Durations]:
        """Returns the batches by their size, of the sizes that are counted each by itself."""
        at, number, taken = map(self._layout.at, ("sizes", "batches", "batches_s"))
        found: dict[int, tuple[int, float]] = {}
        for row in self._rows:
            sizes = itertools.takewhile(bool, row.counts[at : at + SIZES])
            for index, size in enumerate(sizes):
                before = found.get(size, (0, 0.0))
                found[size] = (
                    before[0] + row.counts[number + index],
                    before[1] + row.seconds[taken + index],
                )
        return {size: _durations(*found[size]) for size in sorted(found)}

    def histogram(self, name: str, buckets: int, total: float) -> Histogram:
        at = self._layout.at(name)
        counts = (row.counts[at : at + buckets] for row in self._rows)
        # A sum of differences may be less than zero by what a float64 cannot hold.
        return Histogram(tuple(map(sum, zip(*counts, strict=True))), max(0.0, total))


class Totals:
    """Reads what all processes have counted.

    Args:
        memory: that they share.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._slab = Slab(memory, TABLES)

    def clear_gauges(self, slot: int) -> None:
        """Forgets how it was in a process that has ended, by its slot; its counts stay."""
        self._slab.clear_gauges(slot)

    def versions(self) -> dict[tuple[str, str], VersionTotals]:
        """Returns the sums of each model version, by its name and version."""
        return {_names(key): _version(one) for key, one in self._sums("versions").items()}

    def calls(self) -> dict[CallKey, Histogram]:
        """Returns how long calls took, by method, model, version and code."""
        found: dict[CallKey, Histogram] = {}
        for key, one in self._sums("calls").items():
            method, model, code = key.split("\t")
            times = one.histogram("times", BUCKETS, one.seconds("times_s"))
            found[CallKey(method, *_names(model), code)] = times
        return found

    def refused(self) -> dict[str, int]:
        """Returns the calls that were refused, by reason."""
        return {key: one.count("refused") for key, one in self._sums("reasons").items()}

    def expired(self) -> dict[str, int]:
        """Returns the calls whose deadline passed, by stage."""
        one = self._process()
        return {stage: one.count(f"expired_{stage}") for stage in ("decode", "batch")}

    def refused_connections(self) -> int:
        """Returns the clients that were not let in."""
        return self._process().count("refused_connections")

    def in_flight(self) -> int:
        """Returns the calls that are being answered now."""
        return self._process().count("in_flight")

    def in_other(self) -> int:
        """Returns the model versions that have no row of their own, in the process with most."""
        return self._process().most("in_other")

    def images(self) -> dict[tuple[str, str, str], ImageTotals]:
        """Returns what sampled images are like, by model, version and measure."""
        found = image_counts.totals(self._slab.tables("images"), time.monotonic())
        return {(*_names(model), name): one for (model, name), one in found.items()}

    def statistics(self) -> list[VersionStatistics]:
        """Returns the sums of each model version as ModelStatistics has them; see Statistics."""
        # When time.monotonic() was 0, s since 1970.
        epoch_s = time.time() - time.monotonic()
        found = [_statistics(key, one, epoch_s) for key, one in self._sums("versions").items()]
        return sorted(found, key=lambda one: (one.name, one.version))

    def _sums(self, name: str) -> dict[str, _Sum]:
        """Returns the sums of a table by key, in the order of keys."""
        rows: dict[str, list[Row]] = {}
        for table in self._slab.tables(name):
            for row in table.rows():
                rows.setdefault(row.key, []).append(row)
        return {key: _Sum(rows[key], TABLES[name].layout) for key in sorted(rows)}

    def _process(self) -> _Sum:
        """Returns the sums of what concerns whole processes."""
        rows = [row for table in self._slab.tables("process") for row in table.rows()]
        return _Sum(rows, PROCESS)


def _names(key: str) -> tuple[str, str]:
    """Returns the name and the version of a key of model versions."""
    name, _, version = key.rpartition("/")
    return name, "" if name == OTHER else version


def _version(one: _Sum) -> VersionTotals:
    images = one.count("rows")
    return VersionTotals(
        images=images,
        engine_s=one.engine_s(),
        queue=one.histogram("queue", BUCKETS, one.seconds("queue_s")),
        decode=one.histogram("decode", BUCKETS, one.seconds("decode_s")),
        compute=one.histogram("compute", BUCKETS, one.seconds("compute_s")),
        batch_images=_batch_images(one, images),
        waiting=one.count("waiting"),
        waiting_s=one.seconds("waiting_s"),
    )


def _batch_images(one: _Sum, images: int) -> Histogram:
    """Returns the sizes of batches: of those counted each by itself, and of the others."""
    counts = list(one.histogram("other_sizes", SIZE_BUCKETS, 0.0).counts)
    for size, batches in one.by_size().items():
        counts[size_bucket(size)] += batches.count
    return Histogram(tuple(counts), images)


def _statistics(key: str, one: _Sum, epoch_s: float) -> VersionStatistics:
    name, _, version = key.rpartition("/")
    by_size = one.by_size()
    batches = sum(each.count for each in by_size.values()) + one.count("batches", SIZES)
    answered, last = one.histogram("queue", BUCKETS, 0.0).count, one.last()
    return VersionStatistics(
        name,
        int(version),
        last_ms=round(1000 * (epoch_s + last)) if last else 0,
        rows=one.count("rows"),
        batches=batches,
        success=_durations(answered, one.seconds("whole_s")),
        fail=_durations(one.count("failed"), one.seconds("failed_s")),
        queue=_durations(answered, one.seconds("queue_s")),
        decode=_durations(one.count("decoded"), one.seconds("decode_s")),
        compute=_durations(answered, one.seconds("compute_s")),
        by_size=by_size,
    )


def _durations(number: int, seconds: float) -> Durations:
    # A sum of differences may be less than zero by what a float64 cannot hold.
    return Durations(number, max(0, round(_NS * seconds)))

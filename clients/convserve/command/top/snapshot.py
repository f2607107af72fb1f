"""What a server does at one time: its models, processes and refusals, from two metrics pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from convserve.command.top.histograms import (
    Histogram,
    Version,
    by_version,
    histograms,
    version_of,
)
from convserve.command.top.page import Increase, Page

STAGES = ("queue", "decode", "compute")
"""Of a call's time in the server, each with a histogram of its own."""


@dataclass(frozen=True)
class Activity:
    """What a model version, or a whole server, has done in a time.

    Attributes:
        calls: Calls that ended.
        errors: Those that ended in an error, by the gRPC code.
        images: Images that were computed.
        engine_s: Time in which engines ran batches, of all workers, in seconds.
        whole: Seconds of a call in the server.
        stages: Seconds of the stages of a call, by their names.
        batches: Images of a batch.
    """

    calls: float = 0.0
    errors: Mapping[str, float] = field(default_factory=dict)
    images: float = 0.0
    engine_s: float = 0.0
    whole: Histogram = field(default_factory=Histogram)
    stages: Mapping[str, Histogram] = field(default_factory=dict)
    batches: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True)
class VersionRow:
    """A model version.

    Attributes:
        model: Its name; empty: calls that are about no model.
        version: As the label has it.
        state: One word; empty if the page has none.
        since_start: What it has done since the server started.
        interval: What it has done since the page before; None if there is none.
        queue_images: That wait.
        queue_work_s: Work that waits, in seconds.
        memory_bytes: That loading it has added; None where nobody knows.
        load_s: How long loading it took; None where nobody knows.
        busy: Share of the interval in which the workers' engines ran batches of it; None if there
            is no page before.
    """

    model: str
    version: str
    state: str
    since_start: Activity
    interval: Activity | None
    queue_images: float
    queue_work_s: float
    memory_bytes: float | None
    load_s: float | None
    busy: float | None


@dataclass(frozen=True)
class ProcessRow:
    """A process of the server.

    Attributes:
        name: As "worker-1", or "supervisor".
        memory_bytes: Resident; None where nobody knows.
        restarts: Ends that nobody asked for, since the server started.
        new_restarts: Those since the page before.
    """

    name: str
    memory_bytes: float | None
    restarts: float
    new_restarts: float


@dataclass(frozen=True)
class Snapshot:
    """What a server does.

    Attributes:
        seconds: Since the page before; None if there is none.
        restarted: Whether the counters began anew since the page before.
        build: Version and other facts about the server, by their labels.
        versions: Busiest first.
        processes: The supervisor first.
        workers: How many there are, by their state.
        in_flight: Calls that are not answered yet.
        refused: Calls that were refused before anything was computed, by the reason: since the
            server started, and since the page before.
        others: Sums of other counters, by their names, in the same way.
        in_other: Model versions that have no row of their own.
    """

    seconds: float | None
    restarted: bool
    build: Mapping[str, str]
    versions: tuple[VersionRow, ...]
    processes: tuple[ProcessRow, ...]
    workers: Mapping[str, float]
    in_flight: float
    refused: Mapping[str, tuple[float, float]]
    others: Mapping[str, tuple[float, float]]
    in_other: float

    @classmethod
    def of(cls, page: Page, before: Page | None) -> Snapshot:
        """Returns what a page says, and what has changed since the one before."""
        start = Increase(page)
        last = Increase.between(before, page) if before else None
        return cls(
            seconds=page.read_s - before.read_s if before else None,
            restarted=last is not None and last.before is None,
            build=next((labels for labels, _ in page.of("convserve_build_info")), {}),
            versions=_versions(page, before, start, last),
            processes=_processes(page, last),
            workers=_sums(page.of("convserve_workers"), "state"),
            in_flight=_sum(page.of("convserve_calls_in_flight")),
            refused=_both(start, last, "convserve_refused_total", "reason"),
            others={
                "expired": _pair(start, last, "convserve_expired_total"),
                "cancelled": _pair(start, last, "convserve_cancelled_total"),
            },
            in_other=_sum(page.of("convserve_models_in_other")),
        )


_Samples = Iterable[tuple[dict[str, str], float]]


def _versions(
    page: Page, before: Page | None, start: Increase, last: Increase | None
) -> tuple[VersionRow, ...]:
    states = {version_of(labels): labels["state"] for labels, value in page.of(
        "convserve_model_state") if value}  # fmt: skip
    began = _activities(start)
    interval = _activities(last) if last else None
    queue_images = by_version(page.of("convserve_queue_images"))
    queue_work = by_version(page.of("convserve_queue_work_seconds"))
    memory = by_version(page.of("convserve_engine_memory_bytes"))
    loading = by_version(page.of("convserve_model_load_seconds"))
    workers = _sums(page.of("convserve_workers"), "state").get("serving", 0.0)
    workers_s = workers * (page.read_s - before.read_s) if before else 0.0
    rows = [
        VersionRow(
            *key,
            state=states.get(key, ""),
            since_start=began.get(key, Activity()),
            interval=None if interval is None else interval.get(key, Activity()),
            queue_images=queue_images.get(key, 0.0),
            queue_work_s=queue_work.get(key, 0.0),
            memory_bytes=memory.get(key),
            load_s=loading.get(key),
            busy=_share(interval, key, workers_s),
        )
        for key in states.keys() | began.keys() | queue_images.keys()
    ]
    return tuple(sorted(rows, key=_busiest_first))


def _share(
    interval: dict[Version, Activity] | None, key: Version, workers_s: float
) -> float | None:
    if interval is None or not workers_s:
        return None
    return interval.get(key, Activity()).engine_s / workers_s


def _busiest_first(row: VersionRow) -> tuple[bool, float, float, str, int, str]:
    """Returns what sorts versions: refused ones first, since an operator has to see them."""
    number = int(row.version) if row.version.isdecimal() else 0
    calls = row.interval.calls if row.interval else 0.0
    refused = row.state == "refused"
    return (not refused, -calls, -row.since_start.calls, row.model, -number, row.version)


def _activities(increase: Increase) -> dict[Version, Activity]:
    calls: dict[Version, float] = {}
    errors: dict[Version, dict[str, float]] = {}
    for labels, value in increase.of("convserve_calls_total"):
        key, code = version_of(labels), labels.get("code", "")
        calls[key] = calls.get(key, 0.0) + value
        if code != "OK" and value:
            of_version = errors.setdefault(key, {})
            of_version[code] = of_version.get(code, 0.0) + value
    images = by_version(increase.of("convserve_images_total"))
    engine_s = by_version(increase.of("convserve_engine_seconds_total"))
    whole = histograms(increase, "convserve_call_seconds")
    batches = histograms(increase, "convserve_batch_images")
    stages = {stage: histograms(increase, f"convserve_{stage}_seconds") for stage in STAGES}
    keys = calls.keys() | images.keys() | whole.keys() | batches.keys()
    return {
        key: Activity(
            calls=calls.get(key, 0.0),
            errors=errors.get(key, {}),
            images=images.get(key, 0.0),
            engine_s=engine_s.get(key, 0.0),
            whole=whole.get(key, Histogram()),
            stages={stage: found.get(key, Histogram()) for stage, found in stages.items()},
            batches=batches.get(key, Histogram()),
        )
        for key in keys
    }


def _processes(page: Page, last: Increase | None) -> tuple[ProcessRow, ...]:
    memory = _sums(page.of("convserve_process_memory_bytes"), "process")
    restarts = _by_worker(page.of("convserve_worker_restarts_total"))
    new = _by_worker(last.of("convserve_worker_restarts_total")) if last else {}
    return tuple(
        ProcessRow(name, memory.get(name), restarts.get(name, 0.0), new.get(name, 0.0))
        for name in sorted(memory.keys() | restarts.keys(), key=_supervisor_first)
    )


def _by_worker(samples: _Samples) -> dict[str, float]:
    """Returns restarts by the name of the process, which for worker "1" is "worker-1"."""
    by_label = _sums(samples, "worker")
    return {
        f"worker-{label}" if label.isdecimal() else label: value
        for label, value in by_label.items()
    }


def _supervisor_first(name: str) -> tuple[bool, bool, int, str]:
    number = name.rpartition("-")[2]
    is_worker = name.startswith("worker")
    return name != "supervisor", is_worker, int(number) if number.isdecimal() else 0, name


def _sum(samples: _Samples) -> float:
    return sum(value for _, value in samples)


def _sums(samples: _Samples, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for labels, value in samples:
        key = labels.get(label, "")
        sums[key] = sums.get(key, 0.0) + value
    return sums


def _pair(start: Increase, last: Increase | None, name: str) -> tuple[float, float]:
    return _sum(start.of(name)), _sum(last.of(name)) if last else 0.0


def _both(
    start: Increase, last: Increase | None, name: str, label: str
) -> dict[str, tuple[float, float]]:
    total = _sums(start.of(name), label)
    new = _sums(last.of(name), label) if last else {}

    def most_first(key: str) -> tuple[float, float, str]:
        return -new.get(key, 0.0), -total[key], key

    return {
        key: (total[key], new.get(key, 0.0)) for key in sorted(total, key=most_first) if total[key]
    }

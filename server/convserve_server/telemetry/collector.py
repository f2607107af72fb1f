"""The page of metrics: what all processes have counted, in the forms that Prometheus reads."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from convserve_host.memory import resident_bytes
from convserve_server.telemetry import metrics
from convserve_server.telemetry.image_counts import ImageTotals
from convserve_server.telemetry.layouts import BOUNDS, BUCKETS, SIZE_BOUNDS, VERSIONS
from convserve_server.telemetry.metrics import Metric
from convserve_server.telemetry.server_state import ModelState, ServerState, StoreState
from convserve_server.telemetry.totals import Histogram, Totals, VersionTotals

#: In the labels of buckets.
_BOUNDS = [*map(floatToGoString, BOUNDS), "+Inf"]
_SIZE_BOUNDS = [*map(floatToGoString, SIZE_BOUNDS), "+Inf"]

_NO_TIMES = Histogram((0,) * BUCKETS, 0.0)

Samples = Sequence[tuple[Sequence[str], float]]


class MetricsPage(Collector):
    """Makes the page anew each time that it is asked for.

    Args:
        totals: what was counted.
        state: returns how the server is now.
        build: labels of BUILD but the provider.
        settings: labels of SETTINGS.
    """

    def __init__(
        self,
        totals: Totals,
        state: Callable[[], ServerState],
        build: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self._totals = totals
        self._state = state
        self._build = build
        self._settings = settings
        # One at a time: many readers should not take the CPU from the workers.
        self._lock = threading.Lock()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Returns the page, and its type.

        Args:
            accept: the header field of the request: OpenMetrics for those that take it.
        """
        encode, content_type = choose_encoder(accept)
        with self._lock:
            return encode(self), content_type

    def collect(self) -> Iterator[Family]:
        """See Collector."""
        yield from self._of_calls()
        yield from _of_versions(self._totals.versions())
        yield _gauges(metrics.IN_FLIGHT, [((), self._totals.in_flight())])
        yield _gauges(metrics.IN_OTHER, [((), self._totals.in_other())])
        yield from _of_images(self._totals.images())
        state = self._state()
        yield from _of_models(state.models)
        yield from _of_processes(state)
        yield from _of_store(state.store)
        build = {**self._build, "provider": state.provider}
        for metric, labels in ((metrics.BUILD, build), (metrics.SETTINGS, self._settings)):
            name = metric.name.removesuffix("_info")
            yield InfoMetricFamily(name, metric.help, {key: labels[key] for key in metric.labels})

    def _of_calls(self) -> Iterator[Family]:
        calls = self._totals.calls()
        yield _counters(metrics.CALLS, [(key, times.count) for key, times in calls.items()])
        cancelled = sum(times.count for key, times in calls.items() if key.code == "CANCELLED")
        yield _counters(metrics.CANCELLED, [((), cancelled)])
        yield _counters(metrics.REFUSED_CONNECTIONS, [((), self._totals.refused_connections())])
        refused, expired = self._totals.refused(), self._totals.expired()
        yield _counters(metrics.REFUSED, [((key,), count) for key, count in refused.items()])
        yield _counters(metrics.EXPIRED, [((key,), count) for key, count in expired.items()])
        answered: dict[tuple[str, str], Histogram] = {}
        for key, times in calls.items():
            if key.model and key.code == "OK":
                version = key.model, key.version
                answered[version] = answered.get(version, _NO_TIMES) + times
        yield _histograms(metrics.CALL_SECONDS, answered, _BOUNDS)


def _of_versions(versions: Mapping[tuple[str, str], VersionTotals]) -> Iterator[Family]:
    def histograms(metric: Metric, get: Callable[[VersionTotals], Histogram]) -> Family:
        bounds = _SIZE_BOUNDS if metric is metrics.BATCH_IMAGES else _BOUNDS
        return _histograms(metric, {key: get(one) for key, one in versions.items()}, bounds)

    yield _counters(metrics.IMAGES, [(key, one.images) for key, one in versions.items()])
    engine_s = [(key, one.engine_s) for key, one in versions.items()]
    yield _counters(metrics.ENGINE_SECONDS, engine_s)
    yield histograms(metrics.QUEUE_SECONDS, lambda one: one.queue)
    yield histograms(metrics.DECODE_SECONDS, lambda one: one.decode)
    yield histograms(metrics.COMPUTE_SECONDS, lambda one: one.compute)
    yield histograms(metrics.BATCH_IMAGES, lambda one: one.batch_images)
    yield _gauges(metrics.QUEUE_IMAGES, [(key, one.waiting) for key, one in versions.items()])
    yield _gauges(metrics.QUEUE_WORK, [(key, one.waiting_s) for key, one in versions.items()])


def _of_models(models: Sequence[ModelState]) -> Iterator[Family]:
    # A folder may hold more than are ever served; those come last.
    shown = sorted(models, key=lambda one: one.state == "found")[:VERSIONS]
    keys = [(one.name, str(one.version)) for one in shown]
    yield _gauges(
        metrics.STATE, [((*key, one.state), 1) for key, one in zip(keys, shown, strict=True)]
    )
    for metric, values in (
        (metrics.LOAD_SECONDS, [one.load_s for one in shown]),
        (metrics.ENGINE_MEMORY, [one.memory_bytes for one in shown]),
    ):
        known = [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
        yield _gauges(metric, known)


def _of_processes(state: ServerState) -> Iterator[Family]:
    restarts = [((str(number),), count) for number, count in state.restarts.items()]
    yield _counters(metrics.RESTARTS, restarts)
    workers = {"serving": state.serving, "starting": state.starting}
    yield _gauges(metrics.WORKERS, [((key,), count) for key, count in workers.items()])
    memory = {name: sum(map(resident_bytes, ids)) for name, ids in state.processes.items()}
    yield _gauges(
        metrics.PROCESS_MEMORY, [((name,), size) for name, size in memory.items() if size]
    )


def _of_store(store: StoreState | None) -> Iterator[Family]:
    known = [] if store is None else [((), float(store.answers))]
    yield _gauges(metrics.STORE_UP, known)
    reached = [] if store is None or not store.reached else [((), store.reached)]
    yield _gauges(metrics.STORE_ANSWERED, reached)


def _of_images(images: Mapping[tuple[str, str, str], ImageTotals]) -> Iterator[Family]:
    for metric, values in (
        (metrics.DRIFT, {key: one.index for key, one in images.items()}),
        (metrics.DRIFT_BY_LUCK, {key: one.by_luck for key, one in images.items()}),
    ):
        yield _gauges(metric, [(key, x) for key, x in values.items() if x is not None])
    family = HistogramMetricFamily(
        metrics.SAMPLED.name, metrics.SAMPLED.help, labels=metrics.SAMPLED.labels
    )
    for key, one in images.items():
        bounds = [*one.known.bounds, math.inf]
        below = zip(bounds, itertools.accumulate(one.counts), strict=True)
        # With a bound below 0, where nothing is, a histogram would have neither sum nor count.
        buckets = [(_bound(bound), count) for bound, count in below if bound >= 0]
        family.add_metric(key, buckets, one.sum)
    yield family


def _bound(value: float) -> str:
    """Returns a bound as it is in labels."""
    (text,) = map(floatToGoString, [value])
    return str(text)


def _counters(metric: Metric, samples: Samples) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _gauges(metric: Metric, samples: Samples) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histograms(
    metric: Metric, histograms: Mapping[tuple[str, str], Histogram], bounds: Sequence[str]
) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, one in histograms.items():
        # Of Prometheus each bucket has what is in those before it as well.
        below = itertools.accumulate(one.counts)
        family.add_metric(labels, list(zip(bounds, below, strict=True)), one.sum)
    return family

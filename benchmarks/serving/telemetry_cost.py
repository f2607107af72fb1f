"""Measures what metrics cost a call: each event by itself, and all of a call together.

    python -m benchmarks.serving.telemetry_cost

One thread counts calls of one model, as the batcher and the router do, beside an observer that does
nothing. What that comes to in a server under load is in benchmarks.serving.metrics_readers.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness.command import add_run_options, execute, new_parser, whole
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_server.telemetry.observer import NO_OBSERVER, Observer
from convserve_server.telemetry.shared_statistics import SharedStatistics

_PACKAGES = ("convserve",)
_MODEL = "mnist/1"
_METHOD = "/convserve.v1.Classifier/Classify"
_BATCHES = (1, 16, 64)
#: Of one repetition, s; the least of several counts.
_SPAN_S = 0.05
#: Of a batch, and between the arrivals of its calls, s.
_BATCH_S, _BETWEEN_S = 0.002, 0.00003


@dataclass(frozen=True)
class Cost:
    """What an event costs.

    Attributes:
        event: of the observer.
        calls: in a batch.
        us_a_call: µs a call.
    """

    event: str
    calls: int
    us_a_call: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.telemetry_cost", __doc__)
    result.add_argument(
        "--repeats", type=whole(1), default=20, metavar="N", help="of each event [default: 20]"
    )
    add_run_options(result, rounds=1, measured="event")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    costs = [
        Cost(name, calls, 1e6 * seconds / calls)
        for calls in _BATCHES
        for name, seconds in _events(calls, arguments.repeats).items()
    ]
    on = machine(_PACKAGES)
    print(heading(on, "one thread", (f"least of {arguments.repeats}",)), _table(costs), sep="\n\n")
    write_json(arguments.json, on, {"method": _METHOD}, costs=costs)


def _events(calls: int, repeats: int) -> dict[str, float]:
    """Seconds of each event of so many calls, beside an observer that does nothing."""
    end = 100.0
    first = end - _BATCH_S - calls * _BETWEEN_S
    arrived = [first + call * _BETWEEN_S for call in range(calls)]
    times = [end - one for one in arrived]

    def queued(observer: Observer) -> None:
        for _ in range(calls):
            observer.queued(_MODEL, 1)

    def batch(observer: Observer) -> None:
        observer.batch(_MODEL, calls, _BATCH_S, arrived, 0.001, end)

    def finished(observer: Observer) -> None:
        for seconds in times:
            observer.finished(_METHOD, _MODEL, 0, "", seconds)

    def together(observer: Observer) -> None:
        queued(observer)
        batch(observer)
        finished(observer)

    def refused(observer: Observer) -> None:
        for _ in range(calls):
            observer.refused(_METHOD, "QUEUE_FULL")
            observer.finished(_METHOD, _MODEL, 8, "QUEUE_FULL", 0.0)

    events = {
        "the batch": batch,
        "the end of each call": finished,
        "a call that is answered, together": together,
        "a call that is refused": refused,
    }
    statistics = SharedStatistics()
    statistics.know([_METHOD])
    return {
        name: _least_s(event, statistics, repeats) - _least_s(event, NO_OBSERVER, repeats)
        for name, event in events.items()
    }


def _least_s(event: Callable[[Observer], None], observer: Observer, repeats: int) -> float:
    """Seconds of an event, the least of several means."""
    event(observer)
    started = time.perf_counter()
    event(observer)
    times = max(1, round(_SPAN_S / (time.perf_counter() - started)))
    means = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(times):
            event(observer)
        means.append((time.perf_counter() - started) / times)
    return min(means)


def _table(costs: list[Cost]) -> str:
    names = list(dict.fromkeys(cost.event for cost in costs))
    found = {(cost.event, cost.calls): cost.us_a_call for cost in costs}
    lines = [[name, *(f"{found[name, calls]:.2f}" for calls in _BATCHES)] for name in names]
    header = ["µs a call", *(f"batches of {calls}" for calls in _BATCHES)]
    return grid(header, lines, {"µs a call"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

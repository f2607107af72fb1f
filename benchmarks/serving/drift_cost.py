"""Measures what the metrics of drift cost a worker: images that are looked at, and all others.

    python -m benchmarks.serving.drift_cost

One thread looks at images as the batcher does, and counts them as the server does. What a second of
a worker costs follows from the pause after each, which is that of the server's default. The last
row is what a batch costs in which no image is looked at: asking for the time that it is due.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.command import add_run_options, execute, new_parser
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_bench.made_up_photos import made_up_photo
from convserve_bundle.stability import MEASURES, Known
from convserve_server.core.image_watch import ImageWatch
from convserve_server.settings.sections import Telemetry
from convserve_server.telemetry.shared_statistics import SharedStatistics

_PACKAGES = ("convserve", "numpy")
_MODEL = "photos/1"
_SHAPES = ((28, 28, 1), (150, 150, 3), (224, 224, 3), (512, 512, 3))
_KNOWN = Known(tuple(float(bound) for bound in range(0, 220, 20)), (0, *[100] * 10, 0))
#: Of one repetition, s; the least of several counts.
_SPAN_S = 0.05


@dataclass(frozen=True)
class Cost:
    """What looking costs.

    Attributes:
        what: is looked at.
        us: of the thread's time, for each.
        a_second: of a worker; None where that is as many as batches come.
        share: of one CPU; None likewise.
    """

    what: str
    us: float
    a_second: float | None = None
    share: float | None = None


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.drift_cost", __doc__)
    add_run_options(result, rounds=20, measured="image")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    a_second = Telemetry().drift_sample
    statistics = SharedStatistics()
    statistics.expects(_MODEL, dict.fromkeys(MEASURES, _KNOWN))
    watch = ImageWatch(_MODEL, MEASURES, a_second, statistics)
    rows = np.full((1, 10), 0.1, np.float32)
    random = np.random.default_rng(0)
    costs = []
    for shape in _SHAPES:
        pixels = random.integers(0, 256, (1, *shape), np.uint8)
        us = _least_us(lambda pixels=pixels: watch.look([pixels], rows), arguments.rounds)  # type: ignore[misc]
        costs.append(_of_image(f"pixels {' x '.join(map(str, shape))}", us, a_second))
    file = made_up_photo(0)
    us = _least_us(lambda: watch.look_at_file([file]), arguments.rounds)
    costs.append(_of_image("header of a JPEG", us, a_second))
    costs.append(Cost("no image of a batch", _not_due_us(watch, arguments.rounds)))
    on = machine(_PACKAGES)
    notes = (f"least of {arguments.rounds}", f"{a_second:g} images a second")
    print(heading(on, "one thread", notes), _table(costs), sep="\n\n")
    write_json(arguments.json, on, {"a_second": a_second}, costs=costs)


def _of_image(what: str, us: float, a_second: float) -> Cost:
    most = min(a_second, ImageWatch.MOST_SHARE / us * 1e6)
    return Cost(what, us, most, most * us / 1e6)


def _not_due_us(watch: ImageWatch, rounds: int) -> float:
    """What the batcher does for each batch, beside nothing."""
    times = range(1000)
    watch.due = time.monotonic() + 3600
    now = time.monotonic()

    def ask() -> None:
        for _ in times:
            if watch is not None and now >= watch.due:
                raise AssertionError("it is not due")

    def nothing() -> None:
        for _ in times:
            pass

    return (_least_us(ask, rounds) - _least_us(nothing, rounds)) / len(times)


def _least_us(work: Callable[[], None], rounds: int) -> float:
    """Thread time of some work, µs: the least of several means."""
    started = time.thread_time()
    work()
    times = max(1, round(_SPAN_S / max(1e-6, time.thread_time() - started)))
    means = []
    for _ in range(rounds):
        started = time.thread_time()
        for _ in range(times):
            work()
        means.append((time.thread_time() - started) / times)
    return 1e6 * min(means)


def _table(costs: list[Cost]) -> str:
    lines = [
        [
            cost.what,
            f"{cost.us:.3g}",
            "all others" if cost.a_second is None else f"{cost.a_second:.3g}",
            "" if cost.share is None else f"{100 * cost.share:.3f}",
        ]
        for cost in costs
    ]
    header = ["what is looked at", "µs each", "a second, at most", "% of a CPU"]
    return grid(header, lines, {header[0]})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

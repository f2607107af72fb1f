"""Measures decoding of photographs beside other ways: processor time an image, and threads.

    python -m benchmarks.decode --photos DIR

Every way decodes the same files in turn; each round begins with another way. Processor time is that
of the whole process, so that no way hides work in threads and other load on the machine matters
little; images a second of one and two threads are by the clock, and need CPUs that are free. Tables
go to standard output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.answers import Decode
from benchmarks.command import (
    add_photos_option,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.meter import rotated
from benchmarks.pictures import pictures
from benchmarks.report import heading, machine, write_json
from benchmarks.table import grid
from benchmarks.ways import BASELINE, OURS, Way, ways

_PACKAGES = ("convserve", "cykooz.resizer", "numpy", "pillow", "simplejpeg")
_THREADS = (1, 2)


@dataclass(frozen=True)
class Cost:
    """What one way costs, by round, and how far its pixels are from the baseline's."""

    way: str
    cpu_ms: Sequence[float]
    #: Baseline's median to this one's.
    times_as_fast: float
    #: Mean absolute difference, levels of 0 to 255.
    difference: float


@dataclass(frozen=True)
class Rate:
    """Images a second of one way in so many threads, wall-clock, by round."""

    way: str
    threads: int
    images_per_s: Sequence[float]
    #: To one thread of the same way.
    ratio: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.decode", __doc__)
    add_photos_option(result)
    result.add_argument(
        "--images", type=whole(1), default=200, metavar="N",
        help="how many files [default: 200]",
    )  # fmt: skip
    result.add_argument(
        "--size", type=whole(1), default=150, metavar="PIXELS",
        help="rows and columns that are wanted [default: 150]",
    )  # fmt: skip
    add_run_options(result, rounds=7, measured="way")
    return result


def costs(ways: Sequence[Way], files: Sequence[bytes], size: int, rounds: int) -> list[Cost]:
    """Processor time of all ways that are installed, the first one being the baseline."""
    there = [(way.name, way.decode) for way in ways if way.decode is not None]
    baseline, first = there[0]
    differences = {name: _difference(decode, first, files, size) for name, decode in there}
    cpu_ms: dict[str, list[float]] = {name: [] for name, _ in there}
    for round_ in range(rounds):
        for name, decode in rotated(there, round_):
            before = time.process_time()
            for data in files:
                decode(data, size, size)
            cpu_ms[name].append((time.process_time() - before) / len(files) * 1e3)
        tell(f"round {round_ + 1}: {len(there)} ways measured")
    unit = statistics.median(cpu_ms[baseline])
    return [
        Cost(name, spent, unit / statistics.median(spent), differences[name])
        for name, spent in cpu_ms.items()
    ]


def _difference(decode: Decode, other: Decode, files: Sequence[bytes], size: int) -> float:
    """Mean absolute difference of two ways' pixels; it also warms up."""
    differences = (
        np.abs(decode(data, size, size).astype(np.int16) - other(data, size, size)).mean()
        for data in files
    )
    return statistics.fmean(map(float, differences))


def rates(ways: Sequence[Way], files: Sequence[bytes], size: int, rounds: int) -> list[Rate]:
    """Speed of ways in one thread and in two; what holds the GIL gains nothing by a second."""
    turns = [
        (way.name, partial(way.decode, height=size, width=size), threads)
        for way in ways
        if way.decode is not None
        for threads in _THREADS
    ]
    found: dict[tuple[str, int], list[float]] = {(name, threads): [] for name, _, threads in turns}
    for round_ in range(rounds):
        for name, decode, threads in rotated(turns, round_):
            with ThreadPoolExecutor(threads) as pool:
                before = time.perf_counter()
                deque(pool.map(decode, files), maxlen=0)
                found[name, threads].append(len(files) / (time.perf_counter() - before))
    return [
        Rate(name, threads, each, statistics.median(each) / statistics.median(found[name, 1]))
        for (name, threads), each in found.items()
    ]


def _costs_table(ways: Sequence[Way], found: Sequence[Cost]) -> str:
    header = (
        "way",
        "CPU ms an image, median (min..max)",
        "times as fast as the first",
        "pixels' mean difference to the first",
    )
    by_name = {cost.way: cost for cost in found}
    lines = []
    for way in ways:
        if (cost := by_name.get(way.name)) is None:
            lines.append((way.name, f"not installed: {way.missing}", "", ""))
            continue
        median, spread = _spread(cost.cpu_ms, 3)
        lines.append(
            (
                way.name,
                f"{median} ({spread})",
                f"{cost.times_as_fast:.2f}",
                f"{cost.difference:.2f}",
            )
        )
    return grid(header, lines, {"way"})


def _rates_table(found: Sequence[Rate]) -> str:
    header = ("way", "threads", "images/s, median (min..max)", "to one thread")
    lines = []
    for rate in found:
        median, spread = _spread(rate.images_per_s, 0)
        lines.append((rate.way, f"{rate.threads}", f"{median} ({spread})", f"{rate.ratio:.2f}"))
    return grid(header, lines, {"way"})


def _spread(figures: Sequence[float], digits: int) -> tuple[str, str]:
    low, high = min(figures), max(figures)
    return f"{statistics.median(figures):.{digits}f}", f"{low:.{digits}f}..{high:.{digits}f}"


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: see pictures.
    """
    given = pictures(arguments.photos, arguments.images)
    compared = ways()
    on = machine(_PACKAGES)
    cost = costs(compared, given.files, arguments.size, arguments.rounds)
    rate = rates([BASELINE, OURS], given.files, arguments.size, arguments.rounds)
    about = {"pictures": given.about, "size": arguments.size, "rounds": arguments.rounds}
    said = (given.about, f"to {arguments.size} x {arguments.size}", f"{arguments.rounds} rounds")
    print(
        heading(on, "everything", said),
        _costs_table(compared, cost),
        _rates_table(rate),
        sep="\n\n",
    )
    write_json(arguments.json, on, about, costs=cost, rates=rate)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures decoders of photographs beside each other: processor time an image, and threads.

    python -m benchmarks.imaging.decode --photos DIR

Every decoder decodes the same files in turn; each round begins with another one. Processor time is
that of the whole process, so that no decoder hides work in threads and other load on the machine
matters little; images a second of one and two threads are by the clock, and need CPUs that are
free. Tables go to standard output as Markdown, progress to standard error.
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

from benchmarks.harness.answers import Decode
from benchmarks.harness.command import (
    add_photos_option,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import rotated
from benchmarks.harness.pictures import pictures
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.imaging.decoders import BASELINE, OURS, Decoder, decoders

_PACKAGES = ("convserve", "cykooz.resizer", "numpy", "pillow", "simplejpeg")
_THREADS = (1, 2)


@dataclass(frozen=True)
class Cost:
    """What one decoder costs, by round, and how far its pixels are from the baseline's."""

    decoder: str
    cpu_ms: Sequence[float]
    #: Baseline's median to this one's.
    times_as_fast: float
    #: Mean absolute difference, levels of 0 to 255.
    difference: float


@dataclass(frozen=True)
class Rate:
    """Images a second of one decoder in so many threads, wall-clock, by round."""

    decoder: str
    threads: int
    images_per_s: Sequence[float]
    #: To one thread of the same decoder.
    ratio: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.imaging.decode", __doc__)
    add_photos_option(result)
    result.add_argument(
        "--images", type=whole(1), default=200, metavar="N",
        help="how many files [default: 200]",
    )  # fmt: skip
    result.add_argument(
        "--size", type=whole(1), default=150, metavar="PIXELS",
        help="rows and columns that are wanted [default: 150]",
    )  # fmt: skip
    add_run_options(result, rounds=7, measured="decoder")
    return result


def costs(
    decoders: Sequence[Decoder], files: Sequence[bytes], size: int, rounds: int
) -> list[Cost]:
    """Processor time of all decoders that are installed, the first one being the baseline."""
    there = [(decoder.name, decoder.decode) for decoder in decoders if decoder.decode is not None]
    baseline, first = there[0]
    differences = {name: _difference(decode, first, files, size) for name, decode in there}
    cpu_ms: dict[str, list[float]] = {name: [] for name, _ in there}
    for round_ in range(rounds):
        for name, decode in rotated(there, round_):
            before = time.process_time()
            for data in files:
                decode(data, size, size)
            cpu_ms[name].append((time.process_time() - before) / len(files) * 1e3)
        tell(f"round {round_ + 1}: {len(there)} decoders measured")
    unit = statistics.median(cpu_ms[baseline])
    return [
        Cost(name, spent, unit / statistics.median(spent), differences[name])
        for name, spent in cpu_ms.items()
    ]


def _difference(decode: Decode, other: Decode, files: Sequence[bytes], size: int) -> float:
    """Mean absolute difference of two decoders' pixels; it also warms up."""
    differences = (
        np.abs(decode(data, size, size).astype(np.int16) - other(data, size, size)).mean()
        for data in files
    )
    return statistics.fmean(map(float, differences))


def rates(
    decoders: Sequence[Decoder], files: Sequence[bytes], size: int, rounds: int
) -> list[Rate]:
    """Speed of decoders in one thread and in two; what holds the GIL gains nothing by a second."""
    runs = [
        (decoder.name, partial(decoder.decode, height=size, width=size), threads)
        for decoder in decoders
        if decoder.decode is not None
        for threads in _THREADS
    ]
    found: dict[tuple[str, int], list[float]] = {(name, threads): [] for name, _, threads in runs}
    for round_ in range(rounds):
        for name, decode, threads in rotated(runs, round_):
            with ThreadPoolExecutor(threads) as pool:
                before = time.perf_counter()
                deque(pool.map(decode, files), maxlen=0)
                found[name, threads].append(len(files) / (time.perf_counter() - before))
    return [
        Rate(name, threads, each, statistics.median(each) / statistics.median(found[name, 1]))
        for (name, threads), each in found.items()
    ]


def _costs_table(decoders: Sequence[Decoder], found: Sequence[Cost]) -> str:
    header = (
        "decoder",
        "CPU ms an image, median (min..max)",
        "times as fast as the first",
        "pixels' mean difference to the first",
    )
    by_name = {cost.decoder: cost for cost in found}
    lines = []
    for decoder in decoders:
        if (cost := by_name.get(decoder.name)) is None:
            lines.append((decoder.name, f"not installed: {decoder.missing}", "", ""))
            continue
        median, spread = _spread(cost.cpu_ms, 3)
        lines.append(
            (
                decoder.name,
                f"{median} ({spread})",
                f"{cost.times_as_fast:.2f}",
                f"{cost.difference:.2f}",
            )
        )
    return grid(header, lines, {"decoder"})


def _rates_table(found: Sequence[Rate]) -> str:
    header = ("decoder", "threads", "images/s, median (min..max)", "to one thread")
    lines = []
    for rate in found:
        median, spread = _spread(rate.images_per_s, 0)
        lines.append((rate.decoder, f"{rate.threads}", f"{median} ({spread})", f"{rate.ratio:.2f}"))
    return grid(header, lines, {"decoder"})


def _spread(figures: Sequence[float], digits: int) -> tuple[str, str]:
    low, high = min(figures), max(figures)
    return f"{statistics.median(figures):.{digits}f}", f"{low:.{digits}f}..{high:.{digits}f}"


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: see pictures.
    """
    given = pictures(arguments.photos, arguments.images)
    compared = decoders()
    on = machine(_PACKAGES)
    cost = costs(compared, given.files, arguments.size, arguments.rounds)
    rate = rates([BASELINE, OURS], given.files, arguments.size, arguments.rounds)
    about = {"pictures": given.about, "size": arguments.size, "rounds": arguments.rounds}
    details = (given.about, f"to {arguments.size} x {arguments.size}", f"{arguments.rounds} rounds")
    print(
        heading(on, "everything", details),
        _costs_table(compared, cost),
        _rates_table(rate),
        sep="\n\n",
    )
    write_json(arguments.json, on, about, costs=cost, rates=rate)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

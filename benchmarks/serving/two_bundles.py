"""What a run of ONNX Runtime costs with two bundles of one net, in turn on one thread."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_server.engines.base import Engine
from convserve_server.engines.loader import EngineOptions, load_engine

_SIZES = (1, 16, 64)
_PICTURES = 256
#: Of one repetition, s of the thread.
_SPAN_S = 0.02


@dataclass(frozen=True)
class RunTimes:
    """Runs of one size with both.

    Attributes:
        images: of a run.
        first_us: µs of the thread's processor time an image with the first bundle, by repetition.
        second_us: likewise with the second one.
    """

    images: int
    first_us: Sequence[float]
    second_us: Sequence[float]


def run(file: Path, bundle: Bundle, repeats: int, json: Path | None) -> None:
    """Measures the engines of two bundles and prints.

    Args:
        file: the model file of the first.
        bundle: the second.
        repeats: of each size.
        json: a file for all figures; None for no file.

    Raises:
        BenchmarkError: if there is no first one, or it takes other images.
    """
    if not file.is_file():
        raise BenchmarkError(f"--against: expected a model file, got {file}")
    other = Bundle(file)
    if other.shape != bundle.shape:
        raise BenchmarkError(f"--against: expected images {bundle.shape}, got {other.shape}")
    measured = _run_times(other, bundle, repeats)
    on = machine(("convserve", "onnxruntime"))
    about = f"largest difference of a probability: {_difference(other, bundle):.1e}"
    first = heading(on, "one thread", (f"{repeats} repetitions", about))
    print(first, _table(other, bundle, measured), sep="\n\n")
    write_json(json, on, {"model": bundle.model}, runs=measured)


def _run_times(first: Bundle, second: Bundle, repeats: int) -> list[RunTimes]:
    """Measures both in turn."""
    engines = [_engine(one) for one in (first, second)]
    found = []
    for images in _SIZES:
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats):
            for at in (0, 1) if repeat % 2 else (1, 0):
                times[at].append(_us_an_image(engines[at], images))
        found.append(RunTimes(images, *times))
    return found


def _difference(first: Bundle, second: Bundle) -> float:
    """The largest difference of a probability, on random pictures in batches of all sizes."""
    pixels = np.random.default_rng(0).integers(0, 256, (_PICTURES, *first.shape), np.uint8)
    return max(
        float(np.abs(first.probabilities(batch) - second.probabilities(batch)).max())
        for size in _SIZES
        for batch in np.split(pixels, _PICTURES // size)
    )


def _engine(bundle: Bundle) -> Engine:
    return load_engine(bundle.file, EngineOptions("cpu", 1, max(_SIZES)))


def _us_an_image(engine: Engine, images: int) -> float:
    pixels = [np.zeros((images, *engine.image_shape), np.uint8)]
    runs = 0
    started = time.thread_time()
    while (taken := time.thread_time() - started) < _SPAN_S:
        engine.run(pixels)
        runs += 1
    return 1e6 * taken / runs / images


def _table(first: Bundle, second: Bundle, measured: Sequence[RunTimes]) -> str:
    """A row for each size."""
    names = [f"{one.model}/{one.version}" for one in (first, second)]
    header = (
        "images a run",
        *(f"{name}, µs an image, median (least)" for name in names),
        f"{names[0]} to {names[1]}",
    )
    lines = [
        (
            f"{one.images}",
            *(
                f"{statistics.median(us):.1f} ({min(us):.1f})"
                for us in (one.first_us, one.second_us)
            ),
            f"{statistics.median(one.first_us) / statistics.median(one.second_us):.2f}",
        )
        for one in measured
    ]
    return grid(header, lines, ())

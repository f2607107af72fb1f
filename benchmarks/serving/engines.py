"""Measures ONNX Runtime and OpenVINO side by side: CPU time, right answers, differences.

    python -m benchmarks.serving.engines models/mnist
    python -m benchmarks.serving.engines models/cats-dogs --photos cats_dogs --sizes 1,4

Each bundle of float32, and what it becomes in int8, is run by both in one process, in turns, batch
by batch; bfloat16 is OpenVINO's alone. Times are the thread's own, medians of the rounds; ratios
are medians of the rounds' to ONNX Runtime in float32. It needs convserve[openvino]; on a CPU that
is not Intel's, --pretend-intel has the plug-in offer itself all the same.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.command import BenchmarkError, add_run_options, execute, new_parser
from benchmarks.harness.report import heading, machine, matrix_units, write_json
from benchmarks.harness.table import grid
from benchmarks.serving.precision import add_data_options, converted, engine_answers, trained
from convserve_server.engines import openvino
from convserve_server.engines.base import Engine, EngineError, Pixels
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.evaluation.score import Score, score
from tests import intel_cpu

_PACKAGES = ("convserve", "onnxruntime", openvino.PACKAGE)
#: Engine and precision; the first is what the others are compared with.
_WAYS = (
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "int8"),
    ("openvino", "int8"),
)
#: Of one engine and size in a round, s.
_SPAN_S = 0.1


@dataclass(frozen=True)
class Row:
    """One net on one engine in one precision.

    Attributes:
        us: CPU time an image by batch size, of each round.
        ratios: of the speeds to the first row's, by batch size.
    """

    net: str
    engine: str
    precision: str
    score: Score
    largest_difference: float
    mean_difference: float
    us: dict[int, list[float]]
    ratios: dict[int, float]


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.engines", __doc__)
    add_data_options(result)
    result.add_argument(
        "--sizes", metavar="N,N", default="1,8,32,64", help="of batches [default: 1,8,32,64]"
    )
    result.add_argument(
        "--pretend-intel", action="store_true", help="have the plug-in run on another CPU"
    )
    add_run_options(result, rounds=7, measured="engine and size")
    return result


def _us(engine: Engine, images: Pixels) -> float:
    """CPU time an image, µs: of this thread, which alone computes."""
    begun, runs, spent = time.perf_counter(), 0, time.thread_time()
    while time.perf_counter() - begun < _SPAN_S:
        engine.run([images])
        runs += 1
    return (time.thread_time() - spent) / runs / len(images) * 1e6


def _rows(path: Path, arguments: argparse.Namespace, sizes: Sequence[int]) -> list[Row]:
    file, manifest, data = trained(path, arguments)
    with tempfile.TemporaryDirectory() as made:
        bundles = converted(file, manifest, data, Path(made))
        options = EngineOptions("cpu", max_batch=max(sizes), tell=False)
        engines = [
            load_engine(bundles[precision].file, dataclasses.replace(options, engine=name))
            for name, precision in _WAYS
        ]
    us: list[dict[int, list[float]]] = [{size: [] for size in sizes} for _ in engines]
    images = next(data.held_out.batches(range(min(len(data.held_out), max(sizes))), max(sizes)))[0]
    for size in sizes:
        for engine in engines:
            engine.run([images[:size]])
        for _ in range(arguments.rounds):
            for engine, times in zip(engines, us, strict=True):
                times[size].append(_us(engine, images[:size]))
    answers = [engine_answers(engine, data) for engine in engines]
    rows = []
    for (name, stated), times, (found, right) in zip(_WAYS, us, answers, strict=True):
        difference = np.abs(found - answers[0].probabilities)
        ratios = {
            size: statistics.median(a / b for a, b in zip(us[0][size], times[size], strict=True))
            for size in sizes
        }
        largest, mean = float(difference.max()), float(difference.max(axis=1).mean())
        marks = score(found, right)
        rows.append(Row(manifest.name, name, stated, marks, largest, mean, times, ratios))
    return rows


def _table(rows: Sequence[Row], sizes: Sequence[int]) -> str:
    header = ["net", "engine", "precision", "right", "largest difference", "mean difference"]
    header += [f"µs an image, batch {size} (ratio)" for size in sizes]
    lines = []
    for row in rows:
        cells = [row.net, row.engine, row.precision]
        cells.append(f"{row.score.correct:,} of {row.score.total:,}")
        cells += [f"{row.largest_difference:.1e}", f"{row.mean_difference:.1e}"]
        for size in sizes:
            cells.append(f"{statistics.median(row.us[size]):,.1f} ({row.ratios[size]:.2f})")
        lines.append(cells)
    return grid(header, lines, {"net", "engine", "precision"})


def run(arguments: argparse.Namespace) -> None:
    """Load, measure, compare, print.

    Raises:
        BenchmarkError: there is no such bundle, its data cannot be had, or OpenVINO not be used.
    """
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if arguments.pretend_intel and (why := intel_cpu.pretend()):
        raise BenchmarkError(why)
    try:
        openvino.check()
        rows = [row for path in arguments.bundles for row in _rows(path, arguments, sizes)]
    except (EngineError, *USER_ERRORS) as error:
        raise BenchmarkError(str(error)) from error
    on = machine(_PACKAGES)
    about = heading(on, "one thread", (matrix_units(), f"rounds: {arguments.rounds}"))
    print(about, _table(rows, sizes), sep="\n\n")
    write_json(arguments.json, on, {"rounds": arguments.rounds}, rows=rows)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

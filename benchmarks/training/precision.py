"""Measures what each precision changes: probabilities, labels, the file, time on this CPU.

    python -m benchmarks.training.precision models/mnist
    python -m benchmarks.training.precision models/cats-dogs --data cats_dogs

A bundle of float32 is compared, on its held-out pictures, with what publishing makes of it: the
file of float16 as this CPU computes it, and both reduced precisions with the rounding of a GPU
imitated. The time is the processor's, of one thread; each round begins with another file. The table
goes to standard output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import rotated
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_protos.bundle_pb2 import PRECISION_FLOAT16, PRECISION_TENSOR_FLOAT_32
from convserve_trainer.bundles import bundle, evaluate
from convserve_trainer.cli import data_options
from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.export import float16, gpu_rounding, precisions

_PACKAGES = ("convserve", "numpy", "onnx", "onnxruntime")
_SINGLE, _HALF = "float32", "float16"
_TIMED = (_SINGLE, _HALF)


@dataclass(frozen=True)
class Change:
    """What one net makes of the held-out pictures, beside the float32 file."""

    net: str
    file_bytes: int
    largest_difference: float
    other_labels: int
    right: int
    #: Processor time an image, µs, by round; nothing for an imitation.
    cpu_us: Sequence[float]
    #: To float32, median of the rounds; 0 for an imitation.
    ratio: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.precision", __doc__)
    result.add_argument("bundle", metavar="BUNDLE", type=Path, help="a bundle of float32")
    data_options.add(result)
    result.add_argument(
        "--batch", type=whole(1), default=16, metavar="IMAGES",
        help="images a run [default: 16]",
    )  # fmt: skip
    add_run_options(result, rounds=9, measured="file")
    return result


def changes(
    model: onnx.ModelProto, pixels: Pixels, labels: NDArray[np.int64], batch: int, rounds: int
) -> list[Change]:
    """Compares all nets with the first, float32."""
    nets = {
        _SINGLE: model,
        _HALF: float16.convert(model),
        "tf32, imitated": gpu_rounding.imitated(model, PRECISION_TENSOR_FLOAT_32),
        "float16, imitated": gpu_rounding.imitated(model, PRECISION_FLOAT16),
    }
    sessions = {name: _session(net) for name, net in nets.items()}
    rows = {name: _run(session, pixels, batch) for name, session in sessions.items()}
    cpu_us: dict[str, list[float]] = {name: [] for name in nets}
    for round_ in range(rounds):
        for name in rotated(_TIMED, round_):
            before = time.process_time()
            _run(sessions[name], pixels, batch)
            cpu_us[name].append((time.process_time() - before) / len(pixels) * 1e6)
        tell(f"round {round_ + 1}: {len(_TIMED)} files measured")
    single = rows[_SINGLE]
    return [
        Change(
            name,
            net.ByteSize(),
            float(np.abs(rows[name] - single).max()),
            int((rows[name].argmax(axis=1) != single.argmax(axis=1)).sum()),
            int((rows[name].argmax(axis=1) == labels).sum()),
            cpu_us[name],
            statistics.median(
                one / other for one, other in zip(cpu_us[name], cpu_us[_SINGLE], strict=True)
            )
            if cpu_us[name]
            else 0.0,
        )
        for name, net in nets.items()
    ]


def _session(net: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(net.SerializeToString(), options, providers=providers)


def _run(session: Any, pixels: Pixels, batch: int) -> NDArray[np.float32]:
    parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    return np.concatenate([session.run(["probabilities"], {"pixels": part})[0] for part in parts])


def _table(found: Sequence[Change]) -> str:
    header = (
        *("net", "file MiB", "largest difference to float32", "other labels", "right"),
        *("CPU µs an image, median (min..max)", "to float32"),
    )
    lines = []
    for change in found:
        spent = change.cpu_us
        times = ("", "")
        if spent:
            spread = f"{statistics.median(spent):.0f} ({min(spent):.0f}..{max(spent):.0f})"
            times = (spread, f"{change.ratio:.2f}")
        size = f"{change.file_bytes / 2**20:.2f}" if spent else ""
        difference = f"{change.largest_difference:.1e}"
        counts = (f"{change.other_labels}", f"{change.right:,}")
        lines.append((change.net, size, difference, *counts, *times))
    return grid(header, lines, {"net"})


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if there is no such bundle, it is of float16, or the data cannot be had.
    """
    try:
        file, manifest = evaluate.check(arguments.bundle)
        model, _ = bundle.read(file)
        if precisions.read_precision(manifest.precision) == PRECISION_FLOAT16:
            raise BenchmarkError(f"{file} is of float16; publish it with --precision float32")
        held_out = data_options.held_out(arguments, manifest, tell)
        batches = list(held_out.batches(range(len(held_out)), 100))
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    found = changes(model, pixels, labels, arguments.batch, arguments.rounds)
    on = machine(_PACKAGES)
    what = f"{manifest.name}, {len(pixels):,} held-out pictures in batches of {arguments.batch}"
    print(
        heading(on, "everything", (what, f"{arguments.rounds} rounds")), _table(found), sep="\n\n"
    )
    about = {"bundle": str(file), "pictures": len(pixels), "rounds": arguments.rounds}
    write_json(arguments.json, on, about, changes=found)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

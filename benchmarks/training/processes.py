"""Measures a training over several processes of this machine beside the same in one.

    python -m benchmarks.training.processes --data MNIST
    python -m benchmarks.training.processes --data MNIST --processes 4 --images 12800

The lecture's digits by JAX on the CPU, as `convserve-train fit` trains them: one process with all
CPUs, then several that share them and exchange their gradients over the loopback interface. They
take turns. The first epoch, which compiles, is not measured. The table goes to standard output as
Markdown, progress to standard error.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import rotated
from benchmarks.harness.ports import free_port
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.training import runs
from convserve_trainer.host import launcher, user_cache

_PACKAGES = ("convserve", "keras", "jax")
_BATCH = 64


@dataclass(frozen=True)
class ProcessesResult:
    """One number of processes, over all rounds."""

    processes: int
    #: Of a measured epoch, by round.
    epoch_s: Sequence[float]
    steps_an_epoch: int
    #: Steps a second to those of one process in the same round, median.
    ratio: float


def _measure(command: Sequence[str], processes: int) -> float:
    """Trains, and returns the seconds of an epoch.

    Raises:
        BenchmarkError: if the training failed.
    """
    common = os.environ | {"JAX_PLATFORMS": "cpu", launcher.COUNT: str(processes)}
    common[launcher.ADDRESSES] = f"127.0.0.1:{free_port()}"
    with ExitStack() as held:
        others = []
        for number in range(1, processes):
            environment = common | {launcher.NUMBER: str(number)}
            other = subprocess.Popen(
                command, cwd=runs.ROOT, env=environment, stdout=subprocess.DEVNULL
            )
            held.enter_context(other)
            held.callback(other.kill)
            others.append(other)
        seen = runs.watch(command, common | {launcher.NUMBER: "0"})
        for other in others:
            if status := other.wait():
                raise BenchmarkError(f"one of {processes} processes ended with status {status}")
    return seen.epoch_s


def compare(
    data: Path, images: int, epochs: int, counts: Sequence[int], rounds: int
) -> list[ProcessesResult]:
    """Trains in each number of processes, in turn.

    Raises:
        BenchmarkError: if a training failed.
    """
    seen: dict[int, list[float]] = {count: [] for count in counts}
    more = ["--backend", "jax", "--limit", str(images), "--min-accuracy", "0"]
    for round_ in range(rounds):
        for count in rotated(counts, round_):
            with tempfile.TemporaryDirectory() as folder:
                command = runs.ours("digits", data, Path(folder) / "run", 1 + epochs, more)
                seen[count].append(_measure(command, count))
            tell(f"round {round_ + 1}, processes: {count}: {seen[count][-1]:.1f} s an epoch")
    return [
        ProcessesResult(
            count,
            found,
            images // _BATCH,
            statistics.median(
                one / several for one, several in zip(seen[counts[0]], found, strict=True)
            ),
        )
        for count, found in seen.items()
    ]


def _table(results: Sequence[ProcessesResult]) -> str:
    header = ("processes", "s an epoch, median (min..max)", "steps/s", "to one process")
    lines = []
    for result in results:
        median = statistics.median(result.epoch_s)
        lines.append(
            (
                str(result.processes),
                f"{median:.1f} ({min(result.epoch_s):.1f}..{max(result.epoch_s):.1f})",
                f"{result.steps_an_epoch / median:.1f}",
                f"{result.ratio:.2f}",
            )
        )
    return grid(header, lines, set())


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.processes", __doc__)
    result.add_argument(
        "--data", type=Path, metavar="DIR",
        help="folder with MNIST's four files [default: the user's cache]",
    )  # fmt: skip
    result.add_argument(
        "--processes", type=whole(2), default=2, metavar="N",
        help="that are compared with one [default: 2]",
    )  # fmt: skip
    result.add_argument(
        "--images", type=whole(_BATCH), default=100 * _BATCH, metavar="N",
        help=f"of an epoch; batches of {_BATCH} are taken from them [default: %(default)s]",
    )  # fmt: skip
    result.add_argument(
        "--epochs", type=whole(1), default=2, metavar="N",
        help="measured, after one that compiles [default: 2]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="training")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if a training failed, or the batches cannot be divided.
    """
    count, images = arguments.processes, arguments.images
    if _BATCH % count or images % _BATCH:
        raise BenchmarkError(
            f"--processes, --images: expected a divisor and a multiple of {_BATCH}, got {count} "
            f"and {images}"
        )
    data: Path = arguments.data or user_cache.folder("mnist")
    results = compare(data.resolve(), images, arguments.epochs, (1, count), arguments.rounds)
    on = machine(_PACKAGES)
    details = (
        f"rounds: {arguments.rounds}",
        f"measured epochs: {arguments.epochs} of {images:,} images",
    )
    print(heading(on, "all processes of a training", details), _table(results), sep="\n\n")
    write_json(
        arguments.json,
        on,
        {"rounds": arguments.rounds, "epochs": arguments.epochs, "images": images},
        processes=results,
    )


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

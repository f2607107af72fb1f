"""Measures a training over several processes of this machine beside the same in one.

    python -m benchmarks.training.processes --data MNIST
    python -m benchmarks.training.processes --data MNIST --recipe best --images 1280 --epochs 1

Digits by JAX on the CPU, as `convserve-train fit` trains them: one process with all CPUs, then
several that share them and exchange their gradients over the loopback interface. They take turns.
The first epoch, which compiles, is not measured. At the end the weights of all are compared. The
table goes to standard output as Markdown, progress to standard error.
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
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

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
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.host import launcher, user_cache
from convserve_trainer.nets import keras_backend
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_folder
from convserve_trainer.runs.history import read_csv

_PACKAGES = ("convserve", "keras", "jax")
Weights: TypeAlias = list[npt.NDArray[np.float32]]


class Seen(NamedTuple):
    """Of one training."""

    epoch_s: float
    weights: Weights
    #: Of the last epoch, nats.
    loss: float


@dataclass(frozen=True)
class ProcessesResult:
    """One number of processes, over all rounds."""

    processes: int
    #: Of a measured epoch, by round.
    epoch_s: Sequence[float]
    steps_an_epoch: int
    #: Steps a second to those of one process in the same round, median.
    ratio: float
    #: Of any weight, and of the last epoch's loss, from those of one process; the largest.
    weights_differ: float
    loss_differs: float


def _measure(command: Sequence[str], run: Path, processes: int) -> Seen:
    """Trains, and returns what was seen.

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
        watched = runs.watch(command, common | {launcher.NUMBER: "0"})
        for other in others:
            if status := other.wait():
                raise BenchmarkError(f"one of {processes} processes ended with status {status}")
    from convserve_trainer.nets import augmentation, normalization  # noqa: F401 - their layers

    newest = run_folder.file_of(run, run_folder.found(run)[0])
    model = keras_backend.load().saving.load_model(newest, compile=False)
    loss = read_csv((run / "history.csv").read_text())[-1].loss
    return Seen(watched.epoch_s, model.get_weights(), loss)


def _difference(one: Weights, other: Weights) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def compare(
    recipe: Recipe, data: Path, epochs: int, counts: Sequence[int], rounds: int
) -> list[ProcessesResult]:
    """Trains in each number of processes, in turn.

    Args:
        recipe: with a limit.
        data: folder of MNIST.
        epochs: measured, after one that is not.
        counts: of processes, the first one is 1.
        rounds: how often.

    Raises:
        BenchmarkError: if a training failed.
    """
    seen: dict[int, list[Seen]] = {count: [] for count in counts}
    more = ["--backend", "jax", "--recipe", recipe.name, "--limit", f"{recipe.limit}"]
    more += ["--min-accuracy", "0"]
    for round_ in range(rounds):
        for count in rotated(counts, round_):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                command = runs.ours("digits", data, run, 1 + epochs, more)
                seen[count].append(_measure(command, run, count))
            took = seen[count][-1].epoch_s
            tell(f"round {round_ + 1}, processes: {count}: {took:.1f} s an epoch")
    results = []
    for count, found in seen.items():
        pairs = list(zip(seen[counts[0]], found, strict=True))
        results.append(
            ProcessesResult(
                count,
                [one.epoch_s for one in found],
                (recipe.limit or 0) // recipe.batch_size,
                statistics.median(one.epoch_s / several.epoch_s for one, several in pairs),
                max(_difference(one.weights, several.weights) for one, several in pairs),
                max(abs(one.loss - several.loss) for one, several in pairs),
            )
        )
    return results


def _table(results: Sequence[ProcessesResult]) -> str:
    header = (
        *("processes", "s an epoch, median (min..max)", "steps/s", "to one process"),
        *("largest difference of a weight", "of the loss"),
    )
    lines = []
    for result in results:
        median = statistics.median(result.epoch_s)
        lines.append(
            (
                str(result.processes),
                f"{median:.1f} ({min(result.epoch_s):.1f}..{max(result.epoch_s):.1f})",
                f"{result.steps_an_epoch / median:.1f}",
                f"{result.ratio:.2f}",
                f"{result.weights_differ:.0e}",
                f"{result.loss_differs:.0e}",
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
        "--recipe", default="lecture", metavar="NAME",
        help="of digits [default: lecture]",
    )  # fmt: skip
    result.add_argument(
        "--images", type=whole(1), default=6400, metavar="N",
        help="of an epoch, a multiple of the recipe's batch [default: 6400]",
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
    try:
        recipe = recipe_files.find(arguments.recipe, "digits").override(limit=images)
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error
    batch = recipe.batch_size
    if batch % count or images % batch:
        raise BenchmarkError(
            f"--processes, --images: expected a divisor and a multiple of {batch}, got {count} and "
            f"{images}"
        )
    data: Path = arguments.data or user_cache.folder("mnist")
    results = compare(recipe, data.resolve(), arguments.epochs, (1, count), arguments.rounds)
    on = machine(_PACKAGES)
    steps = images // batch * (1 + arguments.epochs)
    details = (
        f"digits/{recipe.name}, batches of {batch}",
        f"rounds: {arguments.rounds}",
        f"measured epochs: {arguments.epochs} of {images:,} images",
        f"weights after {steps} steps",
    )
    print(heading(on, "all processes of a training", details), _table(results), sep="\n\n")
    write_json(
        arguments.json,
        on,
        {
            "recipe": recipe.name,
            "rounds": arguments.rounds,
            "epochs": arguments.epochs,
            "images": images,
        },
        processes=results,
    )


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

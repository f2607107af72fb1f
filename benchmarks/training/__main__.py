"""Measures the lecture's trainings beside the same written in plain Keras.

    python -m benchmarks.training --data MNIST
    python -m benchmarks.training --data MNIST --photos cats_dogs --rounds 5

Each training is a process of its own: `convserve-train fit`, with its checkpoints, its progress and
its deterministic kernels, and a script of model.fit with Keras's defaults. They take turns, each
round begins with the other. The first epoch warms up and is not measured. The tables go to
standard output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
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
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.training import runs, step_time_breakdown
from convserve_trainer.datasets import mnist
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.host import user_cache

_PACKAGES = ("convserve", "keras", "tensorflow")
_PHOTOS_A_STEP, _DIGITS_AN_EPOCH, _DIGITS_A_STEP = 20, 60_000, 64
KERAS, OURS = "model.fit", "convserve-train"


@dataclass(frozen=True)
class TrainerResult:
    """One way to train, over all rounds."""

    recipe: str
    name: str
    #: Of a measured epoch, by round.
    epoch_s: Sequence[float]
    #: From the start of the process to its end, by round.
    whole_s: Sequence[float]
    accuracy: Sequence[float]
    images_an_epoch: int
    steps_an_epoch: int
    #: Of an epoch's time to that of model.fit in the same round, median.
    ratio: float
    #: Share of a step that waits for pictures; None where it is not known.
    input_share: float | None


@dataclass(frozen=True)
class Comparison:
    """What is trained in both ways.

    Args:
        keras: command of the script.
        ours: command of ours, in the folder of a run.
    """

    recipe: str
    images_an_epoch: int
    steps_an_epoch: int
    keras: Sequence[str]
    ours: Callable[[Path], Sequence[str]]


def compare(task: Comparison, rounds: int) -> list[TrainerResult]:
    """Trains in both ways, in turn.

    Raises:
        BenchmarkError: if a training failed.
    """
    seen: dict[str, list[runs.TrainingRun]] = {KERAS: [], OURS: []}
    shares = []
    for round_ in range(rounds):
        for name in rotated((KERAS, OURS), round_):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                command = task.keras if name == KERAS else task.ours(run)
                seen[name].append(runs.watch(command))
                if name == OURS:
                    shares.append(runs.input_share(run))
            tell(f"{task.recipe}, round {round_ + 1}, {name}: {seen[name][-1].epoch_s:.1f} s")
    return [
        TrainerResult(
            task.recipe,
            name,
            [one.epoch_s for one in found],
            [one.whole_s for one in found],
            [one.accuracy for one in found],
            task.images_an_epoch,
            task.steps_an_epoch,
            statistics.median(
                one.epoch_s / other.epoch_s for one, other in zip(found, seen[KERAS], strict=True)
            ),
            statistics.median(shares) if name == OURS else None,
        )
        for name, found in seen.items()
    ]


def _tasks(arguments: argparse.Namespace) -> list[Comparison]:
    """The recipes that were asked for.

    Raises:
        BenchmarkError: if their data are not there.
    """
    epochs = 1 + arguments.epochs
    try:
        mnist.load(arguments.data, tell)
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error
    folder = _digits(arguments)
    steps = -(-_DIGITS_AN_EPOCH // _DIGITS_A_STEP)
    digits = Comparison(
        "digits",
        _DIGITS_AN_EPOCH,
        steps,
        runs.keras("keras_digits.py", folder, epochs),
        lambda run: runs.ours("digits", folder, run, epochs, ["--min-accuracy", "0"]),
    )
    if arguments.photos is None:
        return [digits]
    photos = arguments.photos.resolve()
    if not (photos / "train").is_dir():
        raise BenchmarkError(f"--photos: there is no folder {photos / 'train'}")
    steps = arguments.photo_steps
    more = ["--steps", str(steps), "--validation-steps", "1", "--min-accuracy", "0"]
    more += ["--cache", "none"]
    return [
        digits,
        Comparison(
            "photographs",
            steps * _PHOTOS_A_STEP,
            steps,
            runs.keras("keras_photos.py", photos, epochs, steps),
            lambda run: runs.ours("photos", photos, run, epochs, more),
        ),
    ]


def _digits(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.data or user_cache.folder("mnist")
    return folder.resolve()


def _table(sides: Sequence[TrainerResult]) -> str:
    header = (
        *("recipe", "trained by", "s an epoch, median (min..max)", "ms a step", "images/s"),
        *("to model.fit", "input's share", "process, s", "accuracy, median (min..max)"),
    )
    lines = []
    for side in sides:
        median = statistics.median(side.epoch_s)
        accuracy = side.accuracy
        share = "" if side.input_share is None else f"{side.input_share:.1%}"
        lines.append(
            (
                side.recipe,
                side.name,
                f"{median:.1f} ({min(side.epoch_s):.1f}..{max(side.epoch_s):.1f})",
                f"{median / side.steps_an_epoch * 1e3:.1f}",
                f"{side.images_an_epoch / median:,.0f}",
                f"{side.ratio:.2f}",
                share,
                f"{statistics.median(side.whole_s):.0f}",
                f"{statistics.median(accuracy):.4f} ({min(accuracy):.4f}..{max(accuracy):.4f})",
            )
        )
    return grid(header, lines, {"recipe", "trained by"})


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training", __doc__)
    result.add_argument(
        "--data", type=Path, metavar="DIR",
        help="folder with MNIST's four files [default: the user's cache]",
    )  # fmt: skip
    result.add_argument(
        "--photos", type=Path, metavar="DIR",
        help="folder with train and validation, two classes; without it digits alone",
    )  # fmt: skip
    result.add_argument(
        "--epochs", type=whole(1), default=1, metavar="N",
        help="measured, after one that warms up [default: 1]",
    )  # fmt: skip
    result.add_argument(
        "--photo-steps", type=whole(2), default=50, metavar="N",
        help="of an epoch of photographs [default: 50]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="training")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if a training failed, or its data are not there.
    """
    tasks = _tasks(arguments)
    sides = [side for task in tasks for side in compare(task, arguments.rounds)]
    parts = step_time_breakdown.measured(_digits(arguments))
    on = machine(_PACKAGES)
    details = (f"rounds: {arguments.rounds}", f"measured epochs: {arguments.epochs}")
    print(heading(on, "one training at a time", details), _table(sides), sep="\n\n")
    print()
    print(step_time_breakdown.table(parts))
    about = {"rounds": arguments.rounds, "epochs": arguments.epochs}
    write_json(arguments.json, on, about, sides=sides, parts=parts)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures how many epochs a net saves that starts from one which tells other classes apart.

    python -m benchmarks.training.start_from --data mnist

A net learns to tell 4 from 9, by all digits of these classes in MNIST. Then the recipe
start_from.toml beside this file is trained on 40 pictures each of five other digits, 0, 3, 5, 6 and
8: from drawn weights, from the first net's, and from these with the first epochs frozen. After each
epoch all held-out digits of the five classes are asked; they show the curve, and choose no setting.
Each training is the command convserve-train fit. The same seed draws the 40 pictures, the weights
and the order, for all three; the table has means, lowest and highest of the seeds.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness.command import BenchmarkError, add_run_options, execute, new_parser, tell
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_imaging import idx
from convserve_trainer.datasets import mnist
from convserve_trainer.errors import DataError

RECIPE = Path(__file__).with_name("start_from.toml")
TWO, FIVE = (4, 9), (0, 3, 5, 6, 8)
LEVELS = (0.80, 0.90, 0.95)  # accuracies whose first epoch is looked for
FROZEN = 3  # epochs
_PACKAGES = ("convserve", "keras", "tensorflow")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Curve:
    """One training on the five classes."""

    start: str
    seed: int
    #: On all held-out digits of the five classes, after each epoch, 0 to 1.
    accuracies: Sequence[float]

    def reached(self, level: float) -> int | None:
        """Returns after how many epochs the accuracy was that or more; None for never."""
        found = (n for n, accuracy in enumerate(self.accuracies, 1) if accuracy >= level)
        return next(found, None)


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.start_from", __doc__)
    result.add_argument(
        "--data", metavar="DIR", type=Path, help="folder of MNIST [default: as fit digits has it]"
    )
    result.add_argument(
        "--each", type=int, default=40, metavar="N",
        help="pictures of each of the five classes to train on [default: 40]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="start, each with another seed")
    return result


def write_part(
    folder: Path, part: str, images: Pixels, labels: Pixels, classes: Sequence[int]
) -> None:
    """Writes a part of a data set with these classes only, numbered from 0, as IDX files."""
    wanted = np.isin(labels, classes)
    numbers = np.searchsorted(classes, labels[wanted]).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images[wanted][..., 0]), ("labels-idx1", numbers)):
        content = idx.header(array.shape) + array.tobytes()
        (folder / f"{part}-{kind}-ubyte").write_bytes(content)


def drawn(labels: Pixels, classes: Sequence[int], each: int, seed: int) -> list[int]:
    """Returns the numbers of so many pictures of each class."""
    generator = np.random.default_rng(seed)
    picked = [generator.permutation(np.flatnonzero(labels == one))[:each] for one in classes]
    return sorted(int(number) for numbers in picked for number in numbers)


def fit(folder: Path, name: str, seed: int, *more: str) -> list[float]:
    """Trains on the data set of that name, and publishes in `folder`/models as the same name.

    Returns:
        The accuracy on held-out digits after each epoch, 0 to 1.

    Raises:
        BenchmarkError: the training failed.
    """
    command = [
        *(sys.executable, "-m", "convserve_trainer.main", "fit", "digits"),
        *("--data", str(folder / name), "--recipe", str(RECIPE), "--seed", str(seed)),
        *("--models", str(folder / "models"), *more),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    versions = (folder / "models" / name).iterdir()
    newest = max(versions, key=lambda version: int(version.name))
    with (newest / "history.csv").open(newline="") as file:
        return [float(row["val_accuracy"]) for row in csv.DictReader(file)]


def curves(data: mnist.Dataset, each: int, seeds: int, folder: Path) -> list[Curve]:
    """Returns the curves of all starts and seeds."""
    for part, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("t10k", data.test_images, data.test_labels),
    ):
        write_part(folder / "two", part, images, labels, TWO)
    last = fit(folder, "two", 1, "--epochs", "3")[-1]
    tell(f"a net tells {TWO[0]} from {TWO[1]}: {last:.4f} of the held-out ones")
    from_two = ("--start-from", str(folder / "models" / "two"))
    starts: dict[str, tuple[str, ...]] = {
        "drawn weights": (),
        f"net of {TWO[0]} and {TWO[1]}": from_two,
        f"the same, frozen for {FROZEN} epochs": (*from_two, "--freeze-epochs", str(FROZEN)),
    }
    found = []
    for seed in range(1, seeds + 1):
        some = drawn(data.train_labels, FIVE, each, seed)
        name = f"five-{seed}"
        write_part(folder / name, "train", data.train_images[some], data.train_labels[some], FIVE)
        write_part(folder / name, "t10k", data.test_images, data.test_labels, FIVE)
        for start, more in starts.items():
            found.append(Curve(start, seed, fit(folder, name, seed, *more)))
            tell(f"seed {seed}, {start}: {found[-1].accuracies[-1]:.4f}")
    return found


def row(start: str, found: Sequence[Curve]) -> list[str]:
    """Returns a row of the table."""
    cells = [start]
    for level in LEVELS:
        epochs = [curve.reached(level) for curve in found]
        reached = [number for number in epochs if number is not None]
        if len(reached) < len(epochs):
            cells.append(f"{len(reached)} of {len(epochs)} seeds reach it")
        else:
            cells.append(f"{statistics.mean(reached):.1f} ({min(reached)} to {max(reached)})")
    for at in (0, -1):
        shares = [100 * curve.accuracies[at] for curve in found]
        cells.append(f"{statistics.mean(shares):.1f} ({min(shares):.1f} to {max(shares):.1f})")
    return cells


def run(arguments: argparse.Namespace) -> None:
    """Trains all, and prints the table."""
    try:
        data = mnist.load(arguments.data)
    except DataError as error:
        raise BenchmarkError(f"MNIST: {error}") from error
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        found = curves(data, arguments.each, arguments.rounds, Path(folder))
    on = machine(_PACKAGES)
    details = (
        f"{arguments.each} pictures each of {', '.join(map(str, FIVE))}",
        f"{arguments.rounds} seeds",
    )
    print(heading(on, "one training at a time", details), "\n")
    header = ["start", *(f"epochs to {level:.0%}" for level in LEVELS)]
    header += ["right of 100 after epoch 1", "after the last epoch"]
    starts = list(dict.fromkeys(curve.start for curve in found))
    rows = [row(start, [curve for curve in found if curve.start == start]) for start in starts]
    print(grid(header, rows, header[:1]))
    write_json(arguments.json, on, {"each": arguments.each}, curves=found)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

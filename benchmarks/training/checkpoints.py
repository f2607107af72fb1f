"""Measures what a checkpoint of a training costs: how long it pauses, and the file.

    python -m benchmarks.training.checkpoints

The nets of the lecture's two recipes, each with an optimizer that has made a step, are written as a
training writes them: beside, flushed, renamed. The table goes to standard output as Markdown,
progress to standard error.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.command import add_run_options, execute, new_parser, tell
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import checkpoint, run_key
from convserve_trainer.runs.run_key import CHECKPOINT_SECONDS
from convserve_trainer.runs.training_state import Training

LECTURE = recipe_files.find("lecture", "digits")
PHOTO_LECTURE = recipe_files.find("lecture", "photos")

_PACKAGES = ("convserve", "keras", "tensorflow")
#: Recipe, one image [H, W, C], classes.
_NETS = {
    "digits": (LECTURE, (28, 28, 1), 10),
    "photographs": (PHOTO_LECTURE, (150, 150, 3), 2),
}


@dataclass(frozen=True)
class Cost:
    """Of one net's checkpoint."""

    net: str
    parameters: int
    file_bytes: int
    #: By round.
    seconds: Sequence[float]


def _training(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> Training:
    """One that has made a step on nothing: its optimizer has what it will have."""
    height, width, channels = shape
    spec = InputSpec(height=height, width=width, channels=channels)
    model = models.build(recipe, spec, classes, 60_000)
    columns = model.output_shape[-1]
    model.train_on_batch(np.zeros((1, *shape), np.uint8), np.zeros((1, columns), np.float32))
    return Training(model)


def _cost(net: str, folder: Path, rounds: int) -> Cost:
    recipe, shape, classes = _NETS[net]
    training = _training(recipe, shape, classes)
    settings = run_key.make_run_key(recipe, "0" * 64)
    path = folder / f"{net}.keras"
    seconds = []
    checkpoint.save(training, settings, path)  # the first one imports what the others have
    for _ in range(rounds):
        started = time.perf_counter()
        checkpoint.save(training, settings, path)
        seconds.append(time.perf_counter() - started)
    tell(f"{net}: {rounds} rounds measured")
    return Cost(net, training.model.count_params(), path.stat().st_size, seconds)


def _table(costs: Sequence[Cost]) -> str:
    share = f"share of the time, one in {CHECKPOINT_SECONDS:g} s"
    header = ("net", "parameters", "MB", "ms, median (min..max)", share)
    lines = []
    for cost in costs:
        median = statistics.median(cost.seconds)
        least, most = min(cost.seconds) * 1e3, max(cost.seconds) * 1e3
        lines.append(
            (
                cost.net,
                f"{cost.parameters:,}",
                f"{cost.file_bytes / 1e6:.1f}",
                f"{median * 1e3:.0f} ({least:.0f}..{most:.0f})",
                f"{median / CHECKPOINT_SECONDS:.2%}",
            )
        )
    return grid(header, lines, {"net"})


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.checkpoints", __doc__)
    result.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="of the disk that is written to [default: that of temporary files]",
    )  # fmt: skip
    add_run_options(result, rounds=9, measured="checkpoint")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        OSError: if the disk refuses.
    """
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        costs = [_cost(net, Path(folder), arguments.rounds) for net in _NETS]
    on = machine(_PACKAGES)
    details = (f"rounds: {arguments.rounds}",)
    print(heading(on, "everything", details), _table(costs), sep="\n\n")
    write_json(arguments.json, on, {"rounds": arguments.rounds}, costs=costs)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

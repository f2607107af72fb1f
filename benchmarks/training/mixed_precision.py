"""Measures a step of training in bfloat16 beside one in float32: the shipped recipes.

    python -m benchmarks.training.mixed_precision --digits MNIST --photos cats_dogs

The recipes `lecture` and `best` of both tasks, as they are and with `mixed_precision`, in turn;
pictures are in memory, and the first steps warm up and are not measured. The table goes to standard
output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
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
from benchmarks.harness.report import heading, machine, matrix_units, write_json
from benchmarks.harness.table import grid
from benchmarks.training import input_share
from convserve_trainer.datasets import registry
from convserve_trainer.datasets.pictures import Data, Source
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe

_PACKAGES = ("convserve", "keras", "tensorflow")
RECIPES = ("lecture", "best")
PICTURES = 2_000  # of which batches are made


@dataclass(frozen=True)
class Step:
    """How long a step of a recipe takes.

    Attributes:
        task: of the recipe.
        recipe: its name.
        float32_ms: mean time of a step, by round.
        mixed_ms: likewise, with `mixed_precision`.
    """

    task: str
    recipe: str
    float32_ms: Sequence[float]
    mixed_ms: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Time in float32 to that with mixed precision, by round."""
        return [before / now for before, now in zip(self.float32_ms, self.mixed_ms, strict=True)]


def measured(task: str, name: str, folder: Path, rounds: int, steps: int) -> Step:
    """Makes steps of a recipe in both ways, in turn.

    Args:
        task: of the recipe.
        name: of it.
        folder: of the task's data set.
        rounds: of each way.
        steps: of a round.

    Raises:
        TrainerError: the pictures are not as they should be.
    """
    recipe = recipe_files.find(name, task)
    data = _load(recipe, folder)
    recipe = recipe.for_classes(len(data.labels))
    found: dict[bool, list[float]] = {False: [], True: []}
    for round_ in range(rounds):
        for mixed in rotated((False, True), round_):
            changed = recipe.override(mixed_precision=mixed)
            step_ms, _ = input_share.train(changed, data, round_, steps)
            found[mixed].append(step_ms)
            tell(f"{task}/{name}, mixed precision: {mixed}, {step_ms:.1f} ms a step")
    return Step(task, name, found[False], found[True])


def _load(recipe: Recipe, folder: Path) -> Data:
    task = registry.find_task(recipe.task)
    source = Source(folder, recipe.height, recipe.width, channels=recipe.channels)
    return registry.find_format(task, folder).reader.load(source, PICTURES, tell)


def _table(seen: Sequence[Step]) -> str:
    header = ("recipe", "float32, ms a step", "bfloat16, ms a step", "times as fast (min..max)")
    lines = [
        (
            f"{each.task}/{each.recipe}",
            f"{statistics.median(each.float32_ms):.1f}",
            f"{statistics.median(each.mixed_ms):.1f}",
            f"{statistics.median(each.ratios):.2f} "
            f"({min(each.ratios):.2f}..{max(each.ratios):.2f})",
        )
        for each in seen
    ]
    return grid(header, lines, {"recipe"})


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.mixed_precision", __doc__)
    for task, of_what in (("digits", "with MNIST"), ("photos", "with train and validation")):
        result.add_argument(
            f"--{task}", type=Path, metavar="DIR", help=f"folder {of_what} [default: not measured]"
        )
    result.add_argument(
        "--steps", type=whole(1), default=40, metavar="N", help="of a round [default: 40]"
    )
    add_run_options(result, rounds=5, measured="recipe in float32 and in bfloat16")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: no data are named, or they are not as they should be.
    """
    folders = {task: getattr(arguments, task) for task in recipe_files.TASKS}
    folders = {task: folder.resolve() for task, folder in folders.items() if folder}
    if not folders:
        raise BenchmarkError("--digits, --photos: expected a folder of one at least, got none")
    try:
        seen = [
            measured(task, name, folder, arguments.rounds, arguments.steps)
            for task, folder in folders.items()
            for name in RECIPES
        ]
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error
    on = machine(_PACKAGES)
    details = (matrix_units(), f"rounds: {arguments.rounds}", f"steps: {arguments.steps}")
    print(heading(on, "one training at a time", details), _table(seen), sep="\n\n")
    about = {"rounds": arguments.rounds, "steps": arguments.steps}
    write_json(arguments.json, on, about, steps=seen)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures how much of a training step waits for pictures: the nets for photographs, each cache.

    python -m benchmarks.training.input_share --photos cats_dogs
    python -m benchmarks.training.input_share --photos cats_dogs --mixed-precision

The lecture's recipe and `best`, each without augmentation and with that of `best`, each with every
value of `--cache`: steps as a training makes them, whose first ones warm up and are not measured.
Augmentation is a part of the net's step; decoding, reading and copying are input. The table goes to
standard output as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from os import environ
from pathlib import Path

import msgspec

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
from convserve_trainer.datasets import photos
from convserve_trainer.datasets.photo_cache import MODES
from convserve_trainer.datasets.pictures import Data, Source
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.fitting import chunks, order
from convserve_trainer.fitting.backend_steps import make_steps
from convserve_trainer.fitting.fit import arrays
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.recipes.recipe import Recipe

_PACKAGES = ("convserve", "keras", "tensorflow")
RECIPES = ("lecture", "best")


WARM_UP = 3  # steps: the first one traces the net


@dataclass(frozen=True)
class Share:
    """What a step waits for pictures, over all rounds.

    Attributes:
        recipe: its name.
        augmented: whether pictures are changed at random.
        cache: where pixels are kept.
        step_ms: mean time of a step, by round.
        share: of that, 0 to 1, in which the net waits, by round.
    """

    recipe: str
    augmented: bool
    cache: str
    step_ms: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)


def measured(folder: Path, rounds: int, steps: int, mixed_precision: bool = False) -> list[Share]:
    """Trains with each recipe and augmentation; in each round with all caches, in turn.

    Args:
        folder: with train and validation.
        rounds: of each.
        steps: of a round.
        mixed_precision: whether layers compute in bfloat16.

    Raises:
        TrainerError: the photographs are not as they should be.
    """
    found: list[Share] = []
    for name in RECIPES:
        recipe = recipe_files.find(name, "photos").override(mixed_precision=mixed_precision)
        assert recipe.height is not None
        assert recipe.width is not None
        source = Source(folder, recipe.height, recipe.width)
        sets = {mode: photos.load(replace(source, cache=mode), None, tell) for mode in MODES}
        for augmented in (False, True):
            seen = {mode: Share(name, augmented, mode) for mode in MODES}
            changed = augmentation(recipe.for_classes(len(sets["none"].labels)), augmented)
            for round_, (mode, data) in rotations(sets, rounds):
                step_ms, share = train(changed, data, round_, steps)
                seen[mode].step_ms.append(step_ms)
                seen[mode].share.append(share)
                tell(f"{name}, augmented: {augmented}, --cache {mode}: {share:.1%}")
            found += seen.values()
    return found


def augmentation(recipe: Recipe, augmented: bool) -> Recipe:
    """Returns the recipe with the augmentation of `best`, or with none."""
    best = recipe_files.find("best", "photos").augmentation
    return msgspec.structs.replace(recipe, augmentation=best if augmented else Augmentation())


def rotations(sets: Mapping[str, Data], rounds: int) -> Iterator[tuple[int, tuple[str, Data]]]:
    """Yields all sets in each round, each round beginning with another one."""
    for round_ in range(rounds):
        yield from ((round_, each) for each in rotated(tuple(sets.items()), round_))


def train(recipe: Recipe, data: Data, epoch: int, steps: int) -> tuple[float, float]:
    """Makes steps of a new net; returns the mean time of one, ms, and the share of waiting.

    Args:
        recipe: for the classes of the data.
        data: to train on.
        epoch: whose order of pictures is used.
        steps: measured after WARM_UP others.
    """
    model = models.build(recipe, data.spec, len(data.labels), len(data.train))
    # As in a training: pictures in memory cost nothing, others are read beside the steps.
    chunker = chunks.StepChunker() if data.train.in_memory else chunks.StepChunker(1)
    made = make_steps(model, chunker)
    count = len(data.train)
    numbers = order.epoch_order(count, recipe.batch_size, WARM_UP + steps, recipe.seed, epoch)
    batches = data.train.batches(numbers, recipe.batch_size, WARM_UP + steps)
    waited_s = 0.0
    with closing(batches):
        for chunk in chunks.make_chunks(islice(batches, WARM_UP), chunker):
            made.train([arrays(model, batch) for batch in chunk])
        begun = asked = time.perf_counter()
        for chunk in chunks.make_chunks(batches, chunker):
            waited_s += time.perf_counter() - asked
            made.train([arrays(model, batch) for batch in chunk])
            asked = time.perf_counter()
        whole_s = time.perf_counter() - begun
    return whole_s / steps * 1e3, waited_s / whole_s


def _table(seen: Sequence[Share]) -> str:
    header = ("recipe", "augmentation", "--cache", "ms a step", "input's share, median (min..max)")
    lines = [
        (
            *(each.recipe, "that of best" if each.augmented else "none", each.cache),
            f"{statistics.median(each.step_ms):.0f}",
            f"{statistics.median(each.share):.1%} ({min(each.share):.1%}..{max(each.share):.1%})",
        )
        for each in seen
    ]
    return grid(header, lines, {"recipe", "augmentation", "--cache"})


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.input_share", __doc__)
    result.add_argument(
        "--photos", type=Path, metavar="DIR", required=True,
        help="folder with train and validation",
    )  # fmt: skip
    result.add_argument(
        "--steps", type=whole(1), default=60, metavar="N", help="of a round [default: 60]"
    )
    result.add_argument(
        "--mixed-precision", action="store_true", help="layers compute in bfloat16, as of fit"
    )
    add_run_options(result, rounds=3, measured="recipe, augmentation and cache")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if a training failed, or its data are not there.
    """
    folder = arguments.photos.resolve()
    with tempfile.TemporaryDirectory() as cache:
        environ["XDG_CACHE_HOME"] = cache
        try:
            mixed = arguments.mixed_precision
            seen = measured(folder, arguments.rounds, arguments.steps, mixed)
        except USER_ERRORS as error:
            raise BenchmarkError(str(error)) from error
    on = machine(_PACKAGES)
    precision = "mixed precision" if mixed else "float32"
    details = (f"rounds: {arguments.rounds}", f"steps: {arguments.steps}", precision)
    print(heading(on, "one training at a time", details), _table(seen), sep="\n\n")
    about = {"rounds": arguments.rounds, "steps": arguments.steps, "mixed_precision": mixed}
    write_json(arguments.json, on, about, shares=seen)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures how much of a training step waits for pictures: the nets for photographs, each cache.

    python -m benchmarks.training.input_share --photos cats_dogs

The lecture's recipe and `best`, each without augmentation and with that of `best`, each with every
value of `--cache`. Augmentation is a part of the net's step; decoding, reading and
copying are input. The first epoch warms up and is not measured. The table goes to standard output
as Markdown, progress to standard error.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path

from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.training import runs
from convserve_trainer.datasets.photo_cache import MODES
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Augmentation
from convserve_trainer.runs.history import read_csv

_PACKAGES = ("convserve", "keras", "tensorflow")
RECIPES = ("lecture", "best")


@dataclass(frozen=True)
class Share:
    """What a step waits for pictures, over all rounds.

    Attributes:
        recipe: its name.
        augmented: whether pictures are changed at random.
        cache: where pixels are kept.
        step_ms: mean time of a step after the first epoch, by round, with the validation's.
        share: of that, 0 to 1, in which the net waits, by round.
    """

    recipe: str
    augmented: bool
    cache: str
    step_ms: Sequence[float]
    share: Sequence[float]


def options(augmented: bool) -> list[str]:
    """Returns the options that give a recipe the augmentation of `best`, or none."""
    values = asdict(
        recipe_files.find("best", "photos").augmentation if augmented else Augmentation()
    )
    return [
        word
        for name, value in values.items()
        for word in ("--set", f"augmentation.{name}={_written(value)}")
    ]


def measured(photos: Path, rounds: int, epochs: int, steps: int) -> Iterator[Share]:
    """Trains with each recipe, augmentation and cache, the rounds of each in a row.

    Raises:
        BenchmarkError: a training failed.
    """
    for recipe in RECIPES:
        for augmented in (False, True):
            for cache in MODES:
                more = ["--recipe", recipe, "--cache", cache, *options(augmented)]
                more += ["--steps", str(steps), "--validation-steps", "1", "--min-accuracy", "0"]
                step_ms, shares = [], []
                for _ in range(rounds):
                    with tempfile.TemporaryDirectory() as scratch:
                        run = Path(scratch) / "run"
                        command = runs.ours("photos", photos, run, 1 + epochs, more)
                        runs.watch(command, {**environ, "XDG_CACHE_HOME": scratch})
                        _, *later = read_csv((run / "history.csv").read_text())
                        seconds = sum(epoch.seconds for epoch in later)
                        step_ms.append(seconds / len(later) / steps * 1e3)
                        shares.append(runs.input_share(run))
                tell(f"{recipe}, augmented: {augmented}, --cache {cache}: {shares[-1]:.1%}")
                yield Share(recipe, augmented, cache, step_ms, shares)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        "--epochs", type=whole(1), default=1, metavar="N",
        help="measured, after one that warms up [default: 1]",
    )  # fmt: skip
    result.add_argument(
        "--steps", type=whole(1), default=60, metavar="N", help="of an epoch [default: 60]"
    )
    add_run_options(result, rounds=3, measured="recipe, augmentation and cache")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if a training failed, or its data are not there.
    """
    photos = arguments.photos.resolve()
    if not (photos / "train").is_dir():
        raise BenchmarkError(f"--photos: there is no folder {photos / 'train'}")
    seen = list(measured(photos, arguments.rounds, arguments.epochs, arguments.steps))
    on = machine(_PACKAGES)
    details = (f"rounds: {arguments.rounds}", f"measured epochs: {arguments.epochs}")
    print(heading(on, "one training at a time", details), _table(seen), sep="\n\n")
    about = {"rounds": arguments.rounds, "epochs": arguments.epochs, "steps": arguments.steps}
    write_json(arguments.json, on, about, shares=seen)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

"""Measures the trials by which the recipes `best` are chosen, and the chosen ones on the test set.

    python -m benchmarks.best digits --data MNIST
    python -m benchmarks.best digits --only levels --seeds 3
    python -m benchmarks.best digits --test --seeds 10
    python -m benchmarks.best photos --data cats_dogs
    python -m benchmarks.best digits --show
    python -m benchmarks.best digits --together

Trials are in benchmarks/best/TASK.toml; each is trained by the trainer's own steps and judged by a
share of the training pictures, which no trial is trained on. Results go to benchmarks/best/
TASK.jsonl, one line each, and those that are there are not trained again. A command that is stopped
or killed, given again, goes on within the training. The tables are those of docs/study.md.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.best import results, together, training, trials
from benchmarks.best.results import Result
from benchmarks.best.trials import Study, Trial
from benchmarks.harness.command import BenchmarkError, execute, new_parser, tell, whole
from convserve_trainer.datasets import registry
from convserve_trainer.datasets.pictures import Data, Source
from convserve_trainer.errors import USER_ERRORS
from convserve_trainer.host import user_cache
from convserve_trainer.recipes import recipe_files


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.best", __doc__)
    result.add_argument("task", choices=recipe_files.TASKS, help="whose trials")
    result.add_argument(
        "--data", type=Path, metavar="DIR",
        help="folder of the data set; photos need one [default: the user's cache of MNIST]",
    )  # fmt: skip
    result.add_argument("--only", metavar="NAME", help="one trial [default: all, in their order]")
    result.add_argument(
        "--seeds", type=whole(1), default=1, metavar="N",
        help="trainings of each trial, seeds 1 to N [default: 1]",
    )  # fmt: skip
    result.add_argument(
        "--test", action="store_true",
        help="train the trial that is chosen on all training pictures, and ask the test set",
    )  # fmt: skip
    instead = result.add_mutually_exclusive_group()
    instead.add_argument("--show", action="store_true", help="print the tables, and train nothing")
    instead.add_argument(
        "--together", action="store_true",
        help="print what the nets in --work know together, and train nothing",
    )  # fmt: skip
    result.add_argument(
        "--study", type=Path, default=trials.FOLDER, metavar="DIR",
        help="folder with TASK.toml and TASK.jsonl [default: benchmarks/best]",
    )  # fmt: skip
    result.add_argument(
        "--work", type=Path, metavar="DIR",
        help="folder for checkpoints and nets [default: one in the user's cache]",
    )  # fmt: skip
    return result


def _due(
    study: Study, arguments: argparse.Namespace, done: list[Result]
) -> Iterator[tuple[Trial, int]]:
    """Yields what is not done yet."""
    judged = "test" if arguments.test else "validation"
    names = [arguments.only] if arguments.only else [trial.name for trial in study.trials]
    if arguments.test:
        names = [study.final]
    for seed in range(1, arguments.seeds + 1):
        for name in names:
            trial = study.trial(name)
            there = results.of_trial(study, trial, done, judged)
            if seed not in [result.seed for result in there]:
                yield trial, seed


def _load(study: Study, trial: Trial, arguments: argparse.Namespace) -> Data:
    recipe = study.recipe_of(trial, 1)
    task = registry.find_task(arguments.task)
    if task.needs_folder and arguments.data is None:
        raise BenchmarkError(f"--data: expected a folder for {task.name}, got none")
    source = Source(arguments.data, recipe.height, recipe.width, channels=recipe.channels)
    return registry.find_format(task, arguments.data).reader.load(source, recipe.limit, tell)


def run(arguments: argparse.Namespace) -> None:
    """Trains what is not done, and prints the tables.

    Raises:
        BenchmarkError: the trials are damaged, or the data are not there.
    """
    study = trials.read(arguments.task, arguments.study)
    work = arguments.work or user_cache.folder("study") / arguments.task
    done = results.read(arguments.task, arguments.study)
    due = [] if arguments.show else list(_due(study, arguments, done))
    try:
        if arguments.together:
            data = _load(study, study.trials[0], arguments)
            heading = f"What the nets of the trials know together of the kept-out {arguments.task}."
            print(heading, together.table(study, data, work), sep="\n\n")
            return
        for trial, seed in due:
            tell(f"{trial.name}, seed {seed}")
            data = _load(study, trial, arguments)
            result = training.run(study, trial, seed, data, work, arguments.test)
            results.add(result, arguments.task, arguments.study)
            tell(f"{trial.name}, seed {seed}: {result.accuracy:.2%} of {result.pictures:,} right")
    except USER_ERRORS as error:
        raise BenchmarkError(str(error)) from error
    done = results.read(arguments.task, arguments.study)
    heading = (
        f"Trials for the recipe {arguments.task}/best, and what the test set says of the last."
    )
    print(heading, results.table(study, done), results.final_table(study, done), sep="\n\n")


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))

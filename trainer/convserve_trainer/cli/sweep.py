"""The command convserve-train sweep."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_host import atomic_file
from convserve_trainer.cli import data_options, fit
from convserve_trainer.cli.command import Command, always, print_line
from convserve_trainer.errors import Interrupted, UsageError
from convserve_trainer.host.signals import Stopped
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.run_key import DIGEST, RunKey
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from convserve_trainer.recipes.recipe import Recipe

EPILOG = """examples:
  convserve-train sweep digits --space space.toml --trials 20 --study sweeps/1
  convserve-train fit digits --recipe sweeps/1/best.toml

space.toml:
  learning_rate = { low = 1e-4, high = 1e-2, log = true }
  "augmentation.shift" = { low = 0.0, high = 0.2 }
  batch_size = { choices = [32, 64, 128] }
  epochs = 5

The same command goes on with a sweep that was stopped or killed.
"""
SHARE = 0.1  # of the training pictures, for a recipe without a validation share


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    fit.add_task(command)
    data_options.add_training(command.add_argument_group("data"))
    group = command.add_argument_group("search")
    fit.add_recipe_options(group)
    fit.add_backend_option(group)
    group.add_argument(
        "--seed",
        metavar="NUMBER",
        type=int,
        help="of every trial's weights, and of what is drawn, 0 or more [default: the recipe's]",
    )
    group.add_argument(
        "--space",
        metavar="FILE",
        type=Path,
        required=True,
        help="TOML: fields as --set names them; ranges, choices and fixed values as below",
    )
    group.add_argument(
        "--trials",
        metavar="COUNT",
        type=int,
        default=20,
        help="trainings in all, those before a stop with them, 1 or more [default: %(default)s]",
    )
    group.add_argument(
        "--study",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for the trials and best.toml, new or that of a sweep to go on with",
    )


def run(options: argparse.Namespace) -> None:
    """Searches; writes best.toml.

    Raises:
        TrainerError: anything a user can mend.
        Interrupted: Ctrl-C or SIGTERM.
        MemoryError: there is not enough.
    """
    from convserve_trainer.recipes import recipe_files
    from convserve_trainer.sweep import space as spaces

    if options.trials < 1:
        raise UsageError(f"--trials: expected 1 or more, got {options.trials}")
    found = recipe_files.find(options.recipe, options.task)
    recipe = _compared(
        found.override(dict(options.settings), seed=options.seed, limit=options.limit)
    )
    space = spaces.read(options.space, recipe)
    keras_backend.choose(options.backend)
    read_data = data_options.training(options, recipe, print_line)
    import optuna  # noqa: F401 - if it is missing, the error comes before the data are loaded

    from convserve_host import cpus
    from convserve_trainer.datasets import splits
    from convserve_trainer.fitting import step_parts
    from convserve_trainer.nets import models

    models.check_size(recipe)
    data = read_data()
    models.check_pictures(recipe, data.spec)
    recipe = recipe.for_classes(len(data.labels))
    data = splits.reserve(data, recipe.validation_share, recipe.calibrate)
    assert data.validation is not None
    # Trials cannot meet what is held out: it is not there.
    data = replace(data, held_out=data.validation)
    print(
        f"{len(data.train):,} {data.what} to train on, {len(data.held_out):,} others of the "
        "training set to compare trials on; none that is held out",
        flush=True,
    )
    from convserve_trainer.sweep import study

    keras_backend.use(step_parts.suitable(recipe, data.spec, cpus.threads()))  # as fit does
    with (
        keras_backend.memory_errors(),
        study.opened(options.study, _settings(recipe, data.sha256, space.settings())) as opened,
    ):
        sweep = study.Sweep(opened, space, recipe, data)
        if sweep.finished:
            print(
                f"{counted(sweep.finished, 'trial was', 'trials were')} finished before", flush=True
            )
        try:
            while sweep.finished < options.trials:
                print(sweep.next(), flush=True)
        except Stopped as stop:
            raise Interrupted(
                f"stopped; {sweep.finished} of {counted(options.trials, 'trial')} are finished and "
                f"kept in {options.study}\ngo on with the same command",
                stop.status,
            ) from stop
        best = options.study / study.BEST
        content = sweep.best_recipe()
        with atomic_file.replaced(best) as temporary:
            temporary.write_text(content)
        print(sweep.table())
    command = f"convserve-train fit {options.task} --recipe {best}"
    if keras_backend.chosen() != keras_backend.DEFAULT:
        command += f" --backend {keras_backend.chosen()}"
    print_line(f"the best of {counted(sweep.finished, 'trial')}: {command}")


def _compared(recipe: "Recipe") -> "Recipe":
    """Returns the recipe with a validation on training pictures."""
    import msgspec

    share = recipe.validation_share or SHARE
    return msgspec.structs.replace(
        recipe, validation_steps=None, validation_share=share, min_accuracy=0.0
    )


def _settings(recipe: "Recipe", sha256: str, space: RunKey) -> RunKey:
    """Returns what makes two sweeps the same."""
    data_and_backend = {"data": sha256[:DIGEST], "backend": keras_backend.chosen()}
    return recipe.values() | data_and_backend | space


COMMAND = Command(
    "sweep",
    "search over fields of a recipe, by a validation of the training pictures",
    EPILOG,
    add_options,
    run,
    always,
)

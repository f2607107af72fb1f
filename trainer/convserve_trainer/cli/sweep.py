"""The command convserve-train sweep."""

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_host import atomic_file
from convserve_trainer.cli import data_options, fit
from convserve_trainer.cli.command import Command, always, print_line, print_note
from convserve_trainer.errors import Interrupted, UsageError
from convserve_trainer.host.signals import Stopped
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.run_key import DIGEST, RunKey
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from convserve_trainer.datasets.pictures import Data
    from convserve_trainer.recipes.recipe import Recipe
    from convserve_trainer.sweep.database import Address
    from convserve_trainer.sweep.space import Space
    from convserve_trainer.sweep.study import Sweep

EPILOG = """examples:
  convserve-train sweep digits --space space.toml --trials 20 --study sweeps/1
  convserve-train fit digits --recipe sweeps/1/best.toml

space.toml:
  learning_rate = { low = 1e-4, high = 1e-2, log = true }
  "augmentation.shift" = { low = 0.0, high = 0.2 }
  batch_size = { choices = [32, 64, 128] }
  epochs = 5

The same command goes on with a sweep that was stopped or killed.

With --storage any number of machines run the same command, on one study in a database:
  export CONVSERVE_SWEEP_STORAGE=postgresql://USER:PASSWORD@HOST/DATABASE
  convserve-train sweep digits --space space.toml --trials 200 --study digits-1
"""
VARIABLE = "CONVSERVE_SWEEP_STORAGE"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
GRACE_S = 120
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
        help="trainings in all, those before a stop and those of other machines with them, 1 or "
        "more [default: %(default)s]",
    )
    group.add_argument(
        "--study",
        metavar="DIR|NAME",
        required=True,
        help="folder for the trials and best.toml, new or that of a sweep to go on with; with "
        "--storage the study's name in the database",
    )
    machines = command.add_argument_group("several machines")
    machines.add_argument(
        "--storage",
        metavar="URL",
        help="database for the trials: postgresql://HOST/DATABASE, mysql+DRIVER://HOST/DATABASE, "
        "or sqlite:///FILE for workers on one machine; a URL with a password must be in the "
        f"variable [env: {VARIABLE}] [default: a file in DIR, for one process]",
    )
    machines.add_argument(
        "--grace",
        metavar="SECONDS",
        type=int,
        default=GRACE_S,
        help="a trial whose worker was silent for so long is tried again by another, 1 or more "
        "[default: %(default)s]",
    )
    machines.add_argument(
        "--best",
        metavar="FILE",
        type=Path,
        help="where the best recipe is written, TOML [default: DIR/best.toml; with --storage "
        "NAME.toml]",
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
    if options.grace < 1:
        raise UsageError(f"--grace: expected 1 or more, got {options.grace}")
    found = recipe_files.find(options.recipe, options.task)
    recipe = _compared(
        found.override(dict(options.settings), seed=options.seed, limit=options.limit)
    )
    space = spaces.read(options.space, recipe)
    keras_backend.choose(options.backend)
    read_data = data_options.training(options, recipe, print_line)
    # If it is missing, or cannot be used, the error comes before the data are loaded.
    address = _address(options)

    from convserve_host import cpus
    from convserve_trainer.datasets import splits
    from convserve_trainer.fitting import step_parts
    from convserve_trainer.nets import models

    models.check_size(recipe)
    data = read_data()
    models.check_pictures(recipe, data.spec)
    recipe = recipe.for_classes(len(data.labels), data.several)
    data = splits.reserve(data, recipe.validation_share, recipe.calibrate)
    assert data.validation is not None
    # Trials cannot meet what is held out: it is not there.
    data = replace(data, held_out=data.validation)
    print(
        f"{len(data.train):,} {data.what} to train on, {len(data.held_out):,} others of the "
        "training set to compare trials on; none that is held out",
        flush=True,
    )
    keras_backend.use(step_parts.suitable(recipe, data.spec, cpus.threads()))  # as fit does
    with keras_backend.memory_errors(), _opened(options, address, recipe, space, data) as sweep:
        if sweep.finished:
            print(
                f"{counted(sweep.finished, 'trial was', 'trials were')} finished before", flush=True
            )
        try:
            for line in sweep.lines(options.trials):
                print(line, flush=True)
        except Stopped as stop:
            raise Interrupted(
                f"stopped; {sweep.finished} of {counted(options.trials, 'trial')} are finished and "
                f"kept in {_where(options, address)}\ngo on with the same command",
                stop.status,
            ) from stop
        best = options.best or _best_file(options.study, address)
        _write(best, sweep.best_recipe())
        print(sweep.table())
        finished = sweep.finished
    command = f"convserve-train fit {options.task} --recipe {best}"
    if keras_backend.chosen() != keras_backend.DEFAULT:
        command += f" --backend {keras_backend.chosen()}"
    print_line(f"the best of {counted(finished, 'trial')}: {command}")


def _address(options: argparse.Namespace) -> "Address | None":
    """Returns where the database is; None if the trials are kept in a folder.

    Raises:
        UsageError: the URL, the name of the study, or the driver cannot be used.
        ModuleNotFoundError: Optuna, or the driver of PostgreSQL, is not installed.
    """
    import optuna  # noqa: F401 - for a folder, too

    storage = options.storage or os.environ.get(VARIABLE)
    if not storage:
        return None
    from convserve_trainer.sweep import database

    if not NAME.fullmatch(options.study):
        raise UsageError(
            "--study: with a storage (--storage) expected a name of letters, digits and . _ -, "
            f"got {options.study!r}"
        )
    address = database.parse(storage)
    if address.has_password and options.storage:
        raise UsageError(
            "--storage: expected a URL without a password, got one with it: every user of the "
            f"machine sees a command line; put the URL into the variable {VARIABLE}"
        )
    return address


@contextmanager
def _opened(
    options: argparse.Namespace,
    address: "Address | None",
    recipe: "Recipe",
    space: "Space",
    data: "Data",
) -> Iterator["Sweep"]:
    """Provides the sweep, in a folder or in a database."""
    from convserve_trainer.sweep import study

    settings = _settings(recipe, data.sha256, space.settings())
    if address is None:
        with study.opened(Path(options.study), settings) as opened:
            yield study.Sweep(opened, space, recipe, data)
        return
    from convserve_trainer.sweep import database, shared

    with database.errors(address):
        storage = database.opened(address, options.grace, shared.stale, print_note)
        with closing(storage):
            yield shared.SharedSweep(storage, options.study, settings, space, recipe, data)


def _where(options: argparse.Namespace, address: "Address | None") -> str:
    return f"study {options.study} of {address}" if address else options.study


def _best_file(study: str, address: "Address | None") -> Path:
    return Path(f"{study}.toml") if address else Path(study) / "best.toml"


def _write(path: Path, content: str) -> None:
    """Writes the best recipe; workers that end together write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".best-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        temporary.write_text(content)
        atomic_file.flush(temporary)
        os.replace(temporary, path)
    atomic_file.flush(path.parent)


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

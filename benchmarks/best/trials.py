"""The trials of a study, from a TOML file: what is changed, and why.

share = 0.16667                    # of the training pictures, which judge the trials
[recipe]                           # that all trials begin with, a recipe file's fields
[[trials]]
name = "levels"
why = "..."
after = "start"                    # the trial whose changes it has, too
changes = { "augmentation.levels" = 0.5 }
teachers = ["wide"]                # trials whose nets teach this one
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from benchmarks.harness.command import BenchmarkError
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes.recipe import Recipe, make_recipe

FOLDER = Path(__file__).parent
DIGEST = 12  # hexadecimal digits


class Trial(Struct, frozen=True, forbid_unknown_fields=True):
    """One idea.

    Attributes:
        name: of it.
        why: it may help.
        after: the trial whose changes it has, too; None for the recipe that all begin with.
        changes: of the recipe, by name, as `--set` takes them.
        teachers: names of trials whose nets teach this one.
    """

    name: str
    why: str
    after: str | None = None
    changes: dict[str, Any] = {}
    teachers: tuple[str, ...] = ()


class Study(Struct, frozen=True, forbid_unknown_fields=True):
    """Trials with the recipe that they begin with.

    Attributes:
        share: of the training pictures, which judge the trials and which they do not see.
        recipe: the fields of a recipe file.
        trials: one or more; each comes after those that it names.
        final: the trial whose recipe is the shipped one, but for its precision, and alone is asked
            about the test set.
    """

    share: Annotated[float, Meta(gt=0, lt=1)]
    recipe: dict[str, Any]
    trials: Annotated[tuple[Trial, ...], Meta(min_length=1)]
    final: str

    def trial(self, name: str) -> Trial:
        """Returns a trial by its name.

        Raises:
            BenchmarkError: there is none.
        """
        found = [trial for trial in self.trials if trial.name == name]
        if not found:
            there = ", ".join(trial.name for trial in self.trials)
            raise BenchmarkError(f"trial: expected one of {there}, got {name!r}")
        return found[0]

    def recipe_of(self, trial: Trial, seed: int) -> Recipe:
        """Returns the recipe of a trial; its teachers are names of trials.

        Raises:
            BenchmarkError: a change is not one of a recipe.
        """
        try:
            if trial.after is not None:
                begun = self.recipe_of(self.trial(trial.after), seed)
            else:
                begun = make_recipe({"name": "best", "min_accuracy": 0.0} | self.recipe, "recipe.")
            changes = trial.changes
            if trial.teachers:
                changes = {"distillation.teachers": trial.teachers} | changes
            return begun.override(changes, where=f"{trial.name}: ", seed=seed)
        except UsageError as error:
            raise BenchmarkError(str(error)) from error

    def digest(self, trial: Trial, seed: int) -> str:
        """Returns a digest of all that decides the net of a trial, but for the pictures."""
        recipe = self.recipe_of(trial, seed)
        values = recipe.values()
        decisive = {name: value for name, value in values.items() if name not in ("about", "card")}
        teachers = [self.digest(self.trial(name), 1) for name in recipe.distillation.teachers]
        text = json.dumps([decisive, self.share, teachers], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def read(task: str, folder: Path = FOLDER) -> Study:
    """Returns the study of a task.

    Raises:
        BenchmarkError: the file is not one of a study.
    """
    path = folder / f"{task}.toml"
    try:
        study = msgspec.toml.decode(path.read_bytes(), type=Study)
    except (msgspec.DecodeError, OSError) as error:
        raise BenchmarkError(f"{path}: {error}") from error
    known: set[str | None] = {None}
    for trial in study.trials:
        for name in (trial.after, *trial.teachers):
            if name not in known:
                raise BenchmarkError(f"{path}: {trial.name}: expected an earlier trial, got {name}")
        known.add(trial.name)
    if study.final not in known:
        raise BenchmarkError(f"{path}: final: expected the name of a trial, got {study.final}")
    return study

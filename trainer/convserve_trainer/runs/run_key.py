"""What makes two trainings the same, and how a user has a training kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from convserve_trainer.errors import UsageError
from convserve_trainer.nets import teachers
from convserve_trainer.nets.keras_backend import DEFAULT, Backend
from convserve_trainer.nets.origin import Origin

if TYPE_CHECKING:
    from convserve_trainer.recipes.recipe import Recipe

RunKey: TypeAlias = dict[str, Any]
"""Of a training, by name; as JSON gives them back."""

DIGEST = 12  # hexadecimal digits
#: Between a stop and a resume. Of what a net starts from, the content counts, not the path.
MAY_CHANGE = ("epochs", "min_accuracy", "card", "start_from")
#: What only says something about a recipe: another text is the same training.
TEXTS = ("about",)
UNNAMED = ".unfinished"  # the dot keeps it out of sight of servers that watch the models folder
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class CheckpointPolicy:
    """How a training is kept.

    Attributes:
        folder: that the user named; None for one among the models, while it is not published.
        resume: go on from the newest checkpoint.
        seconds: between checkpoints within an epoch, at least; 0 for one after each step.
        or_start: with `resume`, begin where there is none to go on from.
    """

    folder: Path | None = None
    resume: bool = False
    seconds: float = CHECKPOINT_SECONDS
    or_start: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError where the seconds are out of their range."""
        if not 0 <= self.seconds < float("inf"):
            raise UsageError(f"--checkpoint-seconds: expected 0 or more, got {self.seconds:g}")


def make_run_key(
    recipe: "Recipe",
    dataset_sha256: str,
    backend: Backend = DEFAULT,
    origins: Sequence[Origin] = (),
) -> RunKey:
    """Returns all settings that decide what a training does until its last epoch.

    Args:
        recipe: with all overrides, for the classes of the data; its teachers are there.
        dataset_sha256: digest of the data.
        backend: of Keras; the default one is not in the settings, as it was before there was a
            choice.
        origins: of the weights that the net begins with.
    """
    free = MAY_CHANGE if may_end_elsewhere(recipe) else MAY_CHANGE[1:]
    settings = {name: value for name, value in recipe.values().items() if name not in free}
    settings["data"] = dataset_sha256[:DIGEST]
    if recipe.distillation.teachers:  # the nets count, not where they lie
        settings["distillation"] |= {"teachers": teachers.digests(recipe.distillation)}
    if origins:
        settings["begins_with"] = [origin.sha256[:DIGEST] or origin.source for origin in origins]
    return settings if backend == DEFAULT else settings | {"backend": backend}


def may_end_elsewhere(recipe: "Recipe") -> bool:
    """Returns whether a training that was stopped may have another number of epochs.

    By a cosine, the learning rate of every step follows from the number of all epochs.
    """
    return recipe.schedule != "cosine"


def unnamed_folder(models: Path, name: str, settings: RunKey) -> Path:
    """Returns where a training is kept whose user names no folder: others have others.

    Args:
        models: the models folder.
        name: of the model.
        settings: of the training.
    """
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:DIGEST]
    return models / UNNAMED / f"{name}-{digest}"


def differences(before: RunKey, now: RunKey) -> str:
    """Returns in what two trainings differ: "seed was 1, is 2"; nothing if they are the same."""
    before, now = ({"backend": DEFAULT} | settings for settings in (before, now))
    names = [*now, *(name for name in before if name not in now)]
    names = [name for name in names if name not in TEXTS]
    why = {"epochs": " (a cosine's learning rate follows from all epochs)"}
    return ", ".join(
        f"{name} was {_shown(before.get(name))}, is {_shown(now.get(name))}{why.get(name, '')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)

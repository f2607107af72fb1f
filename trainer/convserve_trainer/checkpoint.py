"""A training that is not published yet: its last finished epoch, its history, its best weights.

One file, replaced whole after every epoch: <models>/.unfinished/<name>-<settings>.keras. It is
Keras's own with two more entries. The leading dot keeps it out of sight of servers that watch the
models folder.
"""

import hashlib
import math
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convserve_trainer import keras_backend, refusals
from convserve_trainer.errors import CheckpointError
from convserve_trainer.history import History, read_csv
from convserve_trainer.recipes import Recipe

if TYPE_CHECKING:
    import keras

FOLDER = ".unfinished"
EPOCHS, WEIGHTS = "history.csv", "best.npz"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its last finished epoch.

    Attributes:
        path: of the file; trainings with other settings or data have other files.
        steps: of the optimizer in one epoch.
    """

    path: Path
    steps: int

    def save(self, model: "keras.Model", history: History) -> None:
        """Replaces the file, whole or not at all.

        Raises:
            CheckpointError: the file system refuses; the epochs before are still kept.
        """
        try:
            self._save(model, history)
        except OSError as error:
            raise CheckpointError(
                f"the epoch cannot be kept in {self.path.parent}: {refusals.reason(error)}; "
                "--resume then goes on after the epoch before it"
            ) from error

    def _save(self, model: "keras.Model", history: History) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        try:
            model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(EPOCHS, history.csv())
                if history.weights is not None:
                    with archive.open(WEIGHTS, "w") as file:
                        np.savez(file, *history.weights)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self) -> tuple["keras.Model", History]:
        """Returns the model as it was after the last finished epoch, and how it came there.

        Raises:
            CheckpointError: there is no such file, or it is damaged.
        """
        if not self.path.is_file():
            raise CheckpointError(
                "nothing to resume: no training with these settings and data was stopped; "
                f"it would be in {self.path}"
            )
        try:
            model: keras.Model = keras_backend.load().saving.load_model(self.path)
            with zipfile.ZipFile(self.path) as archive:
                history = History(read_csv(archive.read(EPOCHS).decode()))
                if WEIGHTS in archive.namelist():
                    with archive.open(WEIGHTS) as file:
                        history.weights = list(np.load(file).values())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path} is damaged ({error}); remove it") from error
        return model, history

    def epochs(self, model: "keras.Model") -> int:
        """Returns how many whole epochs a model of this training has seen."""
        return int(model.optimizer.iterations) // self.steps

    def remove(self) -> None:
        """Removes the file, and the folder if it was the last."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def of(models: Path, name: str, recipe: Recipe, dataset_sha256: str, images: int) -> Checkpoint:
    """Returns the checkpoint of a training.

    Args:
        models: the models folder.
        name: of the model.
        recipe: its settings; epochs and floor may change between a stop and a resume.
        dataset_sha256: digest of the data.
        images: in the training set, 1 or more.
    """
    settings = replace(recipe, epochs=1, min_accuracy=0.0).to_json() + dataset_sha256
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    path = models / FOLDER / f"{name}-{digest}.keras"
    return Checkpoint(path, recipe.steps or math.ceil(images / recipe.batch_size))

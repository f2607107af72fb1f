"""A training in one file, from which it goes on as if nothing had happened.

The file is Keras's own, which `keras.saving.load_model` opens, with more entries: the settings, the
epoch under way, the history, the weights of the best epoch, and the states of the layers' random
generators (dropout, augmentation), which Keras leaves out.
"""

import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_host import atomic_file
from convserve_trainer.errors import CheckpointError
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.history import History, read_csv
from convserve_trainer.runs.run_key import RunKey
from convserve_trainer.runs.training_state import Means, Training, UnderWay

if TYPE_CHECKING:
    import keras

TRAINING, EPOCHS = "training.json", "history.csv"
BEST, GENERATORS = "best.npz", "generators.npz"
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def save(training: Training, settings: RunKey, path: Path) -> None:
    """Replaces the file, whole or not at all.

    Raises:
        OSError: the file system refuses.
    """
    about = {"settings": settings, "under_way": asdict(training.under_way)}
    with atomic_file.replaced(path) as temporary:
        training.model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(TRAINING, json.dumps(about))
            archive.writestr(EPOCHS, training.history.csv())
            states = [state.numpy() for state in _generators(training.model)]
            _write(archive, GENERATORS, states)
            if training.history.weights is not None:
                _write(archive, BEST, training.history.weights)


def settings(path: Path) -> RunKey:
    """Returns the settings of the training in a file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found: RunKey = json.loads(archive.read(TRAINING))["settings"]
    except DAMAGE as error:
        raise CheckpointError(_damaged(path, error)) from error
    return found


def load(path: Path) -> Training:
    """Returns the training in a file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (entry := archive.testzip()) is not None:  # h5py does not read all that is there
                raise zipfile.BadZipFile(f"wrong checksum of {entry}")
            under_way = json.loads(archive.read(TRAINING))["under_way"]
            history = History(read_csv(archive.read(EPOCHS).decode()))
            if BEST in archive.namelist():
                history.weights = _read(archive, BEST)
            states = _read(archive, GENERATORS)
        # Their layers and optimizers.
        from convserve_trainer.nets import (  # noqa: F401
            augmentation,
            body_rate,
            mixing,
            normalization,
        )

        model: keras.Model = keras_backend.load().saving.load_model(path)
        for generator, state in zip(_generators(model), states, strict=True):
            generator.assign(state)
        means = Means(**under_way.pop("means"))
        return Training(model, history, UnderWay(means=means, **under_way))
    except DAMAGE as error:
        raise CheckpointError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({' '.join(str(error).split())})"


def _generators(model: "keras.Model") -> "list[keras.Variable]":
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _write(archive: zipfile.ZipFile, name: str, arrays: list[npt.NDArray[Any]]) -> None:
    with archive.open(name, "w") as file:
        np.savez(file, *arrays)


def _read(archive: zipfile.ZipFile, name: str) -> list[npt.NDArray[Any]]:
    with archive.open(name) as file:
        return list(np.load(file).values())

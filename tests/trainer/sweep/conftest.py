"""Trainings of a moment, for what holds of any sweep."""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec
from convserve_trainer.cli import data_options
from convserve_trainer.datasets.pictures import ArrayPictures, Batch, Data
from convserve_trainer.errors import DivergedError
from convserve_trainer.host.signals import Stopped
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs.history import Epoch, History
from convserve_trainer.sweep import study
from convserve_trainer.sweep.trial import After

SPACE = """
learning_rate = { low = 1e-4, high = 1e-2, log = true }
augmentation.shift = { low = 0.0, high = 0.2 }
batch_size = { choices = [32, 64, 128] }
"net.0.filters" = { low = 8, high = 32, step = 8 }
epochs = 3
"""


class Unread:
    """Held-out pictures that nobody may look at."""

    in_memory = True
    sizes = None

    @property
    def labels(self) -> NoReturn:
        raise AssertionError("labels of what is held out are read")

    def __len__(self) -> int:
        raise AssertionError("what is held out is counted")

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        raise AssertionError("what is held out is read")


def _digits() -> Data:
    labels = np.arange(60) % 3
    train = ArrayPictures(np.zeros((60, 28, 28, 1), np.uint8), labels)
    spec = InputSpec(height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS)
    return Data("digits", ("a", "b", "c"), spec, train, Unread(), "0" * 64)


class Trainer:
    """Instead of trainings: the nearer the learning rate is to 0.002, the better.

    Attributes:
        seen: recipes of what was trained.
        stop: the training, counted from 1, that is stopped.
        meanwhile: is called in each training, before its first epoch ends.
    """

    def __init__(self) -> None:
        self.seen: list[Recipe] = []
        self.stop = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, recipe: Recipe, data: Data, after: After) -> History:
        assert data.validation is not None
        assert data.held_out is data.validation
        assert (len(data.train), len(data.validation)) == (54, 6)
        self.seen.append(recipe)
        if len(self.seen) == self.stop:
            raise Stopped(2)
        self.meanwhile()
        if recipe.learning_rate < 2e-4:
            raise DivergedError("the loss is nan")
        accuracy = 1 - abs(np.log10(recipe.learning_rate / 0.002)) / 3
        epochs = [
            Epoch(number, 1, 1, 1 - recipe.augmentation.shift, accuracy * number / 3, 1, 0, 1)
            for number in range(1, recipe.epochs + 1)
        ]
        for epoch in epochs:
            after(epoch)
        return History(epochs[-1:])


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(study, "trained", trainer)
    monkeypatch.setattr(data_options, "training", lambda *_: _digits)
    return trainer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path

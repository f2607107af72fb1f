"""One trial of a sweep: a training that is kept nowhere and asked after each epoch."""

import io
import math
from collections.abc import Callable
from pathlib import Path

from convserve_trainer.datasets.pictures import Data
from convserve_trainer.fitting.fit import fit
from convserve_trainer.nets import models
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs.history import Epoch, History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training

After = Callable[[Epoch], None]
"""Takes an epoch that is finished; what it raises ends the training."""


class _Unkept(Run):
    """A run without a folder."""

    def __init__(self, after: After) -> None:
        super().__init__(Path(), {}, math.inf, named=True)
        self._after = after

    def keep(self, training: Training) -> None:
        """Keeps nothing: a trial that is stopped is tried again."""

    def log(self, history: History) -> None:
        """Passes the last epoch on."""
        if history.epochs:
            self._after(history.epochs[-1])


def trained(recipe: Recipe, data: Data, after: After) -> History:
    """Returns what became of a training.

    Args:
        recipe: with a validation.
        data: to train on, and the validation.
        after: takes each finished epoch.

    Raises:
        DataError: too many pictures went away.
        DivergedError: a loss, or a weight, is not finite.
        Stopped: Ctrl-C or SIGTERM.
    """
    model = models.build(recipe, data.spec, len(data.labels), len(data.train))
    training = Training(model)
    fit(training, data, recipe, _Unkept(after), io.StringIO())
    return training.history

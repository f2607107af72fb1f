"""Fitting: epoch after epoch, each one kept as it ends, until done or told to stop."""

import math
import time
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

import numpy as np
import numpy.typing as npt

from convserve_trainer import order, stops
from convserve_trainer.checkpoint import Checkpoint
from convserve_trainer.errors import DataError, DivergedError
from convserve_trainer.history import Epoch, History
from convserve_trainer.pictures import Data, Labels
from convserve_trainer.progress import Progress
from convserve_trainer.recipes import Recipe

if TYPE_CHECKING:
    import keras


class Means:
    """Means of Keras's figures over pictures, batch by batch."""

    def __init__(self) -> None:
        self._sums = {"loss": 0.0, "accuracy": 0.0}
        self._pictures = 0

    def add(self, figures: dict[str, float], pictures: int) -> dict[str, float]:
        """Takes the figures of a batch; returns the means so far."""
        self._pictures += pictures
        self._sums = {name: self._sums[name] + figures[name] * pictures for name in self._sums}
        return self.values()

    def values(self) -> dict[str, float]:
        """Returns "loss" and "accuracy"."""
        return {name: float(total / self._pictures) for name, total in self._sums.items()}


def fit(
    model: "keras.Model",
    data: Data,
    recipe: Recipe,
    checkpoint: Checkpoint,
    history: History,
    stream: TextIO,
) -> None:
    """Trains the model from the epoch it has reached up to the recipe's last.

    The order of the pictures depends on the seed and the number of the epoch alone, so that
    a training that was stopped and resumed ends with the same weights as one that was not.

    Args:
        model: compiled; changed in place.
        data: only its held-out part is not trained on.
        recipe: how many epochs, steps and pictures a step, the seed.
        checkpoint: where each finished epoch is kept.
        history: of the epochs that the model has seen; those that follow are added.
        stream: takes the progress.

    Raises:
        DataError: too many pictures went away.
        CheckpointError: a finished epoch cannot be kept.
        DivergedError: the loss is not finite; the epochs before are kept.
        Stopped: Ctrl-C or SIGTERM, after the batch that it met; a second one kills the process.
    """
    progress = Progress(stream, recipe.epochs, checkpoint.steps, bool(recipe.validation_steps))
    with stops.requested() as request:
        for number in range(checkpoint.epochs(model), recipe.epochs):
            progress.start(number)
            started = time.perf_counter()
            try:
                trained = _train(model, data, recipe, number, progress, request)
            except (DataError, DivergedError, stops.Stopped):
                progress.abandon()
                raise
            validated = _validate(model, data, recipe)
            epoch = Epoch(
                epoch=number + 1,
                **trained,
                val_loss=validated.get("loss"),
                val_accuracy=validated.get("accuracy"),
                seconds=time.perf_counter() - started,
            )
            history.epochs.append(epoch)
            if recipe.validation_steps and history.best is epoch:
                history.weights = model.get_weights()
            progress.finish(epoch)
            for note in data.notes():
                print(note, file=stream, flush=True)
            checkpoint.save(model, history)
            request.obey()


def _train(
    model: "keras.Model",
    data: Data,
    recipe: Recipe,
    epoch: int,
    progress: Progress,
    request: stops.Request,
) -> dict[str, float]:
    """Trains for an epoch; returns its means and "input_share"."""
    numbers = order.of_epoch(len(data.train), recipe.batch_size, recipe.steps, recipe.seed, epoch)
    means = Means()
    waited = 0.0
    begun = asked = time.perf_counter()
    with closing(data.train.batches(numbers, recipe.batch_size, recipe.steps)) as batches:
        for step, (pixels, labels) in enumerate(batches, start=1):
            waited += time.perf_counter() - asked
            figures = model.train_on_batch(pixels, _targets(model, labels), return_dict=True)
            if not math.isfinite(figures["loss"]):
                raise _diverged(model, figures["loss"], epoch, step)
            progress.step(step, means.add(figures, len(labels)))
            if step < progress.steps:  # the end of an epoch is too near to lose it
                request.obey()
            asked = time.perf_counter()
    return means.values() | {"input_share": waited / (time.perf_counter() - begun)}


def _diverged(model: "keras.Model", loss: float, epoch: int, step: int) -> DivergedError:
    rate = float(model.optimizer.learning_rate)
    kept = (
        "no epoch is finished, so nothing is kept"
        if epoch == 0
        else f"finished epochs are kept: --resume --epochs {epoch} publishes them"
    )
    return DivergedError(
        f"the loss is {loss:g} in step {step} of epoch {epoch + 1}, at a learning rate of "
        f"{rate:g}; {kept}; another --seed or a larger --batch-size may do better"
    )


def _validate(model: "keras.Model", data: Data, recipe: Recipe) -> dict[str, float]:
    """Returns the means over the first held-out pictures; nothing without validation."""
    if recipe.validation_steps is None:
        return {}
    means = Means()
    count = min(len(data.held_out), recipe.validation_steps * recipe.batch_size)
    for pixels, labels in data.held_out.batches(range(count), recipe.batch_size):
        figures = model.test_on_batch(pixels, _targets(model, labels), return_dict=True)
        means.add(figures, len(labels))
    return means.values()


def _targets(model: "keras.Model", labels: Labels) -> npt.NDArray[np.float32]:
    """Returns what the net should say: float32 [N, K], or [N, 1] for a sigmoid."""
    classes = model.output_shape[-1]
    if classes == 1:
        return labels[:, np.newaxis].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]

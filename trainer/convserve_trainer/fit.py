"""Fitting: epoch after epoch, each one kept as it ends, until done or Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import numpy as np
import numpy.typing as npt

from convserve_trainer import keras_backend
from convserve_trainer.checkpoint import Checkpoint
from convserve_trainer.progress import Progress
from convserve_trainer.recipes import Recipe

if TYPE_CHECKING:
    import keras


class StopRequest:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.made = False


def fit(
    model: "keras.Model",
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    recipe: Recipe,
    checkpoint: Checkpoint,
    stream: TextIO,
) -> bool:
    """Trains the model from the epoch it has reached up to the recipe's last.

    The order of the images in an epoch is drawn from the seed and the number of the epoch, so that
    a training that was stopped and resumed ends with the same weights as one that was not.

    Args:
        model: compiled; changed in place.
        images: uint8 [N, H, W, C], 0 to 255.
        labels: uint8 [N], 0 to K - 1.
        recipe: how many epochs, the batch size, the seed.
        checkpoint: where each finished epoch is kept.
        stream: takes the progress.

    Returns:
        Whether all epochs are done; False after Ctrl-C. A second Ctrl-C kills the process.
    """
    import tensorflow

    targets = np.eye(model.output_shape[-1], dtype=np.float32)[labels]
    progress = Progress(stream, recipe.epochs, checkpoint.steps)
    with _stop_request() as stop:
        for epoch in range(checkpoint.epochs(model), recipe.epochs):
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(images))
            progress.start(epoch)
            # Keras's own pipeline of arrays makes TensorFlow complain when it is deterministic.
            slices = tensorflow.data.Dataset.from_tensor_slices((images[order], targets[order]))
            history = model.fit(
                slices.batch(recipe.batch_size).prefetch(1),
                shuffle=False,
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=0,
                callbacks=[_each_step(model, progress, stop)],
            )
            if checkpoint.epochs(model) == epoch:
                progress.abandon()
                return False
            progress.finish({name: values[-1] for name, values in history.history.items()})
            checkpoint.save(model)
            if stop.made:
                return False
    return True


def _each_step(
    model: "keras.Model", progress: Progress, stop: StopRequest
) -> "keras.callbacks.Callback":
    def after_step(step: int, logs: dict[str, float]) -> None:
        progress.step(step + 1, logs)
        if stop.made:
            model.stop_training = True

    return keras_backend.load().callbacks.LambdaCallback(on_train_batch_end=after_step)


@contextmanager
def _stop_request() -> Iterator[StopRequest]:
    """Makes the first Ctrl-C a request and leaves the second to the system."""
    stop = StopRequest()

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        stop.made = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)

"""Fitting: epoch after epoch, kept on the way, until done, told to stop, or diverged."""

import math
import time
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

import numpy as np
import numpy.typing as npt

from convserve_trainer.data.pictures import Batch, Data, Labels, Pictures
from convserve_trainer.errors import CheckpointError, DataError, DivergedError
from convserve_trainer.fitting import chunks, order, step_parts
from convserve_trainer.fitting import steps as backend_steps
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.fitting.steps import Arrays, Steps, Targets
from convserve_trainer.host import stops
from convserve_trainer.nets import keras_backend
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs.history import Epoch
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Means, Training, UnderWay

if TYPE_CHECKING:
    import keras


def fit(training: Training, data: Data, recipe: Recipe, run: Run, stream: TextIO) -> None:
    """Trains from the step that the training has reached up to the end of the recipe's last epoch.

    The order of the pictures depends on the seed and the position alone, so that a training that
    was stopped or killed and is resumed ends with the same weights as one that was not.

    Args:
        training: changed in place.
        data: only its held-out part is not trained on.
        recipe: how many epochs, steps and pictures a step, the seed.
        run: where the training is kept; a disk that refuses is a warning, and tried again.
        stream: takes the progress.

    Raises:
        DataError: too many pictures went away.
        DivergedError: a loss, or a weight, is not finite.
        Stopped: Ctrl-C or SIGTERM, after the steps under way; a second one kills the process.
    """
    count = recipe.steps or math.ceil(len(data.train) / recipe.batch_size)
    progress = Progress(stream, recipe.epochs, count, recipe.validated)
    weights = _class_weights(data.train, recipe)
    threads = step_parts.suitable(recipe, data.spec, keras_backend.parts())
    steps = backend_steps.of(training.model, _pace(data, run), weights, threads.parts)
    with stops.requested() as request:
        _log(training, run, progress)
        for number in range(training.position.epochs, recipe.epochs):
            if recipe.patience and training.history.stale >= recipe.patience:
                progress.say(
                    f"no lower validation loss in {recipe.patience} epochs: stopped after epoch "
                    f"{number} of {recipe.epochs}"
                )
                break
            progress.start(number)
            try:
                _train(training, data, recipe, run, progress, request, steps)
                epoch = _finish_epoch(training, data, recipe, steps, run)
            except (DataError, DivergedError, stops.Stopped):
                progress.abandon()
                raise
            progress.finish(epoch)
            for note in data.notes():
                progress.say(note)
            _keep(training, run, progress)
            _log(training, run, progress)
            request.obey()


def _pace(data: Data, run: Run) -> chunks.Pace:
    """Returns how many steps are run together at most."""
    # A checkpoint after every step needs to be between steps; pictures that are decoded while they
    # are needed must come one batch at a time, so that decoding goes on beside the training.
    alone = run.seconds == 0 or not data.train.in_memory
    return chunks.Pace(1) if alone else chunks.Pace()


def _train(
    training: Training,
    data: Data,
    recipe: Recipe,
    run: Run,
    progress: Progress,
    request: stops.Request,
    steps: Steps,
) -> None:
    """Trains to the end of the epoch under way."""
    under_way = training.under_way
    epoch, done = training.position
    numbers = order.of_epoch(
        len(data.train), recipe.batch_size, recipe.steps, recipe.seed, epoch, done
    )
    left = None if recipe.steps is None else recipe.steps - done
    begun = time.perf_counter() - under_way.seconds
    asked = time.perf_counter()
    with closing(data.train.batches(numbers, recipe.batch_size, left)) as batches:
        for chunk in chunks.of(batches, steps.pace):
            under_way.waited_s += time.perf_counter() - asked
            _step(training, chunk, steps, run)
            under_way.seconds = time.perf_counter() - begun
            _look_up(training, run, progress, request)
            asked = time.perf_counter()


def _step(training: Training, chunk: list[Batch], steps: Steps, run: Run) -> None:
    """Trains on these batches, a step each.

    Raises:
        DivergedError: a loss is not finite; the position is that of its step.
    """
    under_way = training.under_way
    figures = steps.train([_arrays(training.model, batch, steps.class_weights) for batch in chunk])
    for (_, labels), of_step in zip(chunk, figures, strict=True):
        under_way.steps += 1
        under_way.means.add(of_step, len(labels))
        if not math.isfinite(of_step["loss"]):
            rate = of_step["learning_rate"]
            raise _diverged(f"the loss is {of_step['loss']:g}", training, run, rate)


def _look_up(training: Training, run: Run, progress: Progress, request: stops.Request) -> None:
    """Does what is due between steps."""
    under_way = training.under_way
    means = under_way.means.values()
    progress.step(under_way.steps, means)
    if under_way.steps < progress.steps:  # the end of an epoch is too near to lose it
        if (request.made or run.due()) and _keep(training, run, progress):
            progress.kept(under_way.steps, means)
        request.obey()


def _finish_epoch(training: Training, data: Data, recipe: Recipe, steps: Steps, run: Run) -> Epoch:
    """Validates the epoch under way and adds it to the history."""
    started = time.perf_counter()
    validated = _validate(training.model, data, recipe, steps)
    if not math.isfinite(validated.get("loss", 0.0)):
        raise _diverged(f"the validation loss is {validated['loss']:g}", training, run)
    done = training.under_way
    epoch = Epoch(
        epoch=training.position.epochs + 1,
        **done.means.values(),
        val_loss=validated.get("loss"),
        val_accuracy=validated.get("accuracy"),
        seconds=done.seconds + time.perf_counter() - started,
        input_share=done.waited_s / done.seconds,
        learning_rate=_learning_rate(training.model),
    )
    training.history.epochs.append(epoch)
    if recipe.validated and training.history.best is epoch:
        training.history.weights = training.model.get_weights()
    training.under_way = UnderWay()
    return epoch


def _keep(training: Training, run: Run, progress: Progress) -> bool:
    """Returns whether the training is kept; a disk that refuses is a warning.

    Raises:
        DivergedError: its weights are not finite.
    """
    if not all(np.isfinite(weights).all() for weights in training.model.get_weights()):
        raise _diverged("weights are not finite", training, run)
    try:
        run.keep(training)
    except CheckpointError as error:
        progress.say(f"warning: {error}")
        return False
    return True


def _log(training: Training, run: Run, progress: Progress) -> None:
    try:
        run.log(training.history)
    except CheckpointError as error:
        progress.say(f"warning: {error}")


def _diverged(what: str, training: Training, run: Run, rate: float | None = None) -> DivergedError:
    """Returns the error; without a rate, with the optimizer's of now."""
    if run.kept is None:
        kept = "nothing is kept"
    elif run.kept.epochs:
        kept = (
            f"finished epochs are kept in {run.folder}: --resume --epochs {run.kept.epochs} "
            "publishes them"
        )
    else:
        kept = f"{run.kept} is kept in {run.folder}"
    rate = _learning_rate(training.model) if rate is None else rate
    return DivergedError(
        f"{what} in step {training.under_way.steps} of epoch {training.position.epochs + 1}, at a "
        f"learning rate of {rate:g}; {kept}; another --seed or a larger "
        "--batch-size may do better"
    )


def _learning_rate(model: "keras.Model") -> float:
    """Returns the step of the optimizer, with the digits that a float32 has."""
    return float(f"{float(model.optimizer.learning_rate):.7g}")


def _validate(model: "keras.Model", data: Data, recipe: Recipe, steps: Steps) -> dict[str, float]:
    """Returns the means over the pictures of the validation; nothing without one."""
    if not recipe.validated:
        return {}
    means = Means()
    pictures = data.validation or data.held_out
    count = len(pictures)
    if recipe.validation_steps:
        count = min(count, recipe.validation_steps * recipe.batch_size)
    for batch in pictures.batches(range(count), recipe.batch_size):
        [figures] = steps.test([_arrays(model, batch, None)])
        means.add(figures, len(batch[1]))
    return means.values()


def _class_weights(pictures: Pictures, recipe: Recipe) -> npt.NDArray[np.float32] | None:
    """Returns float32 [K], what a picture of each class counts; 1 on average over all pictures."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(pictures.labels)
    weights: npt.NDArray[np.float64] = len(pictures) / (len(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


def _arrays(
    model: "keras.Model", batch: Batch, class_weights: npt.NDArray[np.float32] | None
) -> Arrays:
    """Returns pixels, targets and, with class weights, what each picture counts, float32 [N]."""
    pixels, labels = batch
    targets = _targets(model, labels)
    if class_weights is None:
        return pixels, targets
    return pixels, targets, class_weights[labels]


def _targets(model: "keras.Model", labels: Labels) -> Targets:
    """Returns what the net should say: float32 [N, K], or [N, 1] for a sigmoid."""
    classes = model.output_shape[-1]
    if classes == 1:
        return labels[:, np.newaxis].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]

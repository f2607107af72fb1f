"""What a training prints of itself, and what it says when it is stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import USER_ERRORS, Interrupted
from convserve_trainer.fitting import order
from convserve_trainer.host.launcher import Member
from convserve_trainer.host.signals import Stopped
from convserve_trainer.nets import keras_backend, process_group
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Position
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras


def print_settings(recipe: Recipe, data: Data, out: TextIO) -> None:
    """Prints the recipe, the data and the accuracy floor."""
    limited = ", a part of them (--limit)" if recipe.limit is not None else ""
    mnist_only, changed = "the recipe's is for MNIST", "this is not the recipe as written"
    floor = (
        f"{recipe.min_accuracy:.2%} of the held-out {data.what}"
        if recipe.min_accuracy
        else f"none: {mnist_only if data.ignore_accuracy_floor else changed}"
    )
    steps = counted(recipe.steps, "step") if recipe.steps else "one pass"
    schedule = " and falling as a cosine" if recipe.schedule == "cosine" else ""
    lines = [
        f"recipe          {recipe.name}: {counted(recipe.epochs, 'epoch')} of {steps}, batches of "
        f"{recipe.batch_size}, {recipe.optimizer} at {recipe.learning_rate:g}{schedule}, "
        f"{recipe.loss}, seed {recipe.seed}"
    ]
    if data.calibration:
        lines.append(
            f"calibration     {len(data.calibration):,} {data.what}, kept out of the training for "
            "a temperature"
        )
    if data.validation:
        lines.append(
            f"validation      {len(data.validation):,} {data.what}, kept out of the training for "
            "it, after each epoch"
        )
    if recipe.validation_steps:
        steps = counted(recipe.validation_steps, "step")
        lines.append(f"validation      {steps} after each epoch at most")
    if data.thresholds and not (data.validation or data.calibration):
        lines.append(
            f"thresholds      {len(data.thresholds):,} {data.what}, kept out of the training for "
            "them"
        )
    lines += [
        f"data            {len(data.train):,} {data.what} to train on{limited}, "
        f"{len(data.held_out):,} held out, {'labels' if data.several else 'classes'} "
        f"{', '.join(data.labels)}",
        f"accuracy floor  {floor}",
    ]
    print(*lines, sep="\n", file=out, flush=True)


def print_waiting(member: Member, out: TextIO) -> None:
    """Prints that a process waits for others; JAX aborts it if they do not come."""
    print(
        f"{member}: waits for the others at {member.address}, {process_group.CONNECT_S} s at most",
        file=out,
        flush=True,
    )


def print_processes(recipe: Recipe, member: Member, out: TextIO) -> None:
    """Prints which of several processes this is, and what it does."""
    does = "prints, keeps and publishes" if member.number == 0 else "leaves that to process 0"
    print(
        f"processes       {member.count}, which share each batch of {recipe.batch_size}; this is "
        f"process {member.number}, which {does}",
        file=out,
        flush=True,
    )


def print_batch(model: "keras.Model", data: Data, recipe: Recipe, out: TextIO) -> None:
    """Prints one batch as the lecture does, and its values as the first convolution gets them."""
    numbers = order.epoch_order(len(data.train), recipe.batch_size, recipe.steps, recipe.seed, 0)
    pixels, labels = next(data.train.batches(numbers, recipe.batch_size, steps=1))
    scaling = keras_backend.load().layers.Rescaling
    layer = next(layer for layer in model.layers if isinstance(layer, scaling))
    scaled = keras_backend.load().ops.convert_to_numpy(layer(pixels))
    print(
        f"data batch shape: {pixels.shape}, {pixels.dtype}, {pixels.min()} to {pixels.max()}",
        f"labels batch shape: {labels.shape}",
        f"values after the net's first layer (x 1/255): {float(scaled.min()):.3f} to "
        f"{float(scaled.max()):.3f}",
        sep="\n",
        file=out,
        flush=True,
    )


def print_best(history: History, out: TextIO) -> None:
    """Prints the time that input took and, after a validation, which epoch was the best."""
    print(f"input took {history.input_share:.1%} of the training steps' time", file=out)
    if history.weights is None:
        return
    best = history.best
    if best.val_loss is None:
        print("the average of the weights is used", file=out, flush=True)
        return
    print(
        f"best epoch {best.epoch} of {len(history.epochs)}: validation loss {best.val_loss:.4f}, "
        f"accuracy {best.val_accuracy:.4f}; its weights are used",
        file=out,
        flush=True,
    )


@contextmanager
def explain_stop(recipe: Recipe, run: Run, alone: bool = True) -> Iterator[None]:
    """Makes a stop say what is kept and how to go on.

    Args:
        recipe: of the training.
        run: where it is kept.
        alone: whether it is all that its command trains.

    Raises:
        Interrupted: in place of Stopped.
    """
    try:
        yield
    except Stopped as stop:
        raise Interrupted(_stopped(recipe, run, alone), stop.status) from stop


@contextmanager
def explain_kept(recipe: Recipe, run: Run, epochs: int, out: TextIO) -> Iterator[None]:
    """Makes a stop, or an error, after the last of so many epochs say what is kept."""
    try:
        with explain_stop(recipe, run):
            yield
    except USER_ERRORS:
        if run.kept:
            last = run.kept == Position(epochs)  # unless the disk refused it
            what = "the trained weights are" if last else f"{run.kept} is"
            print(f"{what} kept in {run.folder} for --resume", file=out)
        raise


def _stopped(recipe: Recipe, run: Run, alone: bool) -> str:
    if run.kept is None:
        return "stopped; nothing is kept yet"
    epochs, steps = run.kept
    of = "" if alone else f" of seed {recipe.seed}"
    message = f"stopped; {epochs} of {counted(recipe.epochs, 'epoch')}{of}"
    if steps:
        message += f" and {counted(steps, 'step')} of the next"
    message += f" are finished and kept in {run.folder}\ngo on with the same command and --resume"
    if not (epochs and alone):
        return message
    if run_key.may_end_elsewhere(recipe):
        return f"{message}, or publish what there is with --resume --epochs {epochs}"
    return (
        f"{message}; its learning rate falls up to epoch {recipe.epochs}, so that fewer epochs are "
        "another training, from the start"
    )

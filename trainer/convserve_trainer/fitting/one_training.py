"""One training, begun or gone on with, to the weights of its best epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import USER_ERRORS, Interrupted
from convserve_trainer.fitting import order
from convserve_trainer.fitting.fit import fit
from convserve_trainer.host.signals import Stopped
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Position, Training
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras


def trained(
    recipe: Recipe, data: Data, run: Run, resume: bool, out: TextIO, *, alone: bool = True
) -> Training:
    """Returns the training after its last epoch, its model with the weights of the best one.

    Args:
        recipe: with all overrides.
        data: to train on.
        run: where it is kept.
        resume: go on from the newest checkpoint; if nothing is left to do, nothing is done.
        out: takes what a user wants to see.
        alone: whether it is all that its command trains.

    Raises:
        TrainerError: anything a user can mend; the checkpoints stay.
        Interrupted: Ctrl-C or SIGTERM; they stay too.
    """
    training = _training(recipe, data, run, resume, out)
    with interruption(recipe, run, alone):
        _print_batch(training.model, data, recipe, out)
        fit(training, data, recipe, run, out)
        _choose_best(training.model, training.history, out)
    return training


@contextmanager
def interruption(recipe: Recipe, run: Run, alone: bool = True) -> Iterator[None]:
    """Makes a stop say what is kept."""
    try:
        yield
    except Stopped as stop:
        raise Interrupted(_stopped(recipe, run, alone), stop.status) from stop


@contextmanager
def kept(recipe: Recipe, run: Run, epochs: int, out: TextIO) -> Iterator[None]:
    """Makes a stop, or an error, after the last of so many epochs say what is kept."""
    try:
        with interruption(recipe, run):
            yield
    except USER_ERRORS:
        if run.kept:
            last = run.kept == Position(epochs)  # unless the disk refused it
            what = "the trained weights are" if last else f"{run.kept} is"
            print(f"{what} kept in {run.folder} for --resume", file=out)
        raise


def _training(recipe: Recipe, data: Data, run: Run, resume: bool, out: TextIO) -> Training:
    """Returns the training to go on with, or a new one."""
    print(f"backend         {keras_backend.described()}", file=out, flush=True)
    if resume:
        training = run.newest(recipe.epochs, lambda line: print(line, file=out, flush=True))
        print(f"resumed after {training.position}", file=out)
    else:
        if run.replace():
            print(
                "an earlier training with these settings was stopped; this one starts anew and "
                "replaces it with the first checkpoint (--resume goes on with it)",
                file=out,
            )
        model = models.build(recipe, data.spec, len(data.labels), len(data.train))
        training = Training(model)
    training.model.summary(line_length=80, print_fn=lambda line: print(line, file=out, flush=True))
    return training


def _print_batch(model: "keras.Model", data: Data, recipe: Recipe, out: TextIO) -> None:
    """Shows one batch as the lecture does, and its values as the first convolution gets them."""
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


def _choose_best(model: "keras.Model", history: History, out: TextIO) -> None:
    """Gives the model the weights that will be published."""
    share = history.input_share
    print(f"input took {share:.1%} of the training steps' time", file=out)
    if history.weights is None:
        return
    model.set_weights(history.weights)
    best = history.best
    print(
        f"best epoch {best.epoch} of {len(history.epochs)}: validation loss {best.val_loss:.4f}, "
        f"accuracy {best.val_accuracy:.4f}; its weights are taken",
        file=out,
        flush=True,
    )


def _stopped(recipe: Recipe, run: Run, alone: bool) -> str:
    if run.kept is None:
        return "stopped; nothing is kept yet"
    epochs, steps = run.kept
    of = "" if alone else f" of seed {recipe.seed}"
    said = f"stopped; {epochs} of {counted(recipe.epochs, 'epoch')}{of}"
    if steps:
        said += f" and {counted(steps, 'step')} of the next"
    said += f" are finished and kept in {run.folder}\ngo on with the same command and --resume"
    if not (epochs and alone):
        return said
    if run_key.may_end_elsewhere(recipe):
        return f"{said}, or publish what there is with --resume --epochs {epochs}"
    return (
        f"{said}; its learning rate falls up to epoch {recipe.epochs}, so that fewer epochs are "
        "another training, from the start"
    )

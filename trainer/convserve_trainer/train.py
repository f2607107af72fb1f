"""The whole way of a net: data, net, fitting, evaluation, export, parity, publishing."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from convserve_trainer import (
    bundle,
    calibrate,
    conversion,
    export,
    keras_backend,
    keras_file,
    manifest,
    models,
    order,
    pictures,
    plot,
    predict,
    publish,
    published,
    refusals,
    run_folder,
    run_settings,
)
from convserve_trainer.conversion import Settings
from convserve_trainer.errors import (
    BundleError,
    Interrupted,
    TrainerError,
)
from convserve_trainer.fit import fit
from convserve_trainer.history import History
from convserve_trainer.parity import Reference
from convserve_trainer.pictures import Data
from convserve_trainer.recipe import Recipe
from convserve_trainer.run_folder import Run
from convserve_trainer.run_settings import Keeping
from convserve_trainer.stops import Stopped
from convserve_trainer.training_state import Training

if TYPE_CHECKING:
    import keras


class Target(NamedTuple):
    """Where a net will be published, and as what.

    Attributes:
        models: the models folder.
        name: of the model.
        version: None for the next free one.
        settings: the precision, and how it is made.
    """

    models: Path
    name: str
    version: int | None = None
    settings: Settings = Settings()


def train(
    recipe: Recipe,
    load: Callable[[], Data],
    target: Target,
    out: TextIO,
    *,
    keeping: Keeping = Keeping(),  # noqa: B008 - it is frozen
    unless_published: bool = False,
) -> Path:
    """Trains, evaluates, exports and publishes a net.

    Args:
        recipe: with all overrides.
        load: returns the data; called once, when all else is known to be right.
        target: where to publish.
        out: takes what a user wants to see.
        keeping: where checkpoints go, and whether to go on from one.
        unless_published: do nothing where the newest version, or the target's, was already made
            so; only the data are loaded.

    Returns:
        The path of the published model.onnx.

    Raises:
        TrainerError: anything a user can mend; the checkpoints stay.
        Interrupted: Ctrl-C or SIGTERM during training; they stay too.
        MemoryError: there is not enough; likewise.
    """
    manifest.check_name(target.name)
    models.check_size(recipe)
    folder = target.models / target.name
    earlier = published.find(folder, target.version) if unless_published else None
    if earlier is None:
        _check_targets(target, keeping)
    data = load()
    models.check_pictures(recipe, data.spec)
    recipe = recipe.for_classes(len(data.labels))
    if data.lifts_floor:
        recipe = recipe.override(min_accuracy=0.0)
    if recipe.validation_share:
        part, validation = pictures.split(data.train, recipe.validation_share)
        data = replace(data, train=part, validation=validation)
    if recipe.calibrate:
        part, unseen = calibrate.kept_out(data.train)
        data = replace(data, train=part, unseen=unseen)
    if earlier is not None:
        if _is_published(earlier, recipe, data, target.settings, out):
            return earlier / bundle.FILE
        _check_targets(target, keeping)
    settings = run_settings.of(recipe, data.sha256, keras_backend.chosen())
    folder = keeping.folder or run_settings.unnamed_folder(target.models, target.name, settings)
    _print_settings(recipe, data, out)

    named = keeping.folder is not None
    with keras_backend.memory_errors(), Run(folder, settings, keeping.seconds, named) as run:
        training = _training(recipe, data, run, keeping.resume, out)
        try:
            _print_batch(training.model, data, recipe, out)
            fit(training, data, recipe, run, out)
            path = _publish(training, recipe, target, data, run, out)
        except Stopped as stop:
            raise Interrupted(_stopped(recipe, run), stop.status) from stop
        run.finish()
    print(f"published {path} ({path.stat().st_size:,} bytes)", file=out, flush=True)
    return path


def _check_targets(target: Target, keeping: Keeping) -> None:
    """Checks what can be known of them before the data are loaded."""
    publish.check_target(target.models, target.name, target.version)
    run_folder.check(keeping)


def _is_published(
    version: Path, recipe: Recipe, data: Data, settings: Settings, out: TextIO
) -> bool:
    """Returns whether a version is what the training would make, and says which way it is."""
    file = version / bundle.FILE
    try:
        differing = published.differences(version, recipe, data, settings, keras_backend.chosen())
    except (BundleError, OSError) as error:
        why = refusals.described(error) if isinstance(error, OSError) else error
        print(f"what is published already cannot be read: {why}", file=out, flush=True)
        return False
    if differing:
        print(f"{file} differs from this training in: {', '.join(differing)}", file=out, flush=True)
        return False
    print(f"{file} is published already, from these settings and data", file=out, flush=True)
    return True


def _print_settings(recipe: Recipe, data: Data, out: TextIO) -> None:
    limited = ", a part of them (--limit)" if recipe.limit is not None else ""
    why = "the recipe's is for MNIST" if data.lifts_floor else "this is not the recipe as written"
    floor = (
        f"{recipe.min_accuracy:.2%} of the held-out {data.what}"
        if recipe.min_accuracy
        else f"none: {why}"
    )
    steps = f"{recipe.steps} steps" if recipe.steps else "one pass"
    schedule = " and falling as a cosine" if recipe.schedule == "cosine" else ""
    lines = [
        f"recipe          {recipe.name}: {recipe.epochs} epochs of {steps}, batches of "
        f"{recipe.batch_size}, {recipe.optimizer} at {recipe.learning_rate:g}{schedule}, "
        f"{recipe.loss}, seed {recipe.seed}",
        f"data            {len(data.train):,} {data.what} to train on{limited}, "
        f"{len(data.held_out):,} held out, classes {', '.join(data.labels)}",
        f"accuracy floor  {floor}",
    ]
    if recipe.validation_steps:
        lines.insert(1, f"validation      {recipe.validation_steps} steps after each epoch at most")
    if data.validation:
        lines.insert(
            1,
            f"validation      {len(data.validation):,} {data.what}, kept out of the training for "
            "it, after each epoch",
        )
    if data.unseen:
        lines.insert(
            1,
            f"calibration     {len(data.unseen):,} {data.what}, kept out of the training for a "
            "temperature",
        )
    print(*lines, sep="\n", file=out, flush=True)


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
    numbers = order.of_epoch(len(data.train), recipe.batch_size, recipe.steps, recipe.seed, 0)
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
        f"accuracy {best.val_accuracy:.4f}; its weights are published",
        file=out,
        flush=True,
    )


def _publish(
    training: Training, recipe: Recipe, target: Target, data: Data, run: Run, out: TextIO
) -> Path:
    """Publishes the best epoch's net; returns the path of its model.onnx."""
    history = training.history
    try:
        _choose_best(training.model, history, out)
        model = models.for_inference(training.model, recipe, data.spec)
        temperature = _calibrate(model, data, out)
        content = _bundle(model, recipe, target, data, history.best.epoch, temperature, out)
        beside = _drawn(history, target.name) | {keras_file.NAME: keras_file.content(model)}
        return publish.publish(content, target.models, target.name, target.version, beside)
    except TrainerError:
        if run.kept:
            last = run.kept == training.position  # unless the disk refused it
            what = "the trained weights are" if last else f"{run.kept} is"
            print(f"{what} kept in {run.folder} for --resume", file=out)
        raise


def _calibrate(model: "keras.Model", data: Data, out: TextIO) -> float:
    """Folds a temperature into the model; returns it, or 0 where no pictures are kept for one."""
    if data.unseen is None:
        return 0.0
    calibrated = calibrate.calibrate(model, data.unseen)
    print(calibrated, file=out, flush=True)
    return calibrated.temperature


def _bundle(
    model: "keras.Model",
    recipe: Recipe,
    target: Target,
    data: Data,
    epochs: int,
    temperature: float,
    out: TextIO,
) -> bytes:
    """Returns the content of model.onnx, evaluated and checked against Keras."""
    parameters = sum(math.prod(weights.shape) for weights in model.trainable_weights)
    model = models.of_columns(model)
    bundled, compared = conversion.convert(
        export.export(model),
        target.settings,
        data,
        recipe.seed,
        Reference("Keras", partial(predict.by_keras, model)),
        recipe.min_accuracy,
        out,
    )
    precision, calibrated = target.settings.precision, target.settings.calibrated_on(data)
    said = manifest.of(
        target.name, recipe, data, epochs, compared, parameters, precision, calibrated
    )
    said.training.temperature = temperature
    manifest.attach(said, bundled)
    return bundled.SerializeToString()


def _drawn(history: History, name: str) -> dict[str, bytes]:
    """Returns the files of the history: a table and its plots."""
    plots = plot.plot(history, name)
    return {"history.csv": history.csv().encode()} | {
        f"history.{kind}": content for kind, content in plots.items()
    }


def _stopped(recipe: Recipe, run: Run) -> str:
    if run.kept is None:
        return "stopped; nothing is kept yet"
    epochs, steps = run.kept
    said = f"stopped; {epochs} of {recipe.epochs} epochs"
    if steps:
        said += f" and {steps} steps of the next"
    said += f" are finished and kept in {run.folder}\ngo on with the same command and --resume"
    return f"{said}, or publish what there is with --resume --epochs {epochs}" if epochs else said

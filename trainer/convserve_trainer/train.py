"""The whole way of a net: data, net, fitting, evaluation, export, parity, publishing."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from convserve_protos.bundle_pb2 import PRECISION_FLOAT32, Precision
from convserve_trainer import (
    bundle,
    export,
    keras_backend,
    manifest,
    models,
    order,
    parity,
    plot,
    precisions,
    predict,
    publish,
    published,
    refusals,
)
from convserve_trainer import checkpoint as checkpoints
from convserve_trainer.checkpoint import Checkpoint
from convserve_trainer.errors import (
    AccuracyError,
    BundleError,
    CheckpointError,
    Interrupted,
    TrainerError,
)
from convserve_trainer.fit import fit
from convserve_trainer.history import History
from convserve_trainer.pictures import Data
from convserve_trainer.recipes import Recipe
from convserve_trainer.stops import Stopped

if TYPE_CHECKING:
    import keras


class Target(NamedTuple):
    """Where a net will be published, and in what precision.

    Attributes:
        models: the models folder.
        name: of the model.
        version: None for the next free one.
        precision: a known one.
    """

    models: Path
    name: str
    version: int | None = None
    precision: Precision.ValueType = PRECISION_FLOAT32


def train(
    recipe: Recipe,
    load: Callable[[], Data],
    target: Target,
    out: TextIO,
    *,
    resume: bool = False,
    unless_published: bool = False,
) -> Path:
    """Trains, evaluates, exports and publishes a net.

    Args:
        recipe: with all overrides.
        load: returns the data; called once, when all else is known to be right.
        target: where to publish.
        out: takes what a user wants to see.
        resume: go on after the last finished epoch of a training that was stopped.
        unless_published: do nothing where the newest version, or the target's, was already made
            so; only the data are loaded.

    Returns:
        The path of the published model.onnx.

    Raises:
        TrainerError: anything a user can mend; finished epochs stay in the checkpoint.
        Interrupted: Ctrl-C or SIGTERM during training; they stay there too.
        MemoryError: there is not enough; likewise.
    """
    manifest.check_name(target.name)
    models.check_size(recipe)
    folder = target.models / target.name
    earlier = published.find(folder, target.version) if unless_published else None
    if earlier is None:
        publish.check_target(target.models, target.name, target.version)
    data = load()
    recipe = recipe.for_classes(len(data.labels))
    if earlier is not None:
        if _is_published(earlier, recipe, data, target.precision, out):
            return earlier / bundle.FILE
        publish.check_target(target.models, target.name, target.version)
    checkpoint = checkpoints.of(target.models, target.name, recipe, data.sha256, len(data.train))
    _print_settings(recipe, data, out)

    with keras_backend.memory_errors():
        model, history = _model(recipe, data, checkpoint, resume, out)
        try:
            _print_batch(model, data, recipe, out)
            fit(model, data, recipe, checkpoint, history, out)
            path = _publish(model, recipe, target, data, history, checkpoint, out)
        except Stopped as stop:
            raise Interrupted(_stopped(model, recipe, checkpoint), stop.status) from stop
    checkpoint.remove()
    print(f"published {path} ({path.stat().st_size:,} bytes)", file=out, flush=True)
    return path


def _is_published(
    version: Path, recipe: Recipe, data: Data, precision: Precision.ValueType, out: TextIO
) -> bool:
    """Returns whether a version is what the training would make, and says which way it is."""
    file = version / bundle.FILE
    try:
        differing = published.differences(version, recipe, data, precision)
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
    floor = (
        f"{recipe.min_accuracy:.2%} of the held-out {data.what}"
        if recipe.min_accuracy
        else "none: this is not the recipe as written"
    )
    steps = f"{recipe.steps} steps" if recipe.steps else "one pass"
    lines = [
        f"recipe          {recipe.name}: {recipe.epochs} epochs of {steps}, batches of "
        f"{recipe.batch_size}, {recipe.optimizer} at {recipe.learning_rate:g}, {recipe.loss}, "
        f"seed {recipe.seed}",
        f"data            {len(data.train):,} {data.what} to train on{limited}, "
        f"{len(data.held_out):,} held out, classes {', '.join(data.labels)}",
        f"accuracy floor  {floor}",
    ]
    if recipe.validation_steps:
        lines.insert(1, f"validation      {recipe.validation_steps} steps after each epoch at most")
    print(*lines, sep="\n", file=out, flush=True)


def _model(
    recipe: Recipe, data: Data, checkpoint: Checkpoint, resume: bool, out: TextIO
) -> "tuple[keras.Model, History]":
    if resume:
        model, history = checkpoint.load()
        finished = checkpoint.epochs(model)
        if finished > recipe.epochs:
            raise CheckpointError(
                f"{finished} epochs are finished already; --epochs {finished} or more goes on"
            )
        print(f"resumed after epoch {finished}", file=out)
    else:
        if checkpoint.path.exists():
            print(
                "an earlier training with these settings was stopped; this one starts anew and "
                "replaces it after the first epoch (--resume goes on with it)",
                file=out,
            )
        model, history = models.build(recipe, data.spec, len(data.labels)), History()
    model.summary(line_length=80, print_fn=lambda line: print(line, file=out, flush=True))
    return model, history


def _print_batch(model: "keras.Model", data: Data, recipe: Recipe, out: TextIO) -> None:
    """Shows one batch as the lecture does, and its values as the first convolution gets them."""
    numbers = order.of_epoch(len(data.train), recipe.batch_size, recipe.steps, recipe.seed, 0)
    pixels, labels = next(data.train.batches(numbers, recipe.batch_size, steps=1))
    scaled = model.layers[0](pixels)
    print(
        f"data batch shape: {pixels.shape}, {pixels.dtype}, {pixels.min()} to {pixels.max()}",
        f"labels batch shape: {labels.shape}",
        f"values after the net's first layer (x 1/255): {float(scaled.numpy().min()):.3f} to "
        f"{float(scaled.numpy().max()):.3f}",
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
    model: "keras.Model",
    recipe: Recipe,
    target: Target,
    data: Data,
    history: History,
    checkpoint: Checkpoint,
    out: TextIO,
) -> Path:
    """Publishes the best epoch's net; returns the path of its model.onnx."""
    try:
        _choose_best(model, history, out)
        content = _bundle(model, recipe, target, data, history.best.epoch, out)
        beside = _drawn(history, target.name)
        return publish.publish(content, target.models, target.name, target.version, beside)
    except TrainerError:
        print(f"the trained weights are kept in {checkpoint.path} for --resume", file=out)
        raise


def _bundle(
    model: "keras.Model", recipe: Recipe, target: Target, data: Data, epochs: int, out: TextIO
) -> bytes:
    """Returns the content of model.onnx, evaluated and checked against Keras."""
    parameters = model.count_params()
    model = models.of_columns(model)
    candidates = parity.candidates(export.export(model), target.precision)
    bundled = candidates[0].model
    export.check(bundled)
    held_out = data.held_out.batches(range(len(data.held_out)), predict.BATCH)
    compared = parity.check(candidates, model, held_out)
    print(f"held-out {data.what}, Keras         {compared.keras}", file=out)
    print(f"held-out {data.what}, ONNX Runtime  {compared.onnxruntime}", file=out)
    print(
        f"largest difference between the two {compared.largest:.1e} "
        f"(bound of {precisions.name(target.precision)} "
        f"{precisions.BOUNDS[target.precision]:.0e}), other labels {compared.others:,}",
        file=out,
        flush=True,
    )
    accuracy = compared.onnxruntime.accuracy
    if accuracy < recipe.min_accuracy:
        raise AccuracyError(
            f"accuracy {accuracy:.2%} is below the floor of {recipe.min_accuracy:.2%}: "
            "nothing was published (--min-accuracy sets another floor)"
        )
    said = manifest.of(target.name, recipe, data, epochs, compared, parameters, target.precision)
    manifest.attach(said, bundled)
    return bundled.SerializeToString()


def _drawn(history: History, name: str) -> dict[str, bytes]:
    """Returns the files of the history: a table and its plots."""
    plots = plot.plot(history, name)
    return {"history.csv": history.csv().encode()} | {
        f"history.{kind}": content for kind, content in plots.items()
    }


def _stopped(model: "keras.Model", recipe: Recipe, checkpoint: Checkpoint) -> str:
    finished = checkpoint.epochs(model)
    if finished == 0:
        return f"stopped in epoch 1 of {recipe.epochs}: no epoch is finished, so nothing is kept"
    return (
        f"stopped; {finished} of {recipe.epochs} epochs are finished and kept in "
        f"{checkpoint.path}\n"
        "go on with the same command and --resume, or publish what there is with "
        f"--resume --epochs {finished}"
    )

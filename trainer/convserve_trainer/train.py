"""The whole way of a digit net: data, net, fitting, evaluation, export, parity, publishing."""

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convserve_trainer import checkpoint as checkpoints
from convserve_trainer import export, manifest, mnist, models, parity, predict, publish
from convserve_trainer.checkpoint import Checkpoint
from convserve_trainer.errors import AccuracyError, CheckpointError, Interrupted, TrainerError
from convserve_trainer.fit import fit
from convserve_trainer.mnist import Dataset
from convserve_trainer.recipes import Recipe
from convserve_trainer.score import score

if TYPE_CHECKING:
    import keras


def train_digits(
    recipe: Recipe,
    models_folder: Path,
    name: str,
    out: TextIO,
    *,
    data: Path | None = None,
    version: int | None = None,
    resume: bool = False,
) -> Path:
    """Trains, evaluates, exports and publishes a net.

    Args:
        recipe: with all overrides.
        models_folder: where to publish.
        name: of the model.
        out: takes what a user wants to see.
        data: folder with MNIST's four files; None for the user's cache or a download.
        version: to publish as; None for the next free one.
        resume: go on after the last finished epoch of a training that was stopped.

    Returns:
        The path of the published model.onnx.

    Raises:
        TrainerError: anything a user can mend; finished epochs stay in the checkpoint.
        Interrupted: Ctrl-C during training; they stay there too.
    """
    manifest.check_name(name)
    publish.check_target(models_folder, name, version)
    dataset = mnist.load(data, lambda line: print(line, file=out, flush=True))
    dataset = dataset.limited(recipe.limit)
    digest = dataset.sha256()
    checkpoint = checkpoints.of(models_folder, name, recipe, digest, len(dataset.train_images))
    _print_settings(recipe, dataset, out)

    model = _model(recipe, checkpoint, resume, out)
    if not fit(model, dataset.train_images, dataset.train_labels, recipe, checkpoint, out):
        raise Interrupted(_stopped(model, recipe, checkpoint))
    try:
        bundle = _bundle(model, recipe, name, dataset, digest, out)
        path = publish.publish(bundle, models_folder, name, version)
    except TrainerError:
        print(f"the trained weights are kept in {checkpoint.path} for --resume", file=out)
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted(_stopped(model, recipe, checkpoint)) from interrupt
    checkpoint.remove()
    print(f"published {path} ({len(bundle):,} bytes)", file=out, flush=True)
    return path


def _print_settings(recipe: Recipe, dataset: Dataset, out: TextIO) -> None:
    trained, held_out = len(dataset.train_images), len(dataset.test_images)
    limited = ", the first ones only (--limit)" if recipe.limit is not None else ""
    floor = (
        f"{recipe.min_accuracy:.2%} of the held-out digits"
        if recipe.min_accuracy
        else "none: this is not the recipe as written"
    )
    lines = [
        f"recipe          {recipe.name}: {recipe.epochs} epochs, batches of {recipe.batch_size}, "
        f"{recipe.optimizer} at {recipe.learning_rate:g}, {recipe.loss}, seed {recipe.seed}",
        f"data            {trained:,} digits to train on{limited}, {held_out:,} held out",
        f"accuracy floor  {floor}",
    ]
    print(*lines, sep="\n", file=out, flush=True)


def _model(recipe: Recipe, checkpoint: Checkpoint, resume: bool, out: TextIO) -> "keras.Model":
    model = models.build(recipe)
    if resume:
        model = checkpoint.load()
        finished = checkpoint.epochs(model)
        if finished > recipe.epochs:
            raise CheckpointError(
                f"{finished} epochs are finished already; --epochs {finished} or more goes on"
            )
        print(f"resumed after epoch {finished}", file=out)
    elif checkpoint.path.exists():
        print(
            "an earlier training with these settings was stopped; this one starts anew and "
            "replaces it after the first epoch (--resume goes on with it)",
            file=out,
        )
    model.summary(line_length=80, print_fn=lambda line: print(line, file=out, flush=True))
    return model


def _bundle(
    model: "keras.Model", recipe: Recipe, name: str, dataset: Dataset, digest: str, out: TextIO
) -> bytes:
    """Returns the content of model.onnx, evaluated and checked against Keras."""
    expected = predict.by_keras(model, dataset.test_images)
    by_keras = score(expected, dataset.test_labels)
    print(f"held-out digits, Keras         {by_keras}", file=out, flush=True)
    if by_keras.accuracy < recipe.min_accuracy:
        raise AccuracyError(
            f"accuracy {by_keras.accuracy:.2%} is below the floor of {recipe.min_accuracy:.2%}: "
            "nothing was published (--min-accuracy sets another floor)"
        )
    exported = export.export(model)
    found, largest = parity.check(exported.SerializeToString(), dataset.test_images, expected)
    by_onnxruntime = score(found, dataset.test_labels)
    print(f"held-out digits, ONNX Runtime  {by_onnxruntime}", file=out)
    print(f"largest difference between the two {largest:.1e}", file=out, flush=True)
    said = manifest.digits(name, recipe, by_onnxruntime, largest, model.count_params(), digest)
    said.metrics["keras_correct"] = by_keras.correct
    manifest.attach(said, exported)
    return exported.SerializeToString()


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

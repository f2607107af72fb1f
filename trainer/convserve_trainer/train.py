"""The whole way of a net: data, net, fitting, evaluation, export, parity, publishing."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from convserve_bundle import publish
from convserve_bundle.contract import MODEL_FILE, VERSION_RULE
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import not_versions
from convserve_host import cpus, os_errors
from convserve_trainer import seeds
from convserve_trainer.bundles import manifests, published
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation import calibrate, predict
from convserve_trainer.export import conversion, export, precisions
from convserve_trainer.export.conversion import ExportOptions
from convserve_trainer.export.parity import Reference
from convserve_trainer.fitting import data_parts, one_training, step_parts
from convserve_trainer.nets import keras_backend, keras_file, models
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.report import page as report
from convserve_trainer.report import plot
from convserve_trainer.runs import run_folder, run_key
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.run_key import CheckpointPolicy
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras


class Target(NamedTuple):
    """Where a net will be published, and in what precision.

    Attributes:
        models: the models folder.
        name: of the model.
        version: None for the next free one.
        settings: the precision, and how it is made.
    """

    models: Path
    name: str
    version: int | None = None
    settings: ExportOptions = ExportOptions()


class TrainedBundle(NamedTuple):
    """What a training made.

    Attributes:
        content: of model.onnx, evaluated and checked against Keras.
        extra_files: content of other files of the bundle, by name.
        history: of the training.
        result: of its seed.
    """

    content: bytes
    extra_files: dict[str, bytes]
    history: History
    result: seeds.Result


def train(
    recipe: Recipe,
    load: Callable[[], Data],
    target: Target,
    out: TextIO,
    *,
    policy: CheckpointPolicy = CheckpointPolicy(),  # noqa: B008 - it is frozen
    unless_published: bool = False,
    seed_count: int = 1,
    asked: report.Invocation | None = None,
) -> Path:
    """Trains, evaluates, exports and publishes a net.

    Of several seeds the first one's net is published. The best on the held-out pictures would be
    one that they chose, and so look better than it is.

    Args:
        recipe: with all overrides.
        load: returns the data; called once, when all else is known to be right.
        target: where to publish.
        out: takes what a user wants to see.
        policy: where checkpoints go, and whether to go on from one.
        unless_published: do nothing where the newest version, or the target's, was already made
            so; only the data are loaded.
        seed_count: how many are trained, the recipe's and the next ones.
        asked: what the report says that the user asked for.

    Returns:
        The path of the published model.onnx.

    Raises:
        TrainerError: anything a user can mend; the checkpoints stay.
        Interrupted: Ctrl-C or SIGTERM during training; they stay too.
        MemoryError: there is not enough; likewise.
    """
    started = time.monotonic()
    manifests.check_name(target.name)
    models.check_size(recipe)
    numbers = [each.seed for each in seeds.recipes(recipe, seed_count)]
    folder = target.models / target.name
    earlier = published.find(folder, target.version) if unless_published else None
    if earlier is None:
        _check_targets(target, policy, numbers)
    if others := not_versions(folder):
        what = ", ".join(str(folder / other) for other in others)
        print(f"not used: {what}: {VERSION_RULE}", file=out, flush=True)
    data = load()
    models.check_pictures(recipe, data.spec)
    recipe = recipe.for_classes(len(data.labels))
    if data.ignore_accuracy_floor:
        recipe = recipe.override(min_accuracy=0.0)
    data = data_parts.parted(data, recipe)
    if earlier is not None:
        if _is_published(earlier, recipe, data, target.settings, seed_count, out):
            return earlier / MODEL_FILE
        _check_targets(target, policy, numbers)
    _print_settings(recipe, data, out)
    if seed_count > 1:
        print(f"seeds           {numbers[0]} to {numbers[-1]}", file=out, flush=True)

    keras_backend.use(step_parts.suitable(recipe, data.spec, cpus.threads()))
    recipes = seeds.recipes(recipe, seed_count)
    with keras_backend.memory_errors(), ExitStack() as held:
        runs = [held.enter_context(run) for run in _runs(recipes, target, data, policy)]
        made, results = _trained(recipes, runs, target, data, policy.resume, out)
        seconds = time.monotonic() - started
        outcome = report.TrainingOutcome(made.content, recipe, data, made.history, results, seconds)
        with one_training.kept(recipe, runs[0], made.result.epochs, out):
            numbered = {report.FILE: report.make_report(outcome, asked)}
            path = publish.publish(
                made.content, target.models, target.name, target.version, made.extra_files, numbered
            )
        for run in runs:
            run.finish()
    print(f"published {path} ({path.stat().st_size:,} bytes)", file=out, flush=True)
    return path


def _check_targets(target: Target, policy: CheckpointPolicy, numbers: Sequence[int]) -> None:
    """Checks what can be known of them before the data are loaded."""
    publish.check_target(target.models, target.name, target.version)
    run_folder.check(policy, numbers)


def _runs(
    recipes: Sequence[Recipe], target: Target, data: Data, policy: CheckpointPolicy
) -> list[Run]:
    """Returns the run of each seed."""
    settings = [run_key.make_run_key(each, data.sha256, keras_backend.chosen()) for each in recipes]
    if policy.folder is None:
        places = [run_key.unnamed_folder(target.models, target.name, each) for each in settings]
    else:
        places = run_folder.seed_folders(policy.folder, [each.seed for each in recipes])
    named = policy.folder is not None
    return [Run(*each, policy.seconds, named) for each in zip(places, settings, strict=True)]


def _is_published(
    version: Path,
    recipe: Recipe,
    data: Data,
    settings: ExportOptions,
    seed_count: int,
    out: TextIO,
) -> bool:
    """Returns whether a version is what the training would make, and says which way it is."""
    file = version / MODEL_FILE
    try:
        differing = published.differences(
            version, recipe, data, settings, seed_count, keras_backend.chosen()
        )
    except (BundleError, OSError) as error:
        why = os_errors.described(error) if isinstance(error, OSError) else error
        print(f"what is published already cannot be read: {why}", file=out, flush=True)
        return False
    if differing:
        print(f"{file} differs from this training in: {', '.join(differing)}", file=out, flush=True)
        return False
    print(f"{file} is published already, from these settings and data", file=out, flush=True)
    return True


def _print_settings(recipe: Recipe, data: Data, out: TextIO) -> None:
    limited = ", a part of them (--limit)" if recipe.limit is not None else ""
    why = (
        "the recipe's is for MNIST"
        if data.ignore_accuracy_floor
        else "this is not the recipe as written"
    )
    floor = (
        f"{recipe.min_accuracy:.2%} of the held-out {data.what}"
        if recipe.min_accuracy
        else f"none: {why}"
    )
    steps = counted(recipe.steps, "step") if recipe.steps else "one pass"
    schedule = " and falling as a cosine" if recipe.schedule == "cosine" else ""
    lines = [
        f"recipe          {recipe.name}: {counted(recipe.epochs, 'epoch')} of {steps}, batches of "
        f"{recipe.batch_size}, {recipe.optimizer} at {recipe.learning_rate:g}{schedule}, "
        f"{recipe.loss}, seed {recipe.seed}",
        f"data            {len(data.train):,} {data.what} to train on{limited}, "
        f"{len(data.held_out):,} held out, classes {', '.join(data.labels)}",
        f"accuracy floor  {floor}",
    ]
    if recipe.validation_steps:
        lines.insert(
            1,
            f"validation      {counted(recipe.validation_steps, 'step')} after each epoch at most",
        )
    if data.validation:
        lines.insert(
            1,
            f"validation      {len(data.validation):,} {data.what}, kept out of the training for "
            "it, after each epoch",
        )
    if data.calibration:
        lines.insert(
            1,
            f"calibration     {len(data.calibration):,} {data.what}, kept out of the training for "
            "a temperature",
        )
    print(*lines, sep="\n", file=out, flush=True)


def _trained(
    recipes: Sequence[Recipe],
    runs: Sequence[Run],
    target: Target,
    data: Data,
    resume: bool,
    out: TextIO,
) -> tuple[TrainedBundle, list[seeds.Result]]:
    """Trains all seeds; returns what is published, which is the first one's, and all results."""
    # One that had not begun when the others were stopped has nothing to go on from.
    begun = [bool(run_folder.found(run.folder)) for run in runs]
    goes_on = [resume and (there or not any(begun)) for there in begun]
    alone = len(recipes) == 1
    made = _made(recipes[0], target, data, runs[0], goes_on[0], out, alone)
    results = [made.result]
    if alone:
        return made, results
    print(made.result, file=out, flush=True)
    for recipe, run, on in zip(recipes[1:], runs[1:], goes_on[1:], strict=True):
        results.append(_result(recipe, target, data, run, on, out))
    print(seeds.format_table(results), file=out)
    print(f"the net of seed {made.result.seed}, the first, is published", file=out, flush=True)
    extra_files = made.extra_files | {seeds.TABLE: seeds.format_csv(results).encode()}
    return made._replace(
        content=seeds.attached(made.content, results), extra_files=extra_files
    ), results


def _result(
    recipe: Recipe, target: Target, data: Data, run: Run, resume: bool, out: TextIO
) -> seeds.Result:
    """Returns what becomes of one of the other seeds; it is not trained again once it is known."""
    of = {"epochs": recipe.epochs, "precision": precisions.name(target.settings.precision)}
    if resume and (left := run.result(**of)) is not None:
        found = seeds.read_result(left, run.folder)
        print(f"{found}; finished before", file=out, flush=True)
        return found
    found = _made(recipe, target, data, run, resume, out, alone=False).result
    run.leave(asdict(found), **of)
    print(found, file=out, flush=True)
    return found


def _made(
    recipe: Recipe, target: Target, data: Data, run: Run, resume: bool, out: TextIO, alone: bool
) -> TrainedBundle:
    """Trains a net; returns that of the best epoch."""
    training = one_training.trained(recipe, data, run, resume, out, alone=alone)
    history, epochs = training.history, len(training.history.epochs)
    with one_training.kept(recipe, run, epochs, out):
        model = models.for_inference(training.model, recipe, data.spec)
        temperature = _calibrate(model, data, out)
        content = _bundle(model, recipe, target, data, history.best.epoch, temperature, out)
        extra_files = _drawn(history, target.name) | {keras_file.NAME: keras_file.content(model)}
    seconds = sum(epoch.seconds for epoch in history.epochs)
    return TrainedBundle(
        content, extra_files, history, seeds.result(recipe, content, epochs, seconds)
    )


def _calibrate(model: "keras.Model", data: Data, out: TextIO) -> float:
    """Folds a temperature into the model; returns it, or 0 where no pictures are kept for one."""
    if data.calibration is None:
        return 0.0
    calibrated = calibrate.calibrate(model, data.calibration)
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
    model = models.with_class_columns(model)
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
    manifest = manifests.make_manifest(
        target.name, recipe, data, epochs, compared, parameters, precision, calibrated
    )
    manifest.training.temperature = temperature
    manifests.attach(manifest, bundled)
    return bundled.SerializeToString()


def _drawn(history: History, name: str) -> dict[str, bytes]:
    """Returns the files of the history: a table and its plots."""
    plots = plot.plot(history, name)
    return {"history.csv": history.csv().encode()} | {
        f"history.{kind}": content for kind, content in plots.items()
    }

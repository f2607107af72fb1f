"""A training from its data to a published bundle, to be read from top to bottom.

    load → build → fit → evaluate → export → check → pack → publish

Each step is a function of one context: it reads what the steps before it made and adds its own.
With several seeds, build to pack are done for each one; the first one's net is published.
"""

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from convserve_bundle.contract import VERSION_RULE
from convserve_bundle.folder import not_versions
from convserve_host import cpus
from convserve_trainer import joint, seeds
from convserve_trainer.bundles import manifests, published
from convserve_trainer.context import Context, TrainedBundle
from convserve_trainer.datasets import splits
from convserve_trainer.evaluation import (
    calibrate,
    corruptions,
    judged,
    judgement,
    predict,
    thresholds,
)
from convserve_trainer.evaluation.judged import AnyJudged
from convserve_trainer.evaluation.traits import Watch
from convserve_trainer.export import conversion, keras_to_onnx, precisions
from convserve_trainer.export.parity import Reference
from convserve_trainer.fitting import messages, shared_state, step_parts
from convserve_trainer.fitting.fit import fit as fit_epochs
from convserve_trainer.nets import keras_backend, keras_file, models, starts, teachers
from convserve_trainer.report import page as report
from convserve_trainer.report import plot
from convserve_trainer.runs import run_folder, run_key
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training
from convserve_trainer.tracking.tracker import EndedRun, StartedRun
from convserve_trainer.tracking.tracking import Tracking, figures


def train(context: Context) -> str:
    """Trains, evaluates, exports and publishes a net.

    Of several seeds the first one's net is published. The best on the held-out pictures would be
    one that they chose, and so look better than it is.

    Returns:
        The path of the published model.onnx, or the URL of its version on object storage.

    Raises:
        TrainerError: anything a user can mend; the checkpoints stay.
        Interrupted: Ctrl-C or SIGTERM during training; they stay too.
        MemoryError: there is not enough; likewise.
    """
    with keras_backend.memory_errors(), ExitStack() as held:
        with ExitStack() as scratch:
            prepare(context, lambda: Path(scratch.enter_context(tempfile.TemporaryDirectory())))
            context.group = held.enter_context(joint.joined(context))
            load(context)
            if context.earlier is not None:
                is_published = _is_published(context.earlier, context)
                if is_published and context.group is not None:
                    joint.settle(context, context.group, is_published)
                if is_published:
                    return context.target.shown(context.earlier)
                _check_target(context)
        messages.print_settings(context.recipe, context.data, context.out)
        parts = step_parts.suitable(context.recipe, context.data.spec, cpus.threads())
        keras_backend.use(parts)
        if context.group is not None:
            joint.settle(context, context.group)
            messages.print_processes(context.recipe, context.group.member, context.out)
        first, *others = _open_runs(context, held)
        bundle = make_bundle(first)
        results = [bundle.result]
        if others:
            results += _train_others(first, bundle.result, others)
            bundle = _state_results(bundle, results)
        path = publish(first, bundle, results)
        first.tracking.end(EndedRun(path, bundle.content, bundle.extra_files))
        for each in (first, *others):
            each.run.finish()
    context.print(f"published {path} ({len(bundle.content):,} bytes)")
    return path


def prepare(context: Context, scratch: Callable[[], Path]) -> None:
    """Refuses what can be known to fail before the data are loaded.

    Args:
        context: of the training.
        scratch: returns an empty folder.
    """
    target = context.target
    manifests.check_name(target.name)
    models.check_size(context.recipe)
    context.origins = starts.check(context.recipe)
    seeds.recipes(context.recipe, context.seed_count)
    teachers.files(context.recipe.distillation)
    folder = target.models / target.name
    if context.unless_published:
        context.earlier = target.find(scratch)
    if context.earlier is None:
        _check_target(context)
    if target.store is None and (others := not_versions(folder)):
        what = ", ".join(str(folder / other) for other in others)
        context.print(f"not used: {what}: {VERSION_RULE}")


def load(context: Context) -> None:
    """Loads the data and fits the recipe to them."""
    data = context.read_data()
    models.check_pictures(context.recipe, data.spec)
    recipe = context.recipe.for_classes(len(data.labels), data.several)
    if data.ignore_accuracy_floor:
        recipe = recipe.override(min_accuracy=0.0)
    context.recipe = recipe
    context.data = splits.reserve(data, recipe.validation_share, recipe.calibrate)


def make_bundle(context: Context) -> TrainedBundle:
    """Returns what one seed becomes: a bundle that is ready to be published."""
    context = copy.copy(context)  # nets are large: they go with it
    build(context)
    track(context)
    with messages.explain_stop(context.recipe, context.run, alone=context.seed_count == 1):
        fit(context)
    epochs = len(context.training.history.epochs)
    with messages.explain_kept(context.recipe, context.run, epochs, context.out):
        evaluate(context)
        export(context)
        check(context)
        pack(context)
    return context.bundle


def build(context: Context) -> None:
    """Builds the net, or reads the training of the newest checkpoint."""
    recipe, data, run = context.recipe, context.data, context.run
    context.print(f"backend         {keras_backend.described()}")
    if context.resume:
        context.training = run.newest(recipe.epochs, context.print)
        context.print(f"resumed after {context.training.position}")
    else:
        if run.replace():
            context.print(
                "an earlier training with these settings was stopped; this one starts anew and "
                "replaces it with the first checkpoint (--resume goes on with it)"
            )
        classes, pictures = len(data.labels), len(data.train)
        model = models.build(recipe, data.spec, classes, pictures, context.print)
        context.training = Training(model)
    if context.group is not None:
        shared_state.share(context.training, context.group)
    context.training.model.summary(line_length=80, print_fn=context.print)


def track(context: Context) -> None:
    """Reports to trackers that the training begins, and each epoch from now on."""
    training, run = context.training, context.run
    earlier = [figures(epoch) for epoch in training.history.epochs]
    recipe = json.loads(context.recipe.to_json())
    context.tracking.start(
        StartedRun(
            context.target.name, recipe, context.data.sha256, run.folder, context.resume, earlier
        )
    )
    run.watch = context.tracking.write


def fit(context: Context) -> None:
    """Trains to the last epoch; the model then has the weights of the best one."""
    training, data, recipe = context.training, context.data, context.recipe
    messages.print_batch(training.model, data, recipe, context.out)
    fit_epochs(training, data, recipe, context.run, context.out, context.group)
    messages.print_best(training.history, context.out)
    if training.history.weights is not None:
        training.model.set_weights(training.history.weights)


def evaluate(context: Context) -> None:
    """Calibrates the net if the recipe says so, and asks it about all held-out pictures.

    Of several labels the thresholds are chosen here, on pictures that are not held out.
    """
    data = context.data
    context.model = models.for_inference(context.training.model, context.recipe, data.spec)
    if data.calibration is not None:
        calibrated = calibrate.calibrate(context.model, data.calibration)
        context.print(calibrated)
        context.temperature = calibrated.temperature
    context.columns = models.with_class_columns(context.model)
    by_keras = partial(predict.by_keras, context.columns)
    if data.thresholds is not None:
        chosen = thresholds.choose(predict.answer(by_keras, data.thresholds))
        context.print(chosen)
        context.thresholds = chosen.thresholds
    watch = Watch(by_keras)
    answers = predict.answer(watch, data.held_out)
    context.traits = watch.traits(data.held_out)
    context.reference = Reference("Keras", answers, context.thresholds)
    conversion.print_score(context.reference, data, context.out)


def export(context: Context) -> None:
    """Makes the net ONNX, in the precision that it is published in."""
    context.candidates = conversion.candidates(
        keras_to_onnx.export(context.columns), context.options, context.data, context.recipe.seed
    )


def check(context: Context) -> None:
    """Compares the published net with Keras on all held-out pictures, and with the floor."""
    context.comparison = conversion.check(
        context.candidates,
        context.options,
        context.data,
        context.reference,
        context.recipe.min_accuracy,
        context.out,
    )


def pack(context: Context) -> None:
    """Puts the manifest into the net, and the history and Keras's file beside it."""
    recipe, history, options = context.recipe, context.training.history, context.options
    manifest = manifests.make_manifest(
        context.target.name,
        recipe,
        context.data,
        history.best.epoch,
        context.comparison,
        sum(math.prod(weights.shape) for weights in context.model.trainable_weights),
        options.precision,
        options.calibrated_on(context.data),
        context.thresholds,
    )
    manifest.training.temperature = context.temperature
    manifests.state_origins(manifest, context.origins)
    net = context.candidates[0].model
    manifests.attach(manifest, net)
    content = net.SerializeToString()
    plots = plot.plot(history, context.target.name)
    found = _judged(context)
    extra_files = {
        "history.csv": history.csv().encode(),
        **{f"history.{kind}": image for kind, image in plots.items()},
        keras_file.NAME: keras_file.content(context.model),
        judgement.FILE: json.dumps(found.judgement.as_dict(), indent=1).encode(),
    }
    seconds = sum(epoch.seconds for epoch in history.epochs)
    result = seeds.result(recipe, content, len(history.epochs), seconds)
    context.bundle = TrainedBundle(content, extra_files, history, found, result)


def publish(context: Context, bundle: TrainedBundle, results: Sequence[seeds.Result]) -> str:
    """Publishes the bundle with its report; returns the path of model.onnx, or the URL."""
    outcome = report.TrainingOutcome(
        bundle.content,
        context.recipe,
        context.data,
        bundle.history,
        results,
        time.monotonic() - context.started,
        bundle.judged,
    )
    epochs = bundle.result.epochs
    with messages.explain_kept(context.recipe, context.run, epochs, context.out):
        numbered = {report.FILE: report.make_report(outcome, context.invocation)}
        return context.target.publish(bundle.content, bundle.extra_files, numbered)


def _check_target(context: Context) -> None:
    """Checks what can be known of the target and the run before the data are loaded."""
    context.target.check()
    recipes = seeds.recipes(context.recipe, context.seed_count)
    run_folder.check(context.policy, [recipe.seed for recipe in recipes])


def _judged(context: Context) -> AnyJudged:
    """Returns how the exported net does on all held-out pictures."""
    data, answers = context.data, context.comparison.answers
    labels, traits = data.labels, context.traits
    if context.thresholds is not None:
        return judged.judge_labels(labels, answers, data.held_out, traits, context.thresholds)
    net = context.candidates[0].model.SerializeToString()
    asked = partial(predict.by_onnxruntime, predict.session(net))
    changed = corruptions.corrupted(asked, data.held_out, data.spec.kind)
    return judged.judge(labels, answers, data.held_out, traits, changed)


def _is_published(version: Path, context: Context) -> bool:
    return published.is_published(
        version,
        context.recipe,
        context.data,
        context.options,
        context.seed_count,
        keras_backend.chosen(),
        context.out,
        context.target.shown(version),
        context.origins,
    )


def _open_runs(context: Context, held: ExitStack) -> list[Context]:
    """Returns a context for each seed, each with a run that `held` closes."""
    recipes = seeds.recipes(context.recipe, context.seed_count)
    if context.seed_count > 1:
        context.print(f"seeds           {recipes[0].seed} to {recipes[-1].seed}")
    policy, target = context.policy, context.target
    backend = keras_backend.chosen()
    keys = [
        run_key.make_run_key(recipe, context.data.sha256, backend, context.origins)
        for recipe in recipes
    ]
    if policy.folder is None:
        folders = [run_key.unnamed_folder(target.models, target.name, key) for key in keys]
    else:
        folders = run_folder.seed_folders(policy.folder, [recipe.seed for recipe in recipes])
    contexts = []
    for recipe, folder, key in zip(recipes, folders, keys, strict=True):
        seed = copy.copy(context)
        seed.recipe = recipe
        seed.run = Run(folder, key, policy.seconds, named=policy.folder is not None)
        held.enter_context(seed.run)
        seed.tracking = held.enter_context(Tracking(context.trackers, context.out))
        contexts.append(seed)
    # One that had not begun when the others were stopped has nothing to go on from.
    begun = [bool(run_folder.found(seed.run.folder)) for seed in contexts]
    for seed, there in zip(contexts, begun, strict=True):
        seed.resume = policy.resume and (there or not (any(begun) or policy.or_start))
    return contexts


def _train_others(
    first: Context, result: seeds.Result, others: Sequence[Context]
) -> list[seeds.Result]:
    """Returns the results of the other seeds, and prints a table of all."""
    first.print(result)
    results = [_train_other(context) for context in others]
    first.print(seeds.format_table([result, *results]))
    first.print(f"the net of seed {result.seed}, the first, is published")
    return results


def _train_other(context: Context) -> seeds.Result:
    """Returns the result of one of the other seeds; it is not trained again once it is known."""
    precision = precisions.name(context.options.precision)
    decisive = {"epochs": context.recipe.epochs, "precision": precision}
    left = context.run.kept_result(**decisive) if context.resume else None
    if left is not None:
        result = seeds.read_result(left, context.run.folder)
        context.print(f"{result}; finished before")
        return result
    bundle = make_bundle(context)
    context.tracking.end(EndedRun(None, bundle.content, bundle.extra_files))
    result = bundle.result
    context.run.keep_result(asdict(result), **decisive)
    context.print(result)
    return result


def _state_results(bundle: TrainedBundle, results: Sequence[seeds.Result]) -> TrainedBundle:
    """Returns the bundle with the results of all seeds in its manifest and beside it."""
    return bundle._replace(
        content=seeds.with_results(bundle.content, results),
        extra_files=bundle.extra_files | {seeds.TABLE: seeds.format_csv(results).encode()},
    )

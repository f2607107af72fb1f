"""Trains a trial, through the trainer's own steps, so that it can be stopped and gone on with."""

import io
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from benchmarks.best.results import Result
from benchmarks.best.trials import Study, Trial
from benchmarks.harness.command import tell
from benchmarks.harness.report import machine
from convserve_host import atomic_file
from convserve_trainer.bundles.describe import count_operations
from convserve_trainer.datasets import splits
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation import corruptions, predict
from convserve_trainer.evaluation.score import score
from convserve_trainer.export import keras_to_onnx
from convserve_trainer.fitting.fit import fit
from convserve_trainer.nets import keras_file, models
from convserve_trainer.runs import run_folder, run_key
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training

if TYPE_CHECKING:
    import keras

PACKAGES = ("convserve", "keras", "numpy", "onnxruntime", "tensorflow")
CHECKPOINT_S = 60.0


class _Progress(io.StringIO):
    """Passes lines of progress on."""

    def write(self, text: str) -> int:
        """Tells what is not empty."""
        if text.strip():
            tell(text.rstrip())
        return len(text)


class _Trained(NamedTuple):
    """A net at the end of its training.

    Attributes:
        file: net.keras.
        model: for inference.
        history: of the training.
        resumed: whether it was gone on with.
    """

    file: Path
    model: "keras.Model"
    history: History
    resumed: bool


def run(study: Study, trial: Trial, seed: int, data: Data, work: Path, test: bool) -> Result:
    """Returns what came of a trial; goes on with a training that was stopped.

    Args:
        study: with all trials.
        trial: one of them.
        seed: of the training.
        data: of the task, whole.
        work: folder for checkpoints and nets.
        test: train on all training pictures and judge by the test set, and not by a share.

    Raises:
        TrainerError: what a user can mend.
        Stopped: Ctrl-C or SIGTERM; what was kept is gone on with.
    """
    judged: Literal["validation", "test"] = "test" if test else "validation"
    data = data if test else splits.reserve(data, study.share, calibrate=False)
    pictures = data.held_out if test else data.validation
    assert pictures is not None, "reserve keeps some"
    _, model, history, resumed = _trained(study, trial, seed, data, work / judged)
    columns = models.with_class_columns(model)
    onnx_model = keras_to_onnx.export(columns)
    net = partial(predict.by_onnxruntime, predict.session(onnx_model.SerializeToString()))
    found = score(*predict.answer(net, pictures))
    changed = corruptions.corrupted(net, pictures, data.spec.kind)
    on = machine(PACKAGES)
    return Result(
        trial=trial.name,
        seed=seed,
        digest=study.digest(trial, seed),
        judged=judged,
        pictures=found.total,
        correct=found.correct,
        loss=found.loss,
        changed={each.change: each.correct for each in changed},
        parameters=sum(math.prod(weights.shape) for weights in model.trainable_weights),
        flop=count_operations(onnx_model),
        epochs=len(history.epochs),
        minutes=sum(epoch.seconds for epoch in history.epochs) / 60,
        resumed=resumed,
        processor=on["processor"],
        cpus=on["cpus"],
        versions={name: on[name] for name in PACKAGES},
        date=on["date"],
    )


def net_file(study: Study, trial: Trial, seed: int, work: Path) -> Path:
    """Returns where the net of a trial is once it is trained, beside its checkpoints."""
    return work / f"{trial.name}-{seed}-{study.digest(trial, seed)}" / keras_file.NAME


def _trained(study: Study, trial: Trial, seed: int, data: Data, work: Path) -> _Trained:
    """Trains a trial's net, after its teachers, or finds it trained."""
    recipe = study.recipe_of(trial, seed).for_classes(len(data.labels))
    if names := recipe.distillation.teachers:
        taught = [_trained(study, study.trial(name), 1, data, work).file for name in names]
        recipe = recipe.override({"distillation.teachers": list(map(str, taught))})
    file = net_file(study, trial, seed, work)
    folder = file.parent
    key = run_key.make_run_key(recipe, data.sha256) | {"share": study.share}
    with Run(folder, key, CHECKPOINT_S, named=True) as run:
        resumed = bool(run_folder.found(folder))
        if resumed:
            training = run.newest(recipe.epochs, tell)
            tell(f"{trial.name}, seed {seed}: resumed after {training.position}")
        else:
            model = models.build(recipe, data.spec, len(data.labels), len(data.train))
            training = Training(model)
        fit(training, data, recipe, run, _Progress())
        if training.history.weights is not None:
            training.model.set_weights(training.history.weights)
    model = models.for_inference(training.model, recipe, data.spec)
    with atomic_file.replaced(file) as temporary:
        temporary.write_bytes(keras_file.content(model))
    return _Trained(file, model, training.history, resumed)

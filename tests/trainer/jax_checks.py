"""What test_jax.py has checked in a process of its own: a process has one backend."""

import contextlib
import io
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer import pipeline
from convserve_trainer.bundles import bundle
from convserve_trainer.errors import ExportError
from convserve_trainer.fitting import chunks, jax_steps
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.runs import checkpoint
from convserve_trainer.runs.run_folder import found
from convserve_trainer.runs.training_state import Position, Training
from tests.trainer.drawn import draw_parts
from tests.trainer.fitting.test_tensorflow_steps import _batches, _net, _state
from tests.trainer.teaching import teacher
from tests.trainer.test_jax import (
    CLASS_WEIGHTS,
    CLASSES,
    REFERENCE,
    SMALL_SPEC,
    reference_batches,
    small_recipe,
)

keras_backend.choose("jax")

EVERYTHING = """
task = "photos"
net = [
  { layer = "conv", filters = 4, stride = 2, norm = "batch" },
  { layer = "global_average" },
  { layer = "dropout", rate = 0.3 },
]
loss = "binary_crossentropy"
height = 22
width = 24
optimizer = "adamw"
weight_decay = 0.01
schedule = "cosine"
warmup_epochs = 1
label_smoothing = 0.1
class_weights = "balanced"
epochs = 2
batch_size = 7
validation_share = 0.2

[augmentation]
rotation = 10
flip = true
brightness = 0.1
erase = 0.2
elastic = 0.03
levels = 0.3
mixup = 0.4
cutmix = 1.0

[distillation]
teachers = ["TEACHER"]
temperature = 2
"""


def _trained(model: Any, batches: list[Any], *sizes: int) -> list[dict[str, float]]:
    """Trains in chunks of these sizes; returns the figures."""
    steps, left = jax_steps.Steps(model, StepChunker()), iter(batches)
    return [each for size in sizes for each in steps.train([next(left) for _ in range(size)])]


def test_chunks_change_no_bit_and_a_smaller_batch_is_a_step_like_others() -> None:
    alone, together = _net(), _net()
    batches = _batches(8, 8, 8, 8, 5)
    before = together.get_weights()
    copies = [weights.copy() for weights in before]
    figures = _trained(alone, batches, 1, 1, 1, 1, 1)
    assert _trained(together, batches, 2, 2, 1) == figures
    rates = [0.01 * 0.5 ** (at / 2) for at in range(5)]
    assert [each["learning_rate"] for each in figures] == pytest.approx(rates)
    states = _state(alone), _state(together)
    for name, value in states[0].items():
        assert np.array_equal(value, states[1][name]), name
    # Their memory was given away.
    for one, other in zip(before, copies, strict=True):
        assert np.array_equal(one, other), "weights that were kept have changed"


def test_figures_and_weights_are_keras_own() -> None:
    keras, ours = _net(), _net()
    batches = _batches(8, 8)
    for batch, figures in zip(batches, _trained(ours, batches, 2), strict=True):
        figures.pop("learning_rate")
        expected = keras.train_on_batch(*batch, return_dict=True)
        assert figures == pytest.approx({name: float(of) for name, of in expected.items()})
    before = _state(ours)
    for name, value in _state(keras).items():
        assert before[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    [figures] = jax_steps.Steps(ours, StepChunker()).test(batches[:1])
    expected = ours.test_on_batch(*batches[0], return_dict=True)
    assert figures == pytest.approx({name: float(of) for name, of in expected.items()})
    for name, value in _state(ours).items():
        assert np.array_equal(value, before[name]), f"{name} is changed by testing"


def test_same_weights_and_pictures_give_what_tensorflow_makes_of_them() -> None:
    folder = Path(os.environ[REFERENCE])
    model = checkpoint.load(folder / "before.keras").model
    steps = jax_steps.Steps(model, StepChunker(), CLASS_WEIGHTS)
    found = steps.train(reference_batches())
    with np.load(folder / "after.npz") as after:
        for name in ("loss", "accuracy", "learning_rate"):
            assert [each[name] for each in found] == pytest.approx(after[name], rel=1e-5), name
        for at, variable in enumerate(model.trainable_variables):
            expected = after[f"weights {at}"]
            assert variable.numpy() == pytest.approx(expected, abs=1e-5), variable.path


def test_body_is_frozen_and_then_moves_more_slowly_than_the_rest(tmp_path: Path) -> None:
    start = str(Path(os.environ[REFERENCE]) / "before.keras")
    moved = []
    for rate in (1.0, 0.25):
        given = small_recipe().override(
            {"start_from": start, "freeze_epochs": 1, "epochs": 2, "body_rate": rate}
        )
        model = models.build(given, SMALL_SPEC, CLASSES, pictures=16)
        before = model.get_weights()
        jax_steps.Steps(model, StepChunker(), CLASS_WEIGHTS).train(reference_batches())
        pairs = zip(before, model.get_weights(), strict=True)
        changed = [not np.array_equal(one, other) for one, other in pairs]
        assert changed == [False] * (len(before) - 2) + [True] * 2
        models.thaw(model, given, 16)
        jax_steps.build_optimizer(model)
        checkpoint.save(Training(model), {}, tmp_path / "thawed.keras")
        model = checkpoint.load(tmp_path / "thawed.keras").model
        before = model.get_weights()[0]
        jax_steps.Steps(model, StepChunker(), CLASS_WEIGHTS).train(reference_batches()[:1])
        moved.append(model.get_weights()[0] - before)
    assert moved[1] == pytest.approx(0.25 * moved[0], rel=1e-3, abs=1e-7)
    assert np.abs(moved[0]).max() > 1e-5


def test_memory_that_jax_does_not_get_is_an_error_of_memory() -> None:
    keras = keras_backend.load()
    with (
        pytest.raises(MemoryError, match=r"^allocating 4503599627370496 bytes$"),
        keras_backend.memory_errors(),
    ):
        keras.ops.zeros((2**20, 2**30)).block_until_ready()


def test_process_that_has_a_backend_takes_no_other() -> None:
    with pytest.raises(RuntimeError, match="Keras is on jax in this process"):
        keras_backend.choose("tensorflow")


class Interrupting(io.StringIO):
    """Takes an output, and makes a Ctrl-C when a line says this."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def write(self, text: str) -> int:
        if self._at in text and self._at not in self.getvalue():
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def _fit(output: io.StringIO, *command: str) -> int:
    with contextlib.redirect_stdout(output):
        return main(["fit", "photos", "--backend", "jax", "--seed", "3", *command])


def _no_export(_: object) -> None:
    """Saves the start of the process that exports: TensorFlow's takes seconds."""
    raise ExportError("the training is all that is wanted")


def test_stopped_and_resumed_training_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_parts(tmp_path / "data", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})
    recipe = tmp_path / "all.toml"
    taught = teacher(tmp_path, InputSpec(height=22, width=24, channels=3), classes=2)
    recipe.write_text(EVERYTHING.replace("TEACHER", str(taught)))
    common = ["--data", str(data), "--recipe", str(recipe), "--models", str(tmp_path / "models")]
    common += ["--min-accuracy", "0", "--name", "mine"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    with monkeypatch.context() as unpublished:
        unpublished.setattr(pipeline, "export", _no_export)
        assert _fit(io.StringIO(), *common, "--run", str(whole)) == 1
    assert capsys.readouterr().err == "convserve-train: the training is all that is wanted\n"

    with monkeypatch.context() as slow:
        slow.setattr(chunks, "CHUNK_S", 0)
        output = Interrupting("epoch 2/2  step 1/3 ")
        assert _fit(output, *common, "--run", str(run), "--checkpoint-seconds", "0") == 130
    assert found(run)[0] == Position(1, 1)
    assert capsys.readouterr().err.startswith(
        "convserve-train: stopped; 1 of 2 epochs and 1 step of"
    )
    resumed = io.StringIO()
    assert _fit(resumed, *common, "--run", str(run), "--resume") == 0
    assert "\nresumed after epoch 2, step 1\n" in resumed.getvalue()
    assert "\nbackend         jax " in resumed.getvalue()

    ends = [checkpoint.load(each / "checkpoints/epoch-0002.keras") for each in (whole, run)]
    states = [[*end.model.variables, *end.model.optimizer.variables] for end in ends]
    # Keras counts the generators that it makes, also across models.
    paths = [[re.sub(r"seed_generator(_\d+)?/", "/", one.path) for one in each] for each in states]
    assert paths[0] == paths[1]
    for one, other in zip(*states, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path

    training = bundle.read_manifest(tmp_path / "models" / "mine").training
    assert training.backend == "jax"
    assert {"jax", "jaxlib", "tensorflow"} <= set(training.versions)
    assert 0 < training.parity_max_abs <= 1e-5
    assert capsys.readouterr().err == ""

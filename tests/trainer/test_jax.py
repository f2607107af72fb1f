"""Keras on JAX: checked in a process of its own, and beside TensorFlow, which this one has."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes import recipe, recipe_files
from convserve_trainer.recipes.layers import Conv, Dense, Flatten
from convserve_trainer.runs import checkpoint, run_key
from convserve_trainer.runs.training_state import Training

pytestmark = pytest.mark.timeout(1000)


REFERENCE = "CONVSERVE_TEST_REFERENCE"  # folder of what TensorFlow makes of the batches
SIDE, CLASSES = 8, 3
SMALL_SPEC = InputSpec(height=SIDE, width=SIDE, channels=1)
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0], np.float32)


def reference_batches() -> list[Any]:
    """Two batches of pixels, targets and what each picture counts."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, CLASSES, (2, 8))
    pixels = generator.integers(0, 256, (2, 8, SIDE, SIDE, 1), np.uint8)
    return [
        (of_batch, np.eye(CLASSES, dtype=np.float32)[right], CLASS_WEIGHTS[right])
        for of_batch, right in zip(pixels, labels, strict=True)
    ]


def small_recipe() -> recipe.Recipe:
    """Of a net without random layers."""
    return recipe.Recipe(
        name="small",
        task="digits",
        net=(Conv(filters=4, norm="batch"), Conv(filters=4), Flatten(), Dense(units=8)),
        # An optimizer that divides by gradients would make much of tiny differences.
        optimizer="sgd",
        label_smoothing=0.1,
        learning_rate=0.05,
        epochs=1,
        batch_size=8,
    )


def _write_reference(folder: Path) -> None:
    """Writes a net without random layers, and what TensorFlow makes of it in two steps."""
    from convserve_trainer.fitting.tensorflow_steps import Steps

    model = models.build(small_recipe(), SMALL_SPEC, CLASSES, pictures=16)
    model.optimizer.build(model.trainable_variables)
    checkpoint.save(Training(model), {}, folder / "before.keras")
    figures = Steps(model, StepChunker(), CLASS_WEIGHTS).train(reference_batches())
    after: dict[str, Any] = {name: [each[name] for each in figures] for name in figures[0]}
    weights = enumerate(model.trainable_variables)  # the paths are the backend's
    after |= {f"weights {at}": variable.numpy() for at, variable in weights}
    np.savez(folder / "after.npz", **after)


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed (the extra jax)")
def test_keras_on_jax_in_a_process_of_its_own(tmp_path: Path) -> None:
    _write_reference(tmp_path)
    checks = Path(__file__).with_name("jax_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(checks)]
    environment = os.environ | {
        REFERENCE: str(tmp_path),
        # The checks train the same nets several times; compiling takes most of the time.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=checks.parents[2]
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_jax_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keras_backend, "_chosen", None)
    monkeypatch.setattr(keras_backend, "find_spec", lambda name: None)
    assert main(["fit", "digits", "--backend", "jax"]) == 1
    message = "jax is not installed; run: pip install 'convserve[train,jax]'"
    assert capsys.readouterr().err == f"convserve-train: {message}\n"


def test_another_backend_is_another_training() -> None:
    lecture = recipe_files.find("lecture", "digits")
    before, now = (
        run_key.make_run_key(lecture, "0" * 64, backend) for backend in keras_backend.BACKENDS
    )
    assert run_key.differences(before, now) == "backend was tensorflow, is jax"
    assert run_key.differences(now, before) == "backend was jax, is tensorflow"
    assert run_key.differences(now, dict(now)) == ""

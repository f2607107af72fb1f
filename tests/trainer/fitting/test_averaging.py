"""Averages of weights: their values, their statistics, and that a resume changes neither."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import IMAGE_KIND_PIXELS, InputSpec
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.errors import UsageError
from convserve_trainer.fitting import averaging
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.fit import fit
from convserve_trainer.fitting.tensorflow_steps import Steps
from convserve_trainer.nets import models
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training
from tests.trainer.teaching import PLAIN

SPEC = InputSpec(height=8, width=8, channels=1, kind=IMAGE_KIND_PIXELS)
NORMALISED = [{"layer": "conv", "filters": 3, "norm": "batch"}, {"layer": "flatten"}]
RECIPE = PLAIN.override(averaging=0.8, batch_size=10, epochs=3, learning_rate=0.01)


def _data(count: int = 40) -> Data:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 8, 8, 1), np.uint8)
    pictures = ArrayPictures(pixels, np.arange(count) % 3)
    return Data("pictures", ("a", "b", "c"), SPEC, pictures, pictures, "0" * 64)


def _built(recipe: Recipe) -> Training:
    return Training(models.build(recipe, SPEC, 3, pictures=40))


def _fitted(recipe: Recipe, folder: Path, training: Training | None = None) -> Training:
    training = training or _built(recipe)
    with Run(folder, run_key.make_run_key(recipe, "0" * 64), 60, named=True) as run:
        fit(training, _data(), recipe, run, io.StringIO())
    return training


def _weights(training: Training) -> list[npt.NDArray[np.float32]]:
    assert training.history.weights is not None
    return training.history.weights


def test_average_keeps_so_much_of_itself_in_each_step() -> None:
    data, training = _data(), _built(RECIPE)
    model = training.model
    steps = Steps(model, StepChunker())
    expected: list[Any] = []
    for number in range(5):
        pixels = data.train.batches(range(number * 8, number * 8 + 8), 8)
        batch, labels = next(pixels)
        steps.train([(batch, np.eye(3, dtype=np.float32)[labels])])
        now = model.get_weights()
        expected = [0.8 * old + 0.2 * new for old, new in zip(expected or now, now, strict=True)]
    found = averaging.averaged(model, data.train, RECIPE)
    for average, one, last in zip(found, expected, model.get_weights(), strict=True):
        assert average == pytest.approx(one, abs=1e-6)
        assert np.abs(average - last).max() > 1e-4
    for one, last in zip(now, model.get_weights(), strict=True):
        assert np.array_equal(one, last), "the training's own weights are changed"


def test_statistics_of_normalisations_are_those_of_the_averaged_weights(tmp_path: Path) -> None:
    recipe = RECIPE.override({"net": NORMALISED, "averaging": 0.99, "learning_rate": 0.1})
    training = _fitted(recipe, tmp_path)
    model = training.model
    before = model.get_weights()
    model.set_weights(_weights(training))
    [normalization] = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    [convolution] = [layer for layer in model.layers if layer.name == "conv2d"]
    values = np.array(convolution(_data().train.pixels / np.float32(255)))  # type: ignore[attr-defined]
    mean = np.array(normalization.moving_mean)
    assert mean == pytest.approx(values.mean(axis=(0, 1, 2)), abs=0.03 * float(values.std()))
    model.set_weights(before)
    assert np.abs(np.array(normalization.moving_mean) - mean).max() > 0.1 * values.std()


@pytest.mark.parametrize("net", [None, NORMALISED])
def test_resumed_training_has_the_same_average(net: Any, tmp_path: Path) -> None:
    recipe = RECIPE if net is None else RECIPE.override(net=net)
    whole = _fitted(recipe, tmp_path / "whole")
    _fitted(recipe.override(epochs=2), tmp_path / "part")
    with Run(tmp_path / "part", run_key.make_run_key(recipe, "0" * 64), 60, named=True) as run:
        resumed = run.newest(3, print)
    assert resumed.history.weights is None
    _fitted(recipe, tmp_path / "part", resumed)
    for one, other in zip(_weights(whole), _weights(resumed), strict=True):
        assert np.array_equal(one, other)


def test_average_is_refused_beside_a_validation() -> None:
    with pytest.raises(UsageError, match="^averaging: expected without validation_share"):
        RECIPE.override(validation_share=0.1)

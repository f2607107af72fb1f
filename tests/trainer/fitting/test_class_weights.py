"""class_weights = "balanced": a class with few pictures counts as much as one with many."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.fitting import fit
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training

MANY, FEW = 190, 10


def _recipe(class_weights: str) -> Recipe:
    values = {
        "name": "small",
        "task": "digits",
        "net": [{"layer": "flatten"}],
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "epochs": 6,
        "batch_size": 20,
        "class_weights": class_weights,
    }
    return recipe.make_recipe(values, "")


def _pictures(many: int, few: int, seed: int) -> ArrayPictures:
    """Grey pictures of noise; those of the rare class are a little lighter, not all of them."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat([0, 1], [many, few]))
    light = generator.normal(110 + 25 * labels, 12)[:, None, None, None]
    noise = generator.normal(0, 20, (len(labels), 4, 4, 1))
    return ArrayPictures(np.clip(light + noise, 0, 255).astype(np.uint8), labels)


def _recall(folder: Path, class_weights: str) -> npt.NDArray[np.float64]:
    """Returns the share of each class that a net gets right which was trained so."""
    settings = _recipe(class_weights)
    spec = InputSpec(height=4, width=4, channels=1)
    held_out = _pictures(200, 200, seed=2)
    data = Data("pictures", ("0", "1"), spec, _pictures(MANY, FEW, seed=1), held_out, "0" * 64)
    training = Training(models.build(settings, spec, 2, len(data.train)))
    with Run(folder, run_key.make_run_key(settings, data.sha256), 60, True) as run:
        fit.fit(training, data, settings, run, io.StringIO())
    answers: Any = training.model.predict_on_batch(held_out.pixels)
    right = answers.argmax(axis=1) == held_out.labels
    return np.array([right[held_out.labels == label].mean() for label in (0, 1)])


def test_rare_class_counts_as_much_more_as_it_is_rarer() -> None:
    weights = fit._class_weights(_pictures(MANY, FEW, seed=1), _recipe("balanced"))
    assert weights is not None
    assert weights == pytest.approx([200 / (2 * MANY), 200 / (2 * FEW)])
    assert weights @ [MANY, FEW] == pytest.approx(200), "1 on average over all pictures"
    assert fit._class_weights(_pictures(MANY, FEW, seed=1), _recipe("none")) is None


def test_balanced_net_finds_more_of_the_rare_class(tmp_path: Path) -> None:
    plain, balanced = _recall(tmp_path / "none", "none"), _recall(tmp_path / "b", "balanced")
    assert plain[0] > 0.95, "nearly all are classified as the frequent class"
    assert balanced[1] > plain[1] + 0.2
    assert balanced.mean() > plain.mean()

"""Which pictures choose the epoch that is published, and when that ends a training."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.datasets.splits import split
from convserve_trainer.errors import DataError
from convserve_trainer.fitting.fit import _validate, fit
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training

SIDE = 6
SMALL = recipe.make_recipe(
    {
        "name": "small",
        "task": "digits",
        "net": [{"layer": "conv", "filters": 2}, {"layer": "flatten"}],
        **{"epochs": 9, "batch_size": 64, "validation_share": 0.25, "patience": 2},
    },
    "",
)


def _pictures(count: int, labels: Any = None) -> ArrayPictures:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
    return ArrayPictures(pixels, np.arange(count) % 3 if labels is None else np.array(labels))


def _data(count: int = 120) -> Data:
    spec = InputSpec(height=SIDE, width=SIDE, channels=1)
    train, validation = split(_pictures(count), 0.25)
    labels = ("a", "b", "c")
    return Data("pictures", labels, spec, train, _pictures(90), "0" * 64, validation)


class _Counting:
    """A net whose figures are the labels' mean; stands in for Keras's and its steps."""

    output_shape = (None, 3)

    def __init__(self) -> None:
        self.labels: list[list[int]] = []

    def test(self, batches: Any) -> list[dict[str, float]]:
        [(_, targets)] = batches
        self.labels.append(targets.argmax(axis=1).tolist())
        mean = float(targets.argmax(axis=1).mean())
        return [{"loss": mean, "accuracy": mean / 10}]


@pytest.mark.parametrize(
    ("steps", "sizes"), [(2, [64, 64]), (3, [64, 64, 64]), (9, [64, 64, 64, 8])]
)
def test_validation_steps_take_the_first_held_out_pictures_at_most_all(
    steps: int, sizes: list[int]
) -> None:
    held_out = _pictures(200)
    data, model = replace(_data(), held_out=held_out, validation=None), _Counting()
    changes = {"validation_share": 0.0, "patience": None, "validation_steps": steps}
    unasked: Any = model
    found = _validate(unasked, data, recipe.make_recipe(SMALL.values() | changes, ""), unasked)
    assert [len(each) for each in model.labels] == sizes
    mean = held_out.labels[: sum(sizes)].mean()
    assert found == pytest.approx({"loss": mean, "accuracy": mean / 10})


def test_validation_share_takes_none_of_what_is_held_out() -> None:
    data, model = _data(), _Counting()
    unasked: Any = model
    _validate(unasked, data, SMALL, unasked)
    assert data.validation is not None
    assert sum(model.labels, []) == data.validation.labels.tolist()


def test_split_keeps_the_shares_of_classes_and_loses_nothing() -> None:
    labels = [0] * 40 + [1] * 8 + [2] * 2
    pictures = _pictures(50, labels)
    first, second = split(pictures, 0.25)
    assert np.bincount(second.labels).tolist() == [10, 2, 1]
    assert sorted([*first.numbers, *second.numbers]) == list(range(50))
    assert second.labels.tolist() != sorted(second.labels)  # any first part is a fair sample
    again = split(pictures, 0.25)
    assert np.array_equal(again[1].numbers, second.numbers)
    [(pixels, found)] = second.batches([3, 0], 9)
    assert np.array_equal(pixels, pictures.pixels[second.numbers[[3, 0]]])
    assert np.array_equal(found, second.labels[[3, 0]])


def test_class_with_one_picture_cannot_be_split() -> None:
    with pytest.raises(DataError, match="class 1 has a single picture"):
        split(_pictures(3, [0, 1, 0]), 0.5)


def _fit(folder: Path, given: Recipe, losses: Iterator[float] | None, resume: bool = False) -> str:
    data, out = _data(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patched,
        Run(folder, run_key.make_run_key(given, "0" * 64), 60, named=True) as run,
    ):
        if losses is not None:
            figures = {"accuracy": 0.5}
            patched.setattr(
                "convserve_trainer.fitting.fit._validate",
                lambda *_: figures | {"loss": next(losses)},
            )
        if resume:
            training = run.newest(given.epochs, print)
        else:
            training = Training(models.build(given, data.spec, 3, len(data.train)))
        fit(training, data, given, run, out)
    assert training.history.weights is not None
    return f"{len(training.history.epochs)} {training.history.best.epoch}\n{out.getvalue()}"


def test_patience_ends_the_training_and_the_best_epoch_stays(tmp_path: Path) -> None:
    losses = iter([0.9, 0.5, 0.6, 0.4, 0.7, 0.4, 0.1])
    output = _fit(tmp_path, SMALL, losses)
    assert output.startswith("6 4\n")
    assert "no lower validation loss in 2 epochs: stopped after epoch 6 of 9" in output
    assert _fit(tmp_path, SMALL, None, resume=True).startswith("6 4\n")
    assert list(losses) == [0.1]


def test_without_patience_all_epochs_are_trained(tmp_path: Path) -> None:
    patient = recipe.make_recipe(SMALL.values() | {"patience": None, "epochs": 4}, "")
    assert _fit(tmp_path, patient, iter([0.1, 0.2, 0.3, 0.4])).startswith("4 1\n")

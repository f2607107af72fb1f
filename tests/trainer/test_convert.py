"""Nets published in int8 by training, and trained nets published in other precisions."""

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format

from convserve_protos.bundle_pb2 import (
    PRECISION_FLOAT16,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    Manifest,
)
from convserve_trainer import bundle, digits, export, int8, int8_loss, manifest, published
from convserve_trainer.conversion import Settings
from convserve_trainer.main import main
from convserve_trainer.mnist import Dataset
from convserve_trainer.predict import Pixels
from convserve_trainer.recipes import LECTURE

from .conftest import Published

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def models(published: Published, tmp_path: Path) -> Path:
    """A models folder of one's own, with the net of float32 as mnist/1."""
    return Path(shutil.copytree(published.models, tmp_path / "models"))


def _convert(models: Path, data: Path, precision: str, *more: str) -> int:
    command = ["convert", str(models / "mnist" / "1"), "--precision", precision]
    return main([*command, "--data", str(data), *more])


# Training


def _fit(folder: Path, models: Path, *more: str) -> int:
    command = ["fit", "digits", "--data", str(folder), "--models", str(models)]
    return main([*command, "--limit", "64", "--epochs", "1", *more])


def test_int8_that_costs_too_much_is_not_published_and_resume_can_publish_it(
    mnist_folder: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    models = tmp_path / "models"
    seen: list[Pixels] = []
    real = int8.convert

    def convert(model: onnx.ModelProto, calibration: Iterable[Pixels]) -> onnx.ModelProto:
        seen.extend(calibration)
        return real(model, seen)

    monkeypatch.setattr(int8, "convert", convert)
    with monkeypatch.context() as patch:
        patch.setattr(int8_loss, "MEAN", 1e-7)
        assert _fit(mnist_folder, models, "--precision", "int8") == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"convserve-train: int8 differs from float32 by .* \(at most 1e-07 is taken\) .*; nothing "
        r"was published: .*--calibration-pictures .*--precision float16 .*\n",
        captured.err,
    )
    assert "the trained weights are kept" in captured.out
    assert os.listdir(models) == [".unfinished"]

    # Calibrated on pictures that were trained on, each once, and on none that is held out.
    trained = {picture.tobytes() for picture in dataset.train_images[:64]}
    asked = [picture.tobytes() for picture in np.concatenate(seen)]
    assert sorted(asked) == sorted(trained)
    assert not trained.intersection(picture.tobytes() for picture in dataset.test_images)

    seen.clear()
    more = ["--precision", "int8", "--calibration-pictures", "40", "--resume"]
    assert _fit(mnist_folder, models, *more) == 0
    asked = [picture.tobytes() for picture in np.concatenate(seen)]
    assert len(set(asked)) == len(asked) == 40
    assert trained.issuperset(asked)
    output = capsys.readouterr().out
    assert re.search(r"\(int8 has no bound\), mean .* \(bound 2e-02\), right answers lost", output)
    net, said = bundle.read(models / "mnist")
    export.check(net)
    assert (said.precision, said.training.calibration_pictures) == (PRECISION_INT8, 40)
    assert 1e-5 < said.training.parity_mean_abs <= said.training.parity_mean_bound == 0.02
    assert said.training.parity_mean_abs <= said.training.parity_max_abs
    assert said.training.parity_bound == 1

    recipe, data = LECTURE.override(limit=64, epochs=1), digits.data(dataset.limited(64))
    for pictures, differing in ((40, []), (64, ["calibration pictures"])):
        settings = Settings(PRECISION_INT8, pictures)
        assert published.differences(models / "mnist" / "1", recipe, data, settings) == differing

    assert main(["inspect", str(models / "mnist")]) == 0
    assert "precision    int8\n" in capsys.readouterr().out
    assert main(["evaluate", str(models / "mnist"), "--data", str(mnist_folder)]) == 0
    correct = int(said.metrics["correct"])
    assert f"({correct:,} of 10,000 right)\n" in capsys.readouterr().out


# Converting


def test_converted_net_says_of_itself_what_the_first_one_said(
    models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    before = bundle.read_manifest(models / "mnist" / "1")
    assert _convert(models, mnist_folder, "int8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("held-out digits, float32       loss ")
    assert lines[1].startswith("held-out digits, ONNX Runtime  loss ")
    assert lines[-1].startswith(f"published {models / 'mnist' / '2' / 'model.onnx'} (")
    net, said = bundle.read(models / "mnist")
    export.check(net)
    assert "QuantizeLinear" in export.operators(net)
    assert (said.precision, said.training.calibration_pictures) == (PRECISION_INT8, 512)
    assert said.metrics["keras_correct"] == before.metrics["correct"]
    assert abs(said.metrics["correct"] - before.metrics["correct"]) <= 50
    assert said.created.ToDatetime() > before.created.ToDatetime()
    for one in (said, before):
        one.ClearField("metrics")
        one.ClearField("created")
        one.ClearField("precision")
        for field in ("max_abs", "bound", "mean_abs", "mean_bound"):
            one.training.ClearField(f"parity_{field}")  # type: ignore[arg-type] # composed
        one.training.ClearField("calibration_pictures")
    assert said == before


def test_converted_net_goes_where_it_is_told_to(
    models: Path, mnist_folder: Path, tmp_path: Path
) -> None:
    place = ["--models", str(tmp_path / "others"), "--name", "half", "--version", "7"]
    assert _convert(models, mnist_folder, "float16", *place) == 0
    said = bundle.read_manifest(tmp_path / "others" / "half" / "7")
    assert (said.name, said.precision) == ("half", PRECISION_FLOAT16)


def test_net_that_was_rounded_already_is_not_converted(
    models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    _rewrite(models, precision=PRECISION_FLOAT16)
    assert _convert(models, mnist_folder, "int8") == 1
    file = models / "mnist" / "1" / "model.onnx"
    assert capsys.readouterr().err == (
        f"convserve-train: {file} is of float16; convert a version of float32 or tf32\n"
    )
    assert sorted(os.listdir(models / "mnist")) == ["1"]


def test_other_data_than_those_of_the_training_are_refused(
    models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    recipe = json.loads(bundle.read_manifest(models / "mnist").training.recipe_json)
    _rewrite(models, recipe=recipe | {"limit": 1279})
    assert _convert(models, mnist_folder, "int8") == 1
    assert "these are not the data that " in capsys.readouterr().err
    assert sorted(os.listdir(models / "mnist")) == ["1"]


def test_damaged_recipe_is_an_error_of_one_line(
    models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    _rewrite(models, recipe={})
    assert _convert(models, mnist_folder, "int8") == 1
    assert "damaged recipe: KeyError('min_accuracy')\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--min-accuracy", "0.999"], "is below the floor of 99.90%: nothing was published"),
        (["--version", "1"], "exists; a published version is never overwritten"),
    ],
)
def test_what_cannot_be_published_ends_with_status_1(
    more: list[str], said: str, models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    assert _convert(models, mnist_folder, "float32", *more) == 1
    assert said in capsys.readouterr().err
    assert sorted(os.listdir(models / "mnist")) == ["1"]


@pytest.mark.parametrize(
    ("precision", "more", "said"),
    [
        ("float16", ["--calibration-pictures", "9"], "--calibration-pictures is for --precision"),
        ("int8", ["--calibration-pictures", "0"], "--calibration-pictures is 0; it takes 1 or"),
        ("int8", ["--min-accuracy", "2"], "--min-accuracy is 2.0; it takes 0 to 1"),
        ("int8", ["--name", ".x"], "--name is '.x'; it takes a letter or digit"),
        ("int8", ["--validation-split", "0.5"], "--validation-split is for photos"),
    ],
)
def test_wrong_option_ends_with_status_2(
    precision: str, more: list[str], said: str, models: Path, mnist_folder: Path, capsys: Capture
) -> None:
    assert _convert(models, mnist_folder, precision, *more) == 2
    assert capsys.readouterr().err.startswith(f"convserve-train: {said}")


def test_bundle_outside_a_models_folder_needs_one(
    models: Path, mnist_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    lone = Path(shutil.copy(models / "mnist" / "1" / "model.onnx", tmp_path / "lone.onnx"))
    command = ["convert", str(lone), "--precision", "tf32", "--data", str(mnist_folder)]
    assert main(command) == 2
    assert "lone.onnx lies in no models folder; name one with --models" in capsys.readouterr().err
    assert main([*command, "--models", str(models)]) == 0
    net, said = bundle.read(models / "mnist" / "2")
    assert (said.precision, said.training.calibration_pictures) == (PRECISION_TENSOR_FLOAT_32, 0)
    assert net.graph == bundle.read(models / "mnist" / "1")[0].graph


def _rewrite(
    models: Path, precision: int | None = None, recipe: dict[str, object] | None = None
) -> None:
    """Makes the net's manifest say something else."""
    file = models / "mnist" / "1" / "model.onnx"
    net, said = bundle.read(file)
    if precision is not None:
        said.precision = precision  # type: ignore[assignment] # a plain number
    if recipe is not None:
        said.training.recipe_json = json.dumps(recipe)
    [entry] = [entry for entry in net.metadata_props if entry.key == manifest.KEY]
    entry.value = json_format.MessageToJson(said)
    onnx.save(net, file)
    assert json_format.Parse(entry.value, Manifest()) == said

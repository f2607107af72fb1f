"""Nets published in int8 by training, and trained nets published in other precisions."""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.folder import list_versions
from convserve_protos.bundle_pb2 import (
    PRECISION_FLOAT16,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    Manifest,
)
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import photos
from convserve_trainer.datasets.pictures import Pictures, Pixels, Source
from convserve_trainer.export import contract, int8, loss
from convserve_trainer.main import main
from tests.trainer.drawn import draw_parts

Capture = pytest.CaptureFixture[str]


TINY = ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "4"]


@dataclass(frozen=True)
class Trained:
    folder: Path
    models: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A net of float32 that tells 24 red from blue pictures, published as red-blue/1."""
    parts = {"red": 12, "blue": 12}
    folder = draw_parts(tmp_path_factory.mktemp("drawn") / "red_blue", parts, parts)
    models = tmp_path_factory.mktemp("trained")
    command = ["fit", "photos", *TINY, "--epochs", "2", "--data", str(folder)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*command, "--models", str(models)]) == 0
    return Trained(folder, models)


@pytest.fixture
def folder(trained: Trained) -> Path:
    return trained.folder


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """A models folder of one's own, with the net of float32."""
    return Path(shutil.copytree(trained.models, tmp_path / "models"))


def _convert(models: Path, data: Path, precision: str, *more: str) -> int:
    command = ["convert", str(models / "red-blue" / "1"), "--precision", precision]
    return main([*command, "--data", str(data), *more])


# Training


def _fit(folder: Path, models: Path, *more: str) -> int:
    command = ["fit", "photos", *TINY, "--epochs", "1", "--precision", "int8"]
    return main([*command, "--data", str(folder), "--models", str(models), *more])


def test_int8_that_costs_too_much_is_not_published_and_resume_can_publish_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    seen: list[Pixels] = []
    real = int8.convert

    def convert(model: onnx.ModelProto, calibration: Iterable[Pixels]) -> onnx.ModelProto:
        seen.extend(calibration)
        return real(model, seen)

    monkeypatch.setattr(int8, "convert", convert)
    with monkeypatch.context() as patch:
        patch.setattr(loss, "MEAN", 1e-7)
        assert _fit(folder, tmp_path) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"convserve-train: int8 differs from float32 by .* \(expected at most 1e-07\) .*; nothing "
        r"was published: .*--calibration-pictures .*--precision float16 .*\n",
        captured.err,
    )
    assert "the trained weights are kept" in captured.out
    assert list_versions(tmp_path / "red-blue") == []

    # Calibrated on pictures that were trained on, each once, and on none that is held out.
    data = photos.load(Source(folder, 22, 24, None, 0.01, "memory"), None, print)
    trained, held_out = (_each(pictures) for pictures in (data.train, data.held_out))
    assert not set(trained).intersection(held_out)
    assert sorted(_pictures(seen)) == sorted(trained)

    seen.clear()
    assert _fit(folder, tmp_path, "--calibration-pictures", "10", "--resume") == 0
    assert len(set(_pictures(seen))) == len(_pictures(seen)) == 10
    assert set(_pictures(seen)) < set(trained)
    output = capsys.readouterr().out
    assert re.search(r"\(int8 has no bound\), mean .* \(bound 2e-02\), right answers lost", output)
    net, manifest = bundle.read(tmp_path / "red-blue")
    contract.check(net)
    assert (manifest.precision, manifest.training.calibration_pictures) == (PRECISION_INT8, 10)
    assert 1e-7 < manifest.training.parity_mean_abs <= manifest.training.parity_mean_bound == 0.02
    assert manifest.training.parity_mean_abs <= manifest.training.parity_max_abs
    assert manifest.training.parity_bound == 1

    assert main(["inspect", str(tmp_path / "red-blue")]) == 0
    assert "precision    int8\n" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "red-blue"), "--data", str(folder)]) == 0
    correct = int(manifest.metrics["correct"])
    assert f"({correct:,} of 24 right)\n" in capsys.readouterr().out

    more = ["--unless-published", "--calibration-pictures"]
    assert _fit(folder, tmp_path, *more, "10") == 0
    assert "is published already" in capsys.readouterr().out
    assert _fit(folder, tmp_path, *more, "11", "--version", "1") == 1
    assert "differs from this training in: calibration pictures\n" in capsys.readouterr().out


def _each(pictures: Pictures) -> list[bytes]:
    return _pictures([pixels for pixels, _ in pictures.batches(range(len(pictures)), 8)])


def _pictures(batches: Iterable[Pixels]) -> list[bytes]:
    return [picture.tobytes() for pixels in batches for picture in pixels]


# Converting


def test_converted_net_states_what_the_first_one_states(
    models: Path, folder: Path, capsys: Capture
) -> None:
    before = bundle.read_manifest(models / "red-blue" / "1")
    assert _convert(models, folder, "int8") == 0
    lines = capsys.readouterr().out.splitlines()[2:]  # after what says where they are decoded
    assert lines[0].startswith("held-out photographs, float32       loss ")
    assert lines[1].startswith("held-out photographs, ONNX Runtime  loss ")
    assert lines[-1].startswith(f"published {models / 'red-blue' / '2' / 'model.onnx'} (")
    net, manifest = bundle.read(models / "red-blue")
    contract.check(net)
    assert "QuantizeLinear" in contract.operators(net)
    assert (manifest.precision, manifest.training.calibration_pictures) == (PRECISION_INT8, 24)
    assert manifest.metrics["keras_correct"] == before.metrics["correct"]
    assert abs(manifest.metrics["correct"] - before.metrics["correct"]) <= 2
    assert manifest.created.ToDatetime() > before.created.ToDatetime()
    for one in (manifest, before):
        one.ClearField("metrics")
        one.ClearField("created")
        one.ClearField("precision")
        for field in ("max_abs", "bound", "mean_abs", "mean_bound"):
            one.training.ClearField(f"parity_{field}")  # type: ignore[arg-type] # composed
        one.training.ClearField("calibration_pictures")
        assert sum(one.statistics.confidence.counts) > 0
        one.statistics.ClearField("confidence")
    assert manifest == before


def test_converted_net_is_published_where_the_options_state(
    models: Path, folder: Path, tmp_path: Path
) -> None:
    options = ["--models", str(tmp_path / "others"), "--name", "half", "--version", "7"]
    assert _convert(models, folder, "float16", *options) == 0
    manifest = bundle.read_manifest(tmp_path / "others" / "half" / "7")
    assert (manifest.name, manifest.precision) == ("half", PRECISION_FLOAT16)


def test_converted_net_keeps_fields_of_a_later_version(models: Path, folder: Path) -> None:
    file = models / "red-blue" / "1" / "model.onnx"
    net = onnx.load(file)
    [entry] = [entry for entry in net.metadata_props if entry.key == MANIFEST_KEY]
    entry.value = json.dumps(json.loads(entry.value) | {"colour": "blue"})
    onnx.save(net, file)
    assert _convert(models, folder, "float16") == 0
    net, manifest = bundle.read(models / "red-blue" / "2")
    assert manifest.precision == PRECISION_FLOAT16
    [entry] = [entry for entry in net.metadata_props if entry.key == MANIFEST_KEY]
    assert json.loads(entry.value)["colour"] == "blue"


def test_net_that_was_rounded_already_is_not_converted(
    models: Path, folder: Path, capsys: Capture
) -> None:
    _rewrite(models, precision=PRECISION_FLOAT16)
    assert _convert(models, folder, "int8") == 1
    file = models / "red-blue" / "1" / "model.onnx"
    assert capsys.readouterr().err == (
        f"convserve-train: {file}: precision: expected float32, tf32 or bfloat16, got float16\n"
    )
    assert sorted(os.listdir(models / "red-blue")) == ["1"]


def test_other_data_than_those_of_the_training_are_refused(
    models: Path, folder: Path, capsys: Capture
) -> None:
    recipe = json.loads(bundle.read_manifest(models / "red-blue").training.recipe_json)
    _rewrite(models, recipe=recipe | {"limit": 23})
    assert _convert(models, folder, "int8") == 1
    assert "these are not the data that " in capsys.readouterr().err
    assert sorted(os.listdir(models / "red-blue")) == ["1"]


def test_damaged_recipe_is_an_error_of_one_line(
    models: Path, folder: Path, capsys: Capture
) -> None:
    _rewrite(models, recipe={})
    assert _convert(models, folder, "int8") == 1
    assert "damaged recipe: KeyError('min_accuracy')\n" in capsys.readouterr().err


def test_version_that_exists_is_not_replaced(models: Path, folder: Path, capsys: Capture) -> None:
    before = (models / "red-blue" / "1" / "model.onnx").read_bytes()
    assert _convert(models, folder, "int8", "--version", "1") == 1
    assert "exists; a published version is never overwritten" in capsys.readouterr().err
    assert (models / "red-blue" / "1" / "model.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("precision", "more", "message"),
    [
        (
            "float16",
            ["--calibration-pictures", "9"],
            "--calibration-pictures: expected with --precision",
        ),
        (
            "int8",
            ["--calibration-pictures", "0"],
            "--calibration-pictures: expected 1 or more, got 0",
        ),
        ("int8", ["--min-accuracy", "2"], "--min-accuracy: expected 0 to 1, got 2.0"),
        ("int8", ["--name", ".x"], "--name: expected a letter or digit, then "),
        ("int8", ["--validation-split", "1"], "--validation-split: expected more than 0 and less"),
    ],
)
def test_wrong_option_ends_with_status_2(
    precision: str, more: list[str], message: str, models: Path, folder: Path, capsys: Capture
) -> None:
    assert _convert(models, folder, precision, *more) == 2
    assert capsys.readouterr().err.startswith(f"convserve-train: {message}")


def test_bundle_outside_a_models_folder_needs_one(
    models: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    lone = Path(shutil.copy(models / "red-blue" / "1" / "model.onnx", tmp_path / "lone.onnx"))
    command = ["convert", str(lone), "--precision", "tf32", "--data", str(folder)]
    assert main(command) == 2
    assert "lone.onnx lies in no models folder; name one with --models" in capsys.readouterr().err
    assert main([*command, "--models", str(models)]) == 0
    net, manifest = bundle.read(models / "red-blue" / "2")
    assert manifest.precision == PRECISION_TENSOR_FLOAT_32
    assert manifest.training.calibration_pictures == 0
    assert net.graph == bundle.read(models / "red-blue" / "1")[0].graph


def _rewrite(
    models: Path, precision: int | None = None, recipe: dict[str, object] | None = None
) -> None:
    """Makes the net's manifest say something else."""
    file = models / "red-blue" / "1" / "model.onnx"
    net, manifest = bundle.read(file)
    if precision is not None:
        manifest.precision = precision  # type: ignore[assignment] # a plain number
    if recipe is not None:
        manifest.training.recipe_json = json.dumps(recipe)
    [entry] = [entry for entry in net.metadata_props if entry.key == MANIFEST_KEY]
    entry.value = json_format.MessageToJson(manifest)
    onnx.save(net, file)
    assert json_format.Parse(entry.value, Manifest()) == manifest

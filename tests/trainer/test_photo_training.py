"""The whole way of photographs, from folders to a bundle, with a small net on small pictures."""

import contextlib
import csv
import io
import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from convserve_bundle.folder import find_bundle
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO
from convserve_trainer.bundles import bundle
from convserve_trainer.fitting import fit
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.main import main
from tests.trainer.drawn import draw, draw_parts

STEPS = 4
BEST_FIRST = {1: 0.3, 2: 0.5, 3: 0.4}  # validation losses, by epoch
TINY = ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", f"{STEPS}"]


def _draw(folder: Path) -> Path:
    return draw_parts(folder / "red_blue", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _draw(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A folder of data, the models folder of a net trained on it, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert _fit(_draw(folder), folder / "models", "--min-accuracy", "0.8") == 0
    return folder / "red_blue", folder / "models", output.getvalue()


def _fit(folder: Path, models: Path, *more: str) -> int:
    command = ["fit", "photos", "--data", str(folder), "--models", str(models), *TINY]
    return main([*command, "--epochs", "3", *more])


def _weights(models: Path) -> list[bytes]:
    """All weights and other constants of the published net, in order."""
    graph = bundle.read(models / "red-blue")[0].graph
    return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer]


def _history(models: Path) -> list[dict[str, str]]:
    text = (find_bundle(models / "red-blue").parent / "history.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def _validation_losses(monkeypatch: pytest.MonkeyPatch, by_epoch: Mapping[int, float]) -> None:
    """Makes these the losses that are found after the epochs."""
    validate = fit._validate

    def found(model: Any, *rest: Any) -> dict[str, float]:
        epoch = int(model.optimizer.iterations) // STEPS
        return validate(model, *rest) | {"loss": by_epoch[epoch]}

    monkeypatch.setattr(fit, "_validate", found)


def _at_step(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, act: Any) -> None:
    """Does something once, after a step of an epoch, both counted from 1."""
    seen: list[int] = []

    def after(self: Progress, done: int, logs: Mapping[str, float]) -> None:
        seen.append(done)
        if len(seen) == (epoch - 1) * STEPS + step:
            act()

    monkeypatch.setattr(Progress, "step", after)


def test_fit_publishes_a_bundle_that_evaluate_scores_alike(
    trained: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, models, output = trained
    for line in (
        "labels batch shape: (8,)\n",
        "quick: 3 epochs of 4 steps, batches of 8, rmsprop at 0.001, binary_crossentropy, seed 1",
        "24 photographs to train on, 18 held out, classes blue, red\n",
        "accuracy floor  80.00% of the held-out photographs\n",
        "Total params: ",
        "% of the training steps' time\n",
    ):
        assert line in output
    pixels = re.search(r"data batch shape: \(8, 22, 24, 3\), uint8, (\d+) to (\d+)\n", output)
    assert pixels is not None
    scaled = " to ".join(f"{int(value) / 255:.3f}" for value in pixels.groups())
    assert f"values after the net's first layer (x 1/255): {scaled}\n" in output
    published = models / "red-blue" / "1"
    assert sorted(os.listdir(published)) == [
        "digests.json",
        "evaluation.json",
        "history.csv",
        "history.png",
        "history.svg",
        "model.onnx",
        "net.keras",
        "report.html",
    ]
    manifest = bundle.read_manifest(published)
    assert list(manifest.labels) == ["blue", "red"]
    spec = manifest.input
    assert (spec.height, spec.width, spec.channels, spec.kind) == (22, 24, 3, IMAGE_KIND_PHOTO)
    assert spec.resize == "photo-bilinear/1"
    assert manifest.metrics["keras_correct"] == manifest.metrics["correct"]
    assert manifest.metrics["total"] == 18
    assert f"Total params: {manifest.parameters:,} " in output

    best = min(_history(models), key=lambda row: float(row["val_loss"]))
    assert manifest.training.epochs == int(best["epoch"])
    assert float(best["val_loss"]) == pytest.approx(manifest.metrics["loss"], abs=1e-5)
    assert float(best["val_accuracy"]) == pytest.approx(manifest.metrics["accuracy"])

    assert main(["evaluate", str(published), "--data", str(folder), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["correct"] == manifest.metrics["correct"] >= 15
    assert (evaluated["total"], evaluated["loss"]) == (18, pytest.approx(manifest.metrics["loss"]))
    assert main(["inspect", str(published)]) == 0
    assert "input        pixels: uint8 [N, 22, 24, 3]\n" in capsys.readouterr().out


def test_table_on_the_terminal_and_csv_agree(trained: tuple[Path, Path, str]) -> None:
    _, models, output = trained
    lines = output.splitlines()
    [head] = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert lines[head].split()[1:5] == ["loss", "accuracy", "val_loss", "val_accuracy"]
    rows = _history(models)
    assert len(rows) == 3
    for line, row in zip(lines[head + 1 : head + 4], rows, strict=True):
        figures = [f"{float(row[name]):.4f}" for name in list(row)[1:5]]
        *cells, left, unit = line.split()
        assert cells == [
            f"{row['epoch']}/3",
            *figures,
            f"{float(row['seconds']):.1f}",
            f"{float(row['input_share']):.1%}",
        ]
        assert left.isdecimal()
        assert unit == "s"
    assert left == "0"


@pytest.mark.usefixtures("undrawn")
def test_three_classes_are_distinguished_with_a_softmax(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw(tmp_path / "red_blue", {"red": 15, "green": 15, "blue": 15})
    assert _fit(folder, tmp_path, "--validation-split", "0.4", "--epochs", "6") == 0
    assert "categorical_crossentropy" in capsys.readouterr().out
    model, manifest = bundle.read(tmp_path / "red-blue")
    assert list(manifest.labels) == ["blue", "green", "red"]
    assert model.graph.node[-1].op_type == "Softmax"
    command = ["evaluate", str(tmp_path / "red-blue"), "--data", str(folder), "--json"]
    assert main([*command, "--validation-split", "0.4"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["correct"] == manifest.metrics["correct"] > 0.8 * evaluated["total"]
    assert 10 < evaluated["total"] == manifest.metrics["total"] < 26


@pytest.fixture(scope="module")
def best_first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of data, and the models folder of a net whose first epoch of three was the best."""
    folder = tmp_path_factory.mktemp("best")
    with pytest.MonkeyPatch.context() as patched:
        _validation_losses(patched, BEST_FIRST)
        assert _fit(_draw(folder), folder / "models") == 0
    return folder / "red_blue", folder / "models"


@pytest.mark.usefixtures("undrawn")
def test_weights_of_the_best_epoch_are_published(
    best_first: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, three = best_first
    _validation_losses(monkeypatch, BEST_FIRST)
    assert _fit(folder, tmp_path / "one", "--epochs", "1") == 0
    assert _weights(three) == _weights(tmp_path / "one")
    assert len(_history(three)) == 3
    assert bundle.read_manifest(three / "red-blue").training.epochs == 1


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("cache", "later"), [("none", "memory"), ("disk", "disk")])
def test_interrupted_and_resumed_training_ends_as_one_that_was_not(
    cache: str,
    later: str,
    best_first: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The best epoch is one from before the interruption.
    folder, whole = best_first
    _validation_losses(monkeypatch, BEST_FIRST)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        _at_step(patched, epoch=2, step=2, act=lambda: signal.raise_signal(signal.SIGINT))
        assert _fit(folder, stopped, "--cache", cache) == 130
    assert (
        "stopped; 1 of 3 epochs and 2 steps of the next are finished and kept"
        in capsys.readouterr().err
    )
    assert os.listdir(stopped) == [".unfinished"]
    assert _fit(folder, stopped, "--resume", "--cache", later) == 0
    output = capsys.readouterr().out
    assert "resumed after epoch 2, step 2\n" in output
    assert "\n  1/3 " not in output
    assert "best epoch 1 of 3" in output
    assert _weights(stopped) == _weights(whole)
    kept = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    rows = [[[row[name] for name in kept] for row in _history(m)] for m in (whole, stopped)]
    assert rows[0] == rows[1], (
        "the losses of the epoch that was stopped, and of those after it, too"
    )


@pytest.mark.usefixtures("undrawn")
def test_mixed_precision_resumes_exactly_and_is_published_in_float32(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ("--mixed-precision", "--cache", "none")  # steps one by one
    assert _fit(folder, whole, *options) == 0
    with monkeypatch.context() as patched:
        _at_step(patched, epoch=2, step=2, act=lambda: signal.raise_signal(signal.SIGINT))
        assert _fit(folder, stopped, *options) == 130
    assert _fit(folder, stopped, *options, "--resume") == 0
    assert _weights(stopped) == _weights(whole)
    graph = bundle.read(whole / "red-blue")[0].graph
    floats = {tensor.data_type for tensor in graph.initializer} - {onnx.TensorProto.INT64}
    assert onnx.TensorProto.FLOAT in floats
    assert not floats & {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16}


@pytest.fixture
def gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture that goes away after the first step of a training."""
    path = folder / "train/red/003.jpg"
    _at_step(monkeypatch, epoch=1, step=1, act=path.unlink)
    return path


@pytest.mark.usefixtures("undrawn")
def test_picture_that_goes_away_during_an_epoch_is_replaced_and_named(
    folder: Path, tmp_path: Path, gone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(folder, tmp_path, "--cache", "none", "--max-unreadable", "0.05") == 0
    output = capsys.readouterr().out
    assert f"1 of 42 pictures cannot be read and are left out: {gone} (No such file" in output
    assert [row["epoch"] for row in _history(tmp_path)] == ["1", "2", "3"]


def test_too_many_pictures_that_go_away_during_an_epoch_end_it(
    folder: Path, tmp_path: Path, gone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(folder, tmp_path, "--cache", "none") == 1
    error = capsys.readouterr().err
    assert error.startswith("convserve-train: 1 of 42 pictures cannot be read, more than the share")
    assert f"{gone} (No such file" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "red-blue").exists()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--data", "none"], 2, "no folder none"),
        (
            ["--size", "21x60"],
            2,
            "--size: expected 22x22 or more for the net of recipe quick, got 21x60",
        ),
        (["--steps", "0"], 2, "--steps: expected 1 or more, got 0"),
        (["--validation-steps", "-1"], 2, "--validation-steps: expected 1 or more, got -1"),
        (["--validation-split", "1"], 2, "--validation-split: expected more than 0 and less"),
        (["--validation-split", "0.2"], 2, "red_blue has train and validation already"),
        (["--max-unreadable", "2"], 2, "--max-unreadable: expected 0 to 1, got 2.0"),
        (["--recipe", "fast"], 2, "no recipe 'fast' for photos; there are: lecture, best, quick, "),
        (["--resume"], 1, "nothing to resume: no training with these settings"),
    ],
)
def test_error_before_training_is_one_line(
    options: list[str],
    status: int,
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _fit(Path(folder.name), tmp_path / "models", *options) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(f"convserve-train: {message}")
    assert captured.err.count("\n") == 1
    assert "val_loss" not in captured.out, "nothing was trained"


@pytest.mark.parametrize(
    "option",
    [
        ["--size", "28x28"],
        ["--cache", "disk"],
        ["--validation-split", "0.1"],
        ["--validation-steps", "3"],
        ["--max-unreadable", "0.1"],
    ],
)
def test_option_of_photos_is_refused_for_digits(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "digits", *option]) == 2
    assert capsys.readouterr().err == (
        f"convserve-train: {option[0]}: expected with photos only, got digits\n"
    )


def test_photos_need_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photos"]) == 2
    assert (
        capsys.readouterr().err
        == "convserve-train: --data: expected a folder for photos, got none\n"
    )


def test_size_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "photos", "--size", "150"])
    assert "argument --size: expected a size as 150x200 (150 rows, " in capsys.readouterr().err

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend
from tests.trainer.conftest import Published, Small


def _one_line(errors: str) -> str:
    assert errors.startswith("convserve-train: ")
    assert errors.count("\n") == 1, errors
    return errors.removeprefix("convserve-train: ").removesuffix("\n")


def test_fit_shows_the_layers_the_epochs_and_the_score(published: Published) -> None:
    output = published.output
    assert "1,280 digits to train on, a part of them (--limit), 10,000 held out" in output
    assert "accuracy floor  none: this is not the recipe as written" in output
    assert "Total params: 93,322" in output
    assert "conv2d_2 (Conv2D)                 │ (None, 3, 3, 64)         │        36,928" in output
    assert output.count("\n  1/1   ") == 1
    assert f"published {published.bundle} (" in output
    assert os.listdir(published.models) == ["mnist"], "the checkpoint is gone"
    scores = [line.partition("loss")[2] for line in output.splitlines() if "held-out" in line]
    assert len(scores) == 2
    assert scores[0] == scores[1]


def test_evaluate_finds_what_the_manifest_says(
    published: Published, mnist_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(published.models / "mnist")
    assert main(["evaluate", model, "--data", str(mnist_folder), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert main(["inspect", model, "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert evaluated["bundle"] == inspected["path"] == str(published.bundle)
    metrics = inspected["manifest"]["metrics"]
    assert evaluated["correct"] == metrics["correct"] > 5_000
    assert evaluated["total"] == metrics["total"] == 10_000
    assert evaluated["accuracy"] == metrics["accuracy"]
    assert evaluated["loss"] == pytest.approx(metrics["loss"], rel=1e-5)

    assert main(["evaluate", model, "--data", str(mnist_folder)]) == 0
    correct = int(evaluated["correct"])
    assert f"({correct:,} of 10,000 right)\n" in capsys.readouterr().out


def test_inspect_shows_graph_and_manifest(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(published.bundle)]) == 0
    output = capsys.readouterr().out
    size = published.bundle.stat().st_size
    for line in (
        f"bundle       {published.bundle} ({size:,} bytes)",
        "parameters   93,322",
        "input        pixels: uint8 [N, 28, 28, 1]",
        "output       probabilities: float32 [N, 10]",
        "shape nodes  none (looked for Concat/Gather/Shape/Slice)",
        "opset        15, IR version 8",
        "  labels      0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "    resize    mnist-centre/1",
    ):
        assert f"{line}\n" in output
    for word in ("recipeJson", "gitCommit", "datasetSha256", "parityMaxAbs", "created", "seed"):
        assert f" {word}" in output


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_file_that_is_no_bundle_is_one_line_and_exit_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("no model")
    assert main([command, str(path)]) == 1
    assert _one_line(capsys.readouterr().err) == f"{path}: not an ONNX file"


def test_evaluate_of_a_graph_of_another_shape_is_refused(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(published.bundle)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 32
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["evaluate", str(tmp_path)]) == 1
    message = _one_line(capsys.readouterr().err)
    assert "pixels: uint8 [N, 32, 28, 1]" in message
    assert "expected ['pixels: uint8 [N, 28, 28, 1]'" in message


def test_evaluate_of_pixels_made_in_an_unknown_way_is_refused(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, manifest = bundle.read(published.bundle)
    manifest.input.resize = "mnist-centre/2"
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["evaluate", str(tmp_path)]) == 1
    message = _one_line(capsys.readouterr().err)
    assert message.endswith("input.resize: expected a known method, got 'mnist-centre/2'")


@pytest.mark.usefixtures("undrawn")
def test_missed_floor_publishes_nothing_and_resume_can_lower_it(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    command = small.fit(models, "--steps", "1")
    assert main([*command, "--min-accuracy", "0.987"]) == 1
    captured = capsys.readouterr()
    message = _one_line(captured.err)
    assert message.startswith("accuracy: expected the floor of 98.70% or more, got ")
    assert ": nothing was published" in message
    assert f"the trained weights are kept in {models / '.unfinished'}" in captured.out
    assert os.listdir(models) == [".unfinished"]

    assert main([*command, "--min-accuracy", "0", "--resume"]) == 0
    assert "resumed after epoch 1\n" in capsys.readouterr().out
    assert os.listdir(models) == ["small"]


@pytest.mark.usefixtures("undrawn")
def test_disk_that_fills_while_publishing_keeps_the_weights(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if str(models / "small") in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    models = tmp_path / "models"
    monkeypatch.setattr(os, "fsync", full)
    assert main(small.fit(models, "--steps", "1")) == 1
    captured = capsys.readouterr()
    message = _one_line(captured.err)
    assert message.startswith("nothing was published: ")
    assert message.endswith(": No space left on device; free some space there")
    assert f"the trained weights are kept in {models / '.unfinished'}" in captured.out
    assert list((models / "small").iterdir()) == []
    assert len(list((models / ".unfinished").iterdir())) == 1


def test_memory_that_is_not_there_is_one_line(
    mnist_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhaust(_: object) -> None:
        np.empty(2**60, np.uint8)

    monkeypatch.setattr("convserve_trainer.datasets.mnist.make_data", exhaust)
    assert main(["fit", "digits", "--data", str(mnist_folder)]) == 1
    message = _one_line(capsys.readouterr().err)
    assert message.startswith("out of memory (Unable to allocate 1.00 EiB for an array with shape ")
    assert "train with a smaller --batch-size" in message


def test_memory_that_tensorflow_does_not_get_is_an_error_of_memory() -> None:
    keras = keras_backend.load()
    shape = (2**20, 2**30)  # 4 PiB
    with (
        pytest.raises(MemoryError, match=r"^allocating tensor with shape\[1048576,1073741824\]"),
        keras_backend.memory_errors(),
    ):
        keras.random.normal(shape)
    with pytest.raises(ValueError, match="other"), keras_backend.memory_errors():
        raise ValueError("other")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--epochs", "0"], 2, "--epochs: expected 1 or more, got 0"),
        (["--recipe", "lectrue"], 2, "no recipe 'lectrue' for digits; there are: lecture"),
        (["--name", "../x"], 2, "--name: expected a letter or digit, then "),
        (["--data", "none"], 2, "no folder none"),
        (["--models", "file/models"], 1, "the models folder file/models cannot be written to: "),
        (["--version", "4"], 1, "models/mnist/4 exists; a published version is never overwritten"),
        (["--limit", "19", "--resume"], 1, "nothing to resume: no training with these settings"),
    ],
)
def test_error_before_training_is_one_line(
    options: list[str],
    status: int,
    message: str,
    mnist_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("models/mnist/4").mkdir(parents=True)
    assert main(["fit", "digits", "--data", str(mnist_folder), *options]) == status
    captured = capsys.readouterr()
    assert _one_line(captured.err).startswith(message)
    assert "accuracy  seconds" not in captured.out, "nothing was trained"


def test_file_that_may_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert main(["inspect", str(tmp_path)]) == 1
    assert "Permission denied" in _one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [[], ["fit"], ["fit", "letters"], ["fit", "digits", "--epochs", "x"], ["inspect"]],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: convserve-train")


def test_version_0_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "digits", "--version", "0"])
    assert "argument --version: expected a version, 1 or more, got '0'" in capsys.readouterr().err


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in listed] == [
        *("digits/lecture", "digits/best"),
        *("photos/lecture", "photos/best", "photos/quick"),
    ]
    assert main(["recipes", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert [f"{recipe['task']}/{recipe['name']}" for recipe in settings] == [n for n, _ in listed]
    assert settings[0]["batch_size"] == 64
    assert main(["recipes", "digits/lecture"]) == 0
    assert "batch_size = 64\n" in capsys.readouterr().out
    assert main(["recipes", "digits/lectur"]) == 2
    assert "no recipe 'digits/lectur'; there are: digits/lecture, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "['fit', '--help']",
        "['recipes']",
        "['inspect', 'none']",
        "['fit', 'photos', '--data', 'none']",
        "['fit', 'photos', '--data', '.', '--validation-split', '0.5']",
    ],
)
def test_commands_without_training_load_no_tensorflow_and_no_grpc(arguments: str) -> None:
    code = f"""
import sys
from convserve_trainer.main import main
try:
    main({arguments})
except SystemExit:
    pass
loaded = {{'tensorflow', 'keras', 'grpc', 'onnxruntime'}} & set(sys.modules)
sys.exit(', '.join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_needs_nothing_of_the_extra() -> None:
    code = """
import sys
for name in ("msgspec", "keras", "tensorflow", "onnx", "onnxruntime", "matplotlib", "optuna"):
    sys.modules[name] = None
from convserve_trainer.main import main
sys.argv[1:] = ["fit", "--help"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_installed_command_helps_with_two_examples() -> None:
    command = shutil.which("convserve-train", path=Path(sys.executable).parent)
    assert command is not None
    for subcommand in ("fit", "evaluate", "compare", "inspect", "recipes"):
        done = subprocess.run([command, subcommand, "--help"], capture_output=True, text=True)
        assert done.returncode == 0
        examples = done.stdout.partition("examples:\n")[2].splitlines()
        assert len(examples) == 2
        assert all(line.startswith(f"  convserve-train {subcommand}") for line in examples)

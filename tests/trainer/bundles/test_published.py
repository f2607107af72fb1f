"""fit --unless-published: the same job again is free, another one is trained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.fitting import messages
from convserve_trainer.main import main
from tests.trainer.conftest import Published

#: Those of the fixture `published`.
SETTINGS = ["--limit", "1280", "--epochs", "1", "--seed", "7"]


class Trained(Exception):  # noqa: N818 - not an error
    """The command went on to train."""


@pytest.fixture
def models(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with that one version; a training only says that it would begin."""

    def begin(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(messages, "print_settings", begin)
    shutil.copytree(published.models, tmp_path / "models")
    return tmp_path / "models"


def _fit(mnist_folder: Path, models: Path, *more: str) -> int:
    command = ["fit", "digits", "--data", str(mnist_folder), "--models", str(models)]
    return main([*command, "--unless-published", *SETTINGS, *more])


def _spoil(file: Path, **fields: str) -> None:
    """Changes the manifest's account of the training."""
    model, manifest = bundle.read(file)
    for name, value in fields.items():
        setattr(manifest.training, name, value)
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, file)


@pytest.mark.parametrize("more", [[], ["--version", "1"], ["--min-accuracy", "0.5"]])
def test_same_training_again_is_one_line(
    more: list[str], mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = models / "mnist" / "1" / "model.onnx"
    before = file.stat().st_mtime_ns
    assert _fit(mnist_folder, models, *more) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{file} is published already, from these settings and data\n"
    assert captured.err == ""
    assert file.stat().st_mtime_ns == before
    assert os.listdir(models / "mnist") == ["1"]


def test_nothing_need_be_writable_where_nothing_is_done(
    mnist_folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert _fit(mnist_folder, models) == 0
    assert _fit(mnist_folder, models, "--epochs", "2") == 1, "and is found out before it trains"


@pytest.mark.parametrize(
    ("more", "differing"),
    [
        (["--epochs", "2"], "epochs"),
        (["--seed", "8", "--batch-size", "32"], "batch_size, seed"),
        (["--limit", "640"], "limit, data"),
        (["--min-accuracy", "0.999"], "accuracy floor"),
        (["--precision", "float16"], "precision"),
    ],
)
def test_other_training_is_begun_and_says_what_differs(
    more: list[str],
    differing: str,
    mnist_folder: Path,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Trained):
        _fit(mnist_folder, models, *more)
    file = models / "mnist" / "1" / "model.onnx"
    assert capsys.readouterr().out == f"{file} differs from this training in: {differing}\n"


def test_bundle_that_is_older_than_precisions_is_float32(mnist_folder: Path, models: Path) -> None:
    file = models / "mnist" / "1" / "model.onnx"
    model, manifest = bundle.read(file)
    manifest.ClearField("precision")
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, file)
    assert _fit(mnist_folder, models, "--precision", "float32") == 0
    with pytest.raises(Trained):
        _fit(mnist_folder, models, "--precision", "tf32")


def test_other_data_are_trained_on(
    mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _spoil(models / "mnist" / "1" / "model.onnx", dataset_sha256="0" * 64)
    with pytest.raises(Trained):
        _fit(mnist_folder, models)
    assert capsys.readouterr().out.endswith("differs from this training in: data\n")


def test_net_of_another_backend_is_another(
    mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = models / "mnist" / "1" / "model.onnx"
    _spoil(file, backend="")  # a bundle that is older than the field: tensorflow
    assert _fit(mnist_folder, models) == 0
    _spoil(file, backend="jax")
    with pytest.raises(Trained):
        _fit(mnist_folder, models)
    assert capsys.readouterr().out.endswith("differs from this training in: backend\n")


def test_newest_version_counts_and_not_an_older_one(
    mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "mnist" / "1", models / "mnist" / "10")
    _spoil(models / "mnist" / "10" / "model.onnx", recipe_json='{"epochs": 1}')
    with pytest.raises(Trained):
        _fit(mnist_folder, models)
    assert "mnist/10/model.onnx differs from this training in: name, " in capsys.readouterr().out
    assert _fit(mnist_folder, models, "--version", "1") == 0


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ("no model", "not an ONNX file"),
        ("no file", "no such file or folder"),
        ("no recipe", "damaged recipe: "),
    ],
)
def test_version_that_cannot_be_read_is_named_and_a_new_one_trained(
    spoilt: str,
    why: str,
    mnist_folder: Path,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = models / "mnist" / "1" / "model.onnx"
    if spoilt == "no model":
        file.write_text("no model")
    elif spoilt == "no file":
        file.unlink()
    else:
        _spoil(file, recipe_json="{")
    with pytest.raises(Trained):
        _fit(mnist_folder, models)
    output = capsys.readouterr().out
    assert output.startswith(f"what is published already cannot be read: {file}: {why}")
    assert output.count("\n") == 1


def test_nothing_published_is_trained(
    mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--name", "other"], ["--version", "2"]):
        with pytest.raises(Trained):
            _fit(mnist_folder, models, *more)
    assert capsys.readouterr().out == ""


def test_version_that_was_made_otherwise_is_an_error(
    mnist_folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(mnist_folder, models, "--version", "1", "--epochs", "2") == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("differs from this training in: epochs\n")
    assert captured.err.endswith("1 exists; a published version is never overwritten\n")


def test_missing_data_are_an_error_all_the_same(tmp_path: Path, models: Path) -> None:
    assert _fit(tmp_path / "none", models) == 2


def test_doing_nothing_loads_no_tensorflow(mnist_folder: Path, published: Published) -> None:
    command = ["fit", "digits", "--data", str(mnist_folder), "--models", str(published.models)]
    code = f"""
import sys
from convserve_trainer.main import main
status = main({[*command, "--unless-published", *SETTINGS]})
loaded = {{'tensorflow', 'keras', 'onnxruntime', 'matplotlib'}} & set(sys.modules)
sys.exit(', '.join(loaded) or status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

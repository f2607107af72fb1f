"""fit --unless-published: the same job again is free, another one is trained."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.fitting import messages
from convserve_trainer.main import main
from tests.trainer.conftest import Published, Small

#: After a single step not every answer is right.
SETTINGS = ["--seed", "7", "--steps", "1"]


class Trained(Exception):  # noqa: N818 - not an error
    """The command went on to train."""


@pytest.fixture(scope="module")
def trained(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one version."""
    models = tmp_path_factory.mktemp("trained") / "models"
    assert main(small.fit(models, *SETTINGS)) == 0
    return models


@pytest.fixture
def models(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder; a training only says that it would begin."""

    def begin(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(messages, "print_settings", begin)
    shutil.copytree(trained, tmp_path / "models")
    return tmp_path / "models"


def _fit(small: Small, models: Path, *more: str) -> int:
    return main(small.fit(models, "--unless-published", *SETTINGS, *more))


def _without_data(printed: str) -> str:
    """All but the line on what the data are."""
    return "".join(line for line in printed.splitlines(True) if "not MNIST's bytes" not in line)


def _spoil(file: Path, **fields: str) -> None:
    """Changes the manifest's account of the training."""
    model, manifest = bundle.read(file)
    for name, value in fields.items():
        setattr(manifest.training, name, value)
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, file)


@pytest.mark.parametrize("more", [[], ["--version", "1"], ["--min-accuracy", "0.1"]])
def test_same_training_again_is_one_line(
    more: list[str], small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = models / "small" / "1" / "model.onnx"
    before = file.stat().st_mtime_ns
    assert _fit(small, models, *more) == 0
    captured = capsys.readouterr()
    assert (
        _without_data(captured.out)
        == f"{file} is published already, from these settings and data\n"
    )
    assert captured.err == ""
    assert file.stat().st_mtime_ns == before
    assert os.listdir(models / "small") == ["1"]


def test_nothing_need_be_writable_where_nothing_is_done(
    small: Small, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert _fit(small, models) == 0
    assert _fit(small, models, "--epochs", "2") == 1, "and is found out before it trains"


@pytest.mark.parametrize(
    ("more", "differing"),
    [
        (["--epochs", "2"], "epochs"),
        (["--seed", "8", "--batch-size", "32"], "batch_size, seed"),
        (["--limit", "60"], "limit, data"),
        (["--min-accuracy", "0.999"], "accuracy floor"),
        (["--precision", "float16"], "precision"),
    ],
)
def test_other_training_is_begun_and_says_what_differs(
    more: list[str],
    differing: str,
    small: Small,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Trained):
        _fit(small, models, *more)
    file = models / "small" / "1" / "model.onnx"
    output = _without_data(capsys.readouterr().out)
    assert output == f"{file} differs from this training in: {differing}\n"


@pytest.mark.parametrize("text", ["card.licence=mit", "about=said otherwise"])
def test_another_text_is_no_other_training(small: Small, models: Path, text: str) -> None:
    assert _fit(small, models, "--set", text) == 0
    assert os.listdir(models / "small") == ["1"]


def test_bundle_that_is_older_than_precisions_is_float32(small: Small, models: Path) -> None:
    file = models / "small" / "1" / "model.onnx"
    model, manifest = bundle.read(file)
    manifest.ClearField("precision")
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    onnx.save(model, file)
    assert _fit(small, models, "--precision", "float32") == 0
    with pytest.raises(Trained):
        _fit(small, models, "--precision", "tf32")


def test_other_data_are_trained_on(
    small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _spoil(models / "small" / "1" / "model.onnx", dataset_sha256="0" * 64)
    with pytest.raises(Trained):
        _fit(small, models)
    assert capsys.readouterr().out.endswith("differs from this training in: data\n")


def test_net_of_another_backend_is_another(
    small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = models / "small" / "1" / "model.onnx"
    _spoil(file, backend="")  # a bundle that is older than the field: tensorflow
    assert _fit(small, models) == 0
    _spoil(file, backend="jax")
    with pytest.raises(Trained):
        _fit(small, models)
    assert capsys.readouterr().out.endswith("differs from this training in: backend\n")


def test_newest_version_counts_and_not_an_older_one(
    small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "small" / "1", models / "small" / "10")
    _spoil(models / "small" / "10" / "model.onnx", recipe_json='{"epochs": 1}')
    with pytest.raises(Trained):
        _fit(small, models)
    assert "small/10/model.onnx differs from this training in: name, " in capsys.readouterr().out
    assert _fit(small, models, "--version", "1") == 0


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
    small: Small,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = models / "small" / "1" / "model.onnx"
    if spoilt == "no model":
        file.write_text("no model")
    elif spoilt == "no file":
        file.unlink()
    else:
        _spoil(file, recipe_json="{")
    with pytest.raises(Trained):
        _fit(small, models)
    output = _without_data(capsys.readouterr().out)
    assert output.startswith(f"what is published already cannot be read: {file}: {why}")
    assert output.count("\n") == 1


def test_nothing_published_is_trained(
    small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--name", "other"], ["--version", "2"]):
        with pytest.raises(Trained):
            _fit(small, models, *more)
    assert _without_data(capsys.readouterr().out) == ""


def test_version_that_was_made_otherwise_is_an_error(
    small: Small, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(small, models, "--version", "1", "--epochs", "2") == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("differs from this training in: epochs\n")
    assert captured.err.endswith("1 exists; a published version is never overwritten\n")


def test_missing_data_are_an_error_all_the_same(small: Small, tmp_path: Path, models: Path) -> None:
    assert _fit(replace(small, data=tmp_path / "none"), models, "--name", "small") == 2


def test_doing_nothing_loads_no_tensorflow(mnist_folder: Path, published: Published) -> None:
    command = ["fit", "digits", "--data", str(mnist_folder), "--models", str(published.models)]
    settings = ["--limit", "1280", "--epochs", "1", "--seed", "7"]  # those of `published`
    code = f"""
import sys
from convserve_trainer.main import main
status = main({[*command, "--unless-published", *settings]})
loaded = {{'tensorflow', 'keras', 'onnxruntime', 'matplotlib'}} & set(sys.modules)
sys.exit(', '.join(loaded) or status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

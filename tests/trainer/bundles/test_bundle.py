import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format

from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    PRECISION_FLOAT32,
    InputSpec,
    Manifest,
)
from convserve_trainer.bundles import bundle, manifest
from convserve_trainer.data import digits
from convserve_trainer.data.pictures import ArrayPictures, Data
from convserve_trainer.errors import BundleError, UsageError
from convserve_trainer.export.parity import Comparison
from convserve_trainer.recipes import recipe_files
from convserve_trainer.scores.score import Score
from tests.trainer.conftest import Published

LECTURE = recipe_files.find("lecture", "digits")


def _graph() -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "relu", [value], [other]))


def _said() -> Manifest:
    score = Score(correct=9_900, total=10_000, loss=0.03)
    pictures = ArrayPictures(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int64))
    spec = InputSpec(height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS)
    data = Data("digits", digits.LABELS, spec, pictures, pictures, "ab" * 32)
    compared = Comparison(score, score, largest=5e-7, others=0, mean=1e-7, changed=0)
    return manifest.of("mnist", LECTURE, data, 5, compared, 93_322, PRECISION_FLOAT32)


def test_manifest_comes_back_as_it_was_attached(tmp_path: Path) -> None:
    said = _said()
    model = _graph()
    manifest.attach(said, model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert bundle.read_manifest(path) == said


def test_manifest_fills_every_field(published: Published) -> None:
    said = bundle.read_manifest(published.bundle)
    unset = [field.name for field in Manifest.DESCRIPTOR.fields if not getattr(said, field.name)]
    assert unset == []
    assert list(said.labels) == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert (said.input.height, said.input.width, said.input.channels) == (28, 28, 1)
    assert said.input.kind == IMAGE_KIND_DIGITS
    assert said.input.resize == "mnist-centre/1"
    assert said.parameters == 93_322
    training = said.training
    assert (training.recipe, training.seed, training.epochs) == ("lecture", 7, 1)
    recipe = json.loads(training.recipe_json)
    assert recipe == json.loads(LECTURE.override(limit=1280, epochs=1, seed=7).to_json())
    assert set(training.versions) >= {"keras", "tensorflow", "onnx", "python", "convserve"}
    assert len(training.dataset_sha256) == 64
    assert 0 < training.parity_max_abs <= training.parity_bound == 1e-5
    assert said.precision == PRECISION_FLOAT32
    assert set(said.metrics) == {"accuracy", "loss", "correct", "total", "keras_correct"}
    assert said.metrics["keras_correct"] == said.metrics["correct"]
    assert said.metrics["accuracy"] == said.metrics["correct"] / said.metrics["total"]
    assert said.metrics["total"] == 10_000


def test_commit_is_that_of_the_checkout_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    code = tmp_path / "manifest.py"
    code.write_text("")
    monkeypatch.setattr(manifest, "__file__", str(code))
    assert manifest.git_commit() == ""
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "empty")
    assert manifest.git_commit() == "", "code that is installed in a checkout is not of it"
    git("add", "manifest.py")
    git("commit", "--quiet", "--message", "code")
    assert manifest.git_commit() == git("rev-parse", "HEAD")


def test_commit_without_git_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifest.git_commit() == ""


@pytest.mark.parametrize("name", ["mnist", "7", "a.b_c-D", "a" * 64])
def test_name_of_a_model_is_taken(name: str) -> None:
    manifest.check_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "..", "a" * 65, "ä", "a\n", "a b"])
def test_name_that_is_no_folder_of_ours_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="it takes a letter or digit, then"):
        manifest.check_name(name)


def test_bundle_is_found_by_file_version_or_model(tmp_path: Path) -> None:
    for version in ("2", "9", "10", "011", ".12.tmp", "latest"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.onnx").touch()
    newest = tmp_path / "10" / "model.onnx"
    assert bundle.find(newest) == bundle.find(tmp_path / "10") == bundle.find(tmp_path) == newest
    assert bundle.versions(tmp_path) == [2, 9, 10]


def test_bundle_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path / 'none'}: no such file or folder"):
        bundle.find(tmp_path / "none")
    nothing = f"^{tmp_path}: holds neither model.onnx nor a version folder with one"
    with pytest.raises(BundleError, match=f"{nothing}$"):
        bundle.find(tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(BundleError, match="holds neither"):
        bundle.find(tmp_path)


def _versions(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "model.onnx").touch()
    return folder


def test_versions_that_are_none_are_named_with_the_rule(tmp_path: Path) -> None:
    _versions(tmp_path, "001", "v2", ".3.tmp")
    (tmp_path / "notes").mkdir()
    with pytest.raises(BundleError, match=r"; not used: 001, v2: a version is a whole number from"):
        bundle.find(tmp_path)
    assert bundle.passed_over(_versions(tmp_path, "1", "20")) == ["001", "v2"]
    assert bundle.passed_over(tmp_path / "none") == []


def test_folder_of_models_is_named_as_that(tmp_path: Path) -> None:
    for name in ("my digits", "mnist"):
        _versions(tmp_path / name, "1", "v2")
    message = "; it is the folder of the models mnist, my digits: name one of them$"
    with pytest.raises(BundleError, match=message):
        bundle.find(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file: it has no graph"),
        (b"# readme\n", "not an ONNX file"),
        (b"\xff" * 100, "not an ONNX file"),
        (_graph().SerializeToString()[:-5], "not an ONNX file"),
        (_graph().SerializeToString(), "not a bundle: its metadata has 0 entries"),
    ],
)
def test_file_that_is_no_bundle_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        bundle.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged manifest"),
        ('{"colour": "blue"}', "damaged manifest: .*colour"),
        (json_format.MessageToJson(Manifest(format=2)), "has format 2, expected 1"),
    ],
)
def test_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    model = _graph()
    model.metadata_props.add(key="convserve.manifest", value=text)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=message):
        bundle.read(tmp_path)

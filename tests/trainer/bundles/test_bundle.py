import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format

from convserve_bundle.errors import BundleError
from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    PRECISION_FLOAT32,
    InputSpec,
    Manifest,
)
from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.errors import UsageError
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Score
from convserve_trainer.export.parity import Comparison
from convserve_trainer.recipes import recipe_files
from tests.trainer.conftest import Published

LECTURE = recipe_files.find("lecture", "digits")


def _graph() -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "relu", [value], [other]))


def _made_manifest() -> Manifest:
    score = Score(correct=9_900, total=10_000, loss=0.03)
    pictures = ArrayPictures(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int64))
    spec = InputSpec(height=28, width=28, channels=1, kind=IMAGE_KIND_DIGITS)
    data = Data("digits", mnist.LABELS, spec, pictures, pictures, "ab" * 32)
    answers = Answers(np.full((1, 10), 0.1, np.float32), np.zeros(1, np.int64))
    compared = Comparison(
        score, score, score, 5e-7, others=0, mean=1e-7, changed=0, answers=answers
    )
    return manifests.make_manifest("mnist", LECTURE, data, 5, compared, 93_322, PRECISION_FLOAT32)


def test_manifest_comes_back_as_it_was_attached(tmp_path: Path) -> None:
    manifest = _made_manifest()
    model = _graph()
    manifests.attach(manifest, model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert bundle.read_manifest(path) == manifest


def test_manifest_fills_every_field(published: Published) -> None:
    manifest = bundle.read_manifest(published.bundle)
    names = [field.name for field in Manifest.DESCRIPTOR.fields]
    unset = [name for name in names if not getattr(manifest, name)]
    assert unset == ["thresholds"], "there are none where pictures have one label"
    assert list(manifest.labels) == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert (manifest.input.height, manifest.input.width, manifest.input.channels) == (28, 28, 1)
    assert manifest.input.kind == IMAGE_KIND_DIGITS
    assert manifest.input.resize == "mnist-centre/1"
    assert manifest.parameters == 93_322
    training = manifest.training
    assert (training.recipe, training.seed, training.epochs) == ("lecture", 7, 1)
    recipe = json.loads(training.recipe_json)
    assert recipe == json.loads(LECTURE.override(limit=1280, epochs=1, seed=7).to_json())
    assert set(training.versions) >= {"keras", "tensorflow", "onnx", "python", "convserve"}
    assert len(training.dataset_sha256) == 64
    assert 0 < training.parity_max_abs <= training.parity_bound == 1e-5
    assert manifest.precision == PRECISION_FLOAT32
    assert set(manifest.metrics) == {"accuracy", "loss", "correct", "total", "keras_correct"}
    assert manifest.metrics["keras_correct"] == manifest.metrics["correct"]
    assert manifest.metrics["accuracy"] == manifest.metrics["correct"] / manifest.metrics["total"]
    assert manifest.metrics["total"] == 10_000


def test_commit_is_that_of_the_checkout_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    code = tmp_path / "manifest.py"
    code.write_text("")
    monkeypatch.setattr(manifests, "__file__", str(code))
    assert manifests.git_commit() == ""
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "empty")
    assert manifests.git_commit() == "", "code that is installed in a checkout is not of it"
    git("add", "manifest.py")
    git("commit", "--quiet", "--message", "code")
    assert manifests.git_commit() == git("rev-parse", "HEAD")


def test_commit_without_git_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifests.git_commit() == ""


@pytest.mark.parametrize("name", ["mnist", "7", "a.b_c-D", "a" * 64])
def test_name_of_a_model_is_taken(name: str) -> None:
    manifests.check_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "..", "a" * 65, "ä", "a\n", "a b"])
def test_name_that_is_no_folder_of_ours_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--name: expected a letter or digit, then"):
        manifests.check_name(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file: it has no graph"),
        (b"# readme\n", "not an ONNX file"),
        (b"\xff" * 100, "not an ONNX file"),
        (_graph().SerializeToString()[:-5], "not an ONNX file"),
        (_graph().SerializeToString(), "an ONNX file without convserve.manifest"),
    ],
)
def test_file_that_is_no_bundle_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for read in (bundle.read, bundle.read_manifest):
        with pytest.raises(BundleError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "convserve.manifest is damaged"),
        (json_format.MessageToJson(Manifest(format=2)), "manifest.format: expected 1, got 2"),
        (
            '{"format": 1, "precision": "PRECISION_INT4"}',
            "manifest.precision: .*, got 'PRECISION_INT4'",
        ),
    ],
)
def test_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    model = _graph()
    model.metadata_props.add(key="convserve.manifest", value=text)
    onnx.save(model, tmp_path / "model.onnx")
    for read in (bundle.read, bundle.read_manifest):
        with pytest.raises(BundleError, match=message) as caught:
            read(tmp_path / "model.onnx")
        assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: ")


def test_manifest_of_a_later_version_is_read_and_what_is_not_known_is_kept(tmp_path: Path) -> None:
    model = _graph()
    text = '{"format": 1, "name": "mnist", "colour": "blue"}'
    model.metadata_props.add(key="convserve.manifest", value=text)
    onnx.save(model, tmp_path / "model.onnx")
    assert bundle.read_manifest(tmp_path).name == "mnist"
    net, manifest = bundle.read(tmp_path)
    assert manifest.name == "mnist"
    assert [entry.value for entry in net.metadata_props] == [text]

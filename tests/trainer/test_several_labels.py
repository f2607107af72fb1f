"""Pictures with several labels: from a CSV file to bundles in each precision; what is refused."""

import contextlib
import csv
import io
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import OUTPUT_MULTI_LABEL, OUTPUT_SOFTMAX, Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import registry, splits
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.evaluation import predict
from convserve_trainer.main import main
from convserve_trainer.recipes import recipe_files
from convserve_trainer.runs.history import read_csv
from tests.trainer.drawn import draw_parts

[READER] = [entry.reader for entry in registry.FORMATS if entry.name == "photo-csv"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"
LABELS = ["circle", "cross", "ring", "square", "triangle"]
#: Large steps, so that a few epochs tell something apart.
RECIPE = """
task = "photos"
net = [
  { layer = "conv", filters = 8, stride = 2 },
  { layer = "conv", filters = 8, stride = 2 },
  { layer = "flatten" },
  { layer = "dense", units = 16 },
]
height = 24
width = 24
output = "multi_label"
loss = "binary_crossentropy"
optimizer = "adam"
learning_rate = 0.01
epochs = 3
batch_size = 32
validation_share = 0.2
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the example, few of them."""
    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    runpy.run_path(str(EXAMPLE / "make_shapes.py"))["make"](folder, 400, 1)
    (folder / "small.toml").write_text(RECIPE)
    return folder / "shapes.csv"


@pytest.fixture(scope="module")
def models(shapes: Path) -> Path:
    """A net of them, published."""
    models = shapes.parent / "models"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main([*_fit(shapes), "--models", str(models), "--calibrate"]) == 0
    found = [float(each) for each in re.findall(r"^validation mAP (.+)$", output.getvalue(), re.M)]
    assert len(found) == 3, "a line after each epoch"
    assert all(0.1 < each <= 1 for each in found)
    epochs = read_csv((models / "shapes" / "1" / "history.csv").read_text())
    assert [each.val_map for each in epochs] == pytest.approx(found, abs=1e-4)
    return models


def _fit(shapes: Path, recipe: str = "small.toml") -> list[str]:
    file = shapes.parent / recipe
    command = ["fit", "photos", "--data", str(shapes), "--formats", "all", "--name", "shapes"]
    return [*command, "--recipe", str(file) if file.exists() else recipe]


def _data(shapes: Path) -> list[str]:
    return ["--data", str(shapes)]


def _say(_: str) -> None:
    """Takes lines."""


def _answers(file: Path, manifest: Manifest, shapes: Path) -> predict.Answers:
    source = Source(shapes, 24, 24, method=manifest.input.resize)
    session = predict.session(file.read_bytes())
    held_out = READER.held_out(source, manifest, _say)
    return predict.answer(lambda pixels: predict.by_onnxruntime(session, pixels), held_out)


def test_bundle_states_its_output_and_what_it_found(models: Path, shapes: Path) -> None:
    manifest = bundle.read_manifest(models / "shapes")
    assert (manifest.format, manifest.output) == (2, OUTPUT_MULTI_LABEL)
    assert list(manifest.labels) == LABELS
    assert len(manifest.thresholds) == len(LABELS)
    assert all(0 < each <= 1 for each in manifest.thresholds)
    assert manifest.training.temperature > 0
    recipe = json.loads(manifest.training.recipe_json)
    assert (recipe["output"], recipe["loss"]) == ("multi_label", "binary_crossentropy")

    found, right = _answers(models / "shapes" / "1" / "model.onnx", manifest, shapes)
    with shapes.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    assert len(rows) == len(found) == 80
    assert right.sum(axis=1).tolist() != [1] * 80, "none, one and several"
    assert sorted(map(tuple, right.tolist())) == sorted(
        tuple(int(label in row["labels"].split("|")) for label in LABELS) for row in rows
    )
    assert np.abs(found.sum(axis=1) - 1).max() > 0.1, "each label has a sigmoid of its own"
    answered = found >= np.array(manifest.thresholds, np.float32)
    correct = (answered == right.astype(bool)).all(axis=1).sum()
    assert manifest.metrics["correct"] == correct
    assert manifest.metrics["keras_correct"] == correct
    both = 2 * (answered & (right == 1)).sum()
    assert manifest.metrics["f1_micro"] == pytest.approx(both / (answered.sum() + right.sum()))
    assert {"accuracy", "loss", "total", "map", "f1_macro"} <= set(manifest.metrics)


def test_thresholds_are_chosen_without_what_is_held_out(
    models: Path, shapes: Path, tmp_path: Path
) -> None:
    # All labels of held-out pictures are turned round: weights, and so thresholds, do not change.
    text = shapes.read_text().splitlines()
    turned = []
    for line in text:
        path, labels, part = line.split(",")
        if part == "validation":
            has = labels.split("|")
            labels = "|".join(label for label in LABELS if label not in has)
        turned.append(f"{path},{labels},{part}")
    other = shapes.with_name("turned.csv")
    other.write_text("\n".join(turned) + "\n")
    command = [*_fit(shapes), "--calibrate", "--models", str(tmp_path)]
    command[command.index(str(shapes))] = str(other)
    assert main(command) == 0
    before, after = (bundle.read_manifest(each / "shapes") for each in (models, tmp_path))
    assert list(before.thresholds) == list(after.thresholds)
    assert before.metrics["map"] != after.metrics["map"]


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "tf32", "int8"])
def test_precision_keeps_thresholds_and_its_bound(
    models: Path, shapes: Path, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", str(models / "shapes" / "1"), "--precision", precision]
    assert main([*command, *_data(shapes), "--models", str(tmp_path)]) == 0
    before = bundle.read_manifest(models / "shapes" / "1")
    after = bundle.read_manifest(tmp_path / "shapes")
    assert (after.format, after.output) == (2, OUTPUT_MULTI_LABEL)
    assert after.thresholds == before.thresholds
    file = tmp_path / "shapes" / "1" / "model.onnx"
    exact, right = _answers(models / "shapes" / "1" / "model.onnx", before, shapes)
    rounded, _ = _answers(file, after, shapes)
    assert np.abs(exact - rounded).max() <= after.training.parity_max_abs * 1.001
    assert np.abs(rounded.sum(axis=1) - 1).max() > 0.1
    assert "map" in after.metrics
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert "largest difference between the two" in printed


def test_evaluation_compares_and_describes(
    models: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["evaluate", str(models / "shapes"), *_data(shapes), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    for text in ("mAP", "threshold", "Each label", "95 % intervals", "all decisions"):
        assert text in printed
    assert "onfusion" not in page.read_text()
    assert "label that is missed" in page.read_text()
    assert main(["evaluate", str(models / "shapes"), *_data(shapes), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    metrics = bundle.read_manifest(models / "shapes").metrics
    assert found["map"] == pytest.approx(metrics["map"])
    assert [each["label"] for each in found["classes"]] == LABELS
    beside = json.loads((models / "shapes" / "1" / "evaluation.json").read_text())
    # In another order of the pictures, so that others are drawn.
    assert beside["map_interval"] == pytest.approx(found["map_interval"], abs=0.03)

    both = str(models / "shapes" / "1")
    assert main(["compare", both, both, *_data(shapes), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["difference"]) for each in compared["differences"]] == [
        ("mean_average_precision", 0.0), ("f1_macro", 0.0), ("f1_micro", 0.0),
    ]  # fmt: skip
    assert main(["card", both]) == 0
    card = capsys.readouterr().out
    assert "which of 5 labels a picture has, any number of them" in card
    assert f"(mAP) on 80 held-out pictures: {metrics['map']:.2%}" in card
    assert "multi-label" in card.split("---")[1]
    report = (models / "shapes" / "1" / "report.html").read_text()
    assert "Pictures with each label" in report


def test_recipe_for_one_label_becomes_one_for_several(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = RECIPE.replace('output = "multi_label"\n', "").replace("binary_", "categorical_")
    (shapes.parent / "plain.toml").write_text(changed + "min_accuracy = 0.99\n")
    assert main([*_fit(shapes, "plain.toml"), "--models", str(tmp_path), "--epochs", "1"]) == 0
    assert "labels circle, cross, ring, square, triangle" in capsys.readouterr().out
    assert bundle.read_manifest(tmp_path / "shapes").output == OUTPUT_MULTI_LABEL


def test_without_a_validation_some_pictures_are_kept_for_thresholds(shapes: Path) -> None:
    data = READER.load(Source(shapes, 24, 24, method="picture-bilinear/1"), None, _say)
    for share, calibrate, where in (
        (0.0, False, None), (0.2, False, "validation"), (0.0, True, "calibration"),
    ):  # fmt: skip
        kept = splits.reserve(data, share, calibrate)
        assert kept.thresholds is not None
        if where is not None:
            assert kept.thresholds is getattr(kept, where)
        else:
            assert len(kept.thresholds) == len(data.train) // 10
            assert len(kept.train) + len(kept.thresholds) == len(data.train)


def _listed(folder: Path, lines: list[str]) -> Path:
    draw_parts(folder, {"red": 4, "blue": 4}, {"red": 2, "blue": 2})
    file = folder / "set.csv"
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.jpg"))
    assert len(paths) == 12
    rows = [lines[0], *(f"{path},{line}" for path, line in zip(paths, lines[1:], strict=False))]
    file.write_text("\n".join(rows) + "\n")
    return file


def test_held_out_pictures_need_not_have_every_label(tmp_path: Path) -> None:
    file = _listed(
        tmp_path, ["path,labels,split", "a|b,train", "c,train", "a,train", "b,train", ",validation"]
    )
    data = READER.load(Source(file, 16, 16), None, _say)
    assert data.several
    assert tuple(data.labels) == ("a", "b", "c")
    assert data.held_out.labels.tolist() == [[0, 0, 0]]
    [(_, rows)] = data.train.batches(range(4), 4)
    assert rows.tolist() == data.train.labels.tolist()
    assert data.train.labels.sum(axis=0).tolist() == [2, 2, 1]


def test_digest_depends_on_each_label(tmp_path: Path) -> None:
    lines = ["path,labels,split", "a|b,train", "c,train", "a,train", "b,train", "a,validation"]
    digests = set()
    for number, change in enumerate(("a|b,train", "a,train", "a|b|c,train")):
        file = _listed(tmp_path / str(number), [lines[0], change, *lines[2:]])
        digests.add(READER.load(Source(file, 16, 16), None, _say).sha256)
    assert len(digests) == 3


def test_held_out_labels_have_the_numbers_of_the_bundle(tmp_path: Path) -> None:
    file = _listed(tmp_path, ["path,labels,split", "b,validation", ",validation"])
    manifest = Manifest(labels=["z", "b", "a"], output=OUTPUT_MULTI_LABEL)
    with pytest.raises(DataError, match="one class only"):
        READER.held_out(Source(file, 16, 16), manifest, _say)
    file = _listed(tmp_path / "more", ["path,labels,split", "b|a,validation", ",validation"])
    held_out = READER.held_out(Source(file, 16, 16, method="photo-bilinear/1"), manifest, _say)
    assert held_out.labels.tolist() == [[0, 1, 1], [0, 0, 0]]
    manifest = Manifest(labels=["a", "z"], output=OUTPUT_MULTI_LABEL)
    with pytest.raises(DataError, match="expected labels of the bundle, a, z, got b"):
        READER.held_out(Source(file, 16, 16, method="photo-bilinear/1"), manifest, _say)


def test_bundle_of_several_labels_is_not_judged_on_one_and_the_reverse(
    models: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shapes.read_text().splitlines()
    lines = [text[0].replace("labels", "label")]
    for number, label in enumerate(LABELS):
        lines += [f"{number:05}.{'jpg' if number % 2 else 'png'},{label},validation"]
    single = shapes.with_name("single.csv")
    single.write_text("\n".join(lines) + "\n")
    assert main(["evaluate", str(models / "shapes"), "--data", str(single)]) == 1
    assert "expected several labels a picture, as shapes has, got one label" in (
        capsys.readouterr().err
    )


def test_recipe_that_does_not_fit_is_refused() -> None:
    recipe = recipe_files.find("quick", "photos")
    for changes, message in (
        ({"output": "multi_label", "loss": "categorical_crossentropy"}, "loss: expected binary"),
        ({"output": "multi_label", "class_weights": "balanced"}, "class_weights: expected none"),
        ({"output": "both"}, "output: expected softmax or multi_label, got 'both'"),
    ):
        with pytest.raises(UsageError, match=message):
            recipe.override(changes)
    several = recipe.override({"output": "multi_label"})
    with pytest.raises(UsageError, match="output: expected softmax for data with one label"):
        several.for_classes(2)
    assert several.for_classes(5, several=True) == several
    made = recipe.for_classes(5, several=True)
    assert (made.output, made.loss, made.min_accuracy) == ("multi_label", "binary_crossentropy", 0)
    with pytest.raises(UsageError, match="class_weights: expected none with output multi_label"):
        recipe.override({"class_weights": "balanced"}).for_classes(5, several=True)


def test_recipe_of_one_label_is_written_as_ever() -> None:
    assert '"output"' not in recipe_files.find("quick", "photos").to_json()


def test_ordinary_bundle_states_a_softmax(tmp_path: Path) -> None:
    data = draw_parts(tmp_path / "data", {"red": 8, "blue": 8}, {"red": 4, "blue": 4})
    command = ["fit", "photos", "--data", str(data), "--recipe", "quick", "--epochs", "1"]
    assert main([*command, "--steps", "2", "--models", str(tmp_path), "--size", "24x24"]) == 0
    manifest = bundle.read_manifest(tmp_path / "data")
    assert (manifest.format, manifest.output) == (1, OUTPUT_SOFTMAX)
    assert not manifest.thresholds

"""Photographs of one channel, from JPEGs in colour and in grey to a bundle."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from convserve_imaging.luma import luma
from convserve_imaging.photos import decode
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, InputSpec
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import photos
from convserve_trainer.datasets.pictures import Pixels, Source
from convserve_trainer.main import main

SETTINGS = ["--set", "channels=1", "--size", "22x24", "--batch-size", "8", "--steps", "4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Dark and bright pictures, every second one a JPEG of one component."""
    generator = np.random.default_rng(0)
    for part in ("train", "validation"):
        for label, light in (("bright", 150), ("dark", 0)):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for number in range(8):
                pixels = generator.integers(light, light + 100, (40, 30, 3), np.uint8)
                image = Image.fromarray(pixels).convert("L" if number % 2 else "RGB")
                image.save(tmp_path / "data" / part / label / f"{number}.jpg", quality=95)
    return tmp_path / "data"


def _pixels(folder: Path, cache: str) -> Pixels:
    data = photos.load(Source(folder, 16, 24, cache=cache, channels=1), None, print)
    assert data.spec == InputSpec(
        height=16, width=24, channels=1, kind=IMAGE_KIND_PHOTO, resize="photo-bilinear-grey/1"
    )
    [(pixels, _)] = data.train.batches(range(len(data.train)), len(data.train))
    return pixels


def test_pixels_are_the_luma_of_the_colours_wherever_they_are_kept(folder: Path) -> None:
    files = [path.read_bytes() for path in sorted((folder / "train").rglob("*.jpg"))]
    expected = np.stack([luma(decode(data, 16, 24)) for data in files])
    assert expected.shape == (16, 16, 24, 1)
    # The disk's cache is read once more, to see that it is not that of another number of channels.
    photos.load(Source(folder, 16, 24, cache="disk"), None, print)
    for cache in ("none", "memory", "disk", "disk"):
        assert np.array_equal(_pixels(folder, cache), expected)


def test_grey_component_stays_as_it_is(folder: Path) -> None:
    data = (folder / "train/dark/1.jpg").read_bytes()
    in_colour = decode(data, 16, 24)
    for channel in range(3):
        assert np.array_equal(decode(data, 16, 24, channels=1)[..., 0], in_colour[..., channel])


def test_net_of_grey_photographs_is_published_and_evaluated_alike(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = folder.parent / "models"
    command = ["fit", "photos", "--data", str(folder), "--models", str(models), *SETTINGS]
    assert main([*command, "--recipe", "quick", "--epochs", "2"]) == 0
    manifest = bundle.read_manifest(models / "data")
    spec = manifest.input
    assert (spec.height, spec.width, spec.channels) == (22, 24, 1)
    assert spec.resize == "photo-bilinear-grey/1"
    assert json.loads(manifest.training.recipe_json)["channels"] == 1
    capsys.readouterr()
    assert main(["evaluate", str(models / "data"), "--data", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["correct"], found["total"]) == (manifest.metrics["correct"], 16)

    # As a file was published whose pixels were scaled before their shape changed.
    made = bundle.read(models / "data")[0]
    shaping, cast, scaling = made.graph.node[:3]
    assert [node.op_type for node in made.graph.node[:3]] == ["Reshape", "Cast", "Mul"]
    pixels, scaled = shaping.input[0], scaling.output[0]
    cast.input[0], scaling.output[0], shaping.input[0] = pixels, "scaled", "scaled"
    shaping.output[0] = scaled
    shaping_first = onnx.NodeProto()
    shaping_first.CopyFrom(shaping)
    del made.graph.node[0]
    made.graph.node.insert(2, shaping_first)
    file = models / "data" / "1" / "model.onnx"
    onnx.save(made, file)
    capsys.readouterr()
    convert = ["convert", str(models / "data"), "--data", str(folder), "--precision", "float32"]
    assert main(convert) == 0
    assert "largest difference between the two 0.0e+00" in capsys.readouterr().out
    mended, again = bundle.read(models / "data" / "2")
    assert [node.op_type for node in mended.graph.node[:3]] == ["Reshape", "Cast", "Mul"]
    assert again.metrics["correct"] == manifest.metrics["correct"]


def test_number_of_channels_is_1_or_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "photos", "--data", str(folder), "--set", "channels=2"]) == 2
    assert capsys.readouterr().err == "convserve-train: --channels: expected 1 or 3, got 2\n"

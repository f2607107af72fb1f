"""The command drift: pictures that are like those of a training, and others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle, picture_statistics
from convserve_trainer.datasets import photos
from convserve_trainer.datasets.pictures import ArrayPictures, Source
from convserve_trainer.main import main
from tests.bundles import COLOURS, digit_of, manifest, write_photo_bundle
from tests.trainer.bundles.pixel_digits import pixel_bundle
from tests.trainer.conftest import Small
from tests.trainer.drawn import draw


def _digits(generator: np.random.Generator, count: int, light: int) -> np.ndarray:
    """Lit pixels before grounds of a brightness that differs around `light`: [N, 28, 28, 1]."""
    images = np.stack([digit_of(n % 10) for n in range(count)])
    grounds = generator.normal(light, 10, count).clip(0, 200).astype(np.uint8)
    images[:, 1:] = grounds[:, np.newaxis, np.newaxis, np.newaxis]
    return images


def _save(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A bundle of pictures whose ground has a brightness of about 60."""
    known = _digits(np.random.default_rng(1), 500, 60)
    stated = manifest("lit")
    pictures = ArrayPictures(known, np.zeros(500, np.int64))
    stated.statistics.CopyFrom(picture_statistics.of_pictures(pictures))
    sure = np.full((500, 10), 1e-9, np.float32)
    sure[:, 0] = 1
    picture_statistics.state_confidence(stated.statistics, sure)
    return str(pixel_bundle(tmp_path / "models", stated))


def test_pictures_of_the_same_sort_have_not_drifted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _save(tmp_path / "new" / "deeper", _digits(np.random.default_rng(2), 120, 60))
    (folder / ".hidden.png").write_text("not read")
    (folder / "notes.txt").write_text("neither")
    assert main(["drift", model, str(folder.parent)]) == 0
    head, names, brightness, contrast, confidence = capsys.readouterr().out.splitlines()
    assert head == f"{model}/model.onnx: 120 pictures"
    assert " ".join(names.split()) == (
        "measure the net knows these pictures PSI by luck up to verdict"
    )
    for line, name in ((brightness, "brightness"), (contrast, "contrast")):
        assert line.startswith(name)
        assert line.endswith("–")
    assert confidence.startswith("confidence")


def test_darker_pictures_have_drifted_and_the_status_is_3(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _save(tmp_path / "new", _digits(np.random.default_rng(3), 120, 40))
    assert main(["drift", model, str(folder), "--json"]) == 3
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["drifted"] == ["brightness", "contrast"]
    brightness = found["measures"][0]
    assert brightness["threshold"] == 0.25
    assert brightness["psi"] > brightness["by_luck"] > 0.25, "120 pictures are few"
    assert brightness["found"]["mean"] < brightness["known"]["mean"] - 15
    assert captured.err == "convserve-train: drift of brightness, contrast\n"
    assert main(["drift", model, str(folder), "--threshold", "20"]) == 0
    assert "some" in capsys.readouterr().out


def test_few_pictures_may_be_luck(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _save(tmp_path / "new", _digits(np.random.default_rng(4), 5, 60))
    assert main(["drift", model, str(folder), "--json"]) == 0
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert max(each["psi"] for each in measures) > 0.25, "what a threshold alone calls drift"


def test_limit_compares_some_of_all(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = _digits(np.random.default_rng(5), 60, 60)
    images[:30, 1:] //= 4
    folder = _save(tmp_path / "new", images)
    assert main(["drift", model, str(folder), "--limit", "20", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 20
    assert 20 < found["measures"][0]["found"]["mean"] < 50, "of both halves"


def test_unreadable_pictures_are_named_and_left_out(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _save(tmp_path / "new", _digits(np.random.default_rng(6), 40, 60))
    for number in range(5):
        (folder / f"a{number}.png").write_text("x")
    assert main(["drift", model, str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["pictures"], found["unreadable"]) == (40, 5)
    *named, more = captured.err.splitlines()
    assert [line.partition(":")[0] for line in named] == [f"{folder}/a{n}.png" for n in range(3)]
    assert more == "and 2 more pictures cannot be read"


def test_size_of_photographs_is_compared_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = draw(tmp_path / "known", dict.fromkeys(sorted(COLOURS), 40), seed=1)
    data = photos.load(Source(known, 150, 150, split=0.2), None, lambda _: None)
    file = write_photo_bundle(tmp_path / "models")
    net, stated = bundle.read(file)
    stated.statistics.CopyFrom(picture_statistics.of_pictures(data.train))
    _replace(file, stated)
    same = draw(tmp_path / "same", dict.fromkeys(COLOURS, 20), seed=2)
    assert main(["drift", str(file), str(same), "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)["measures"]]
    assert names == ["brightness", "contrast", "size"], "there is no confidence to compare with"
    for path in same.rglob("*.jpg"):
        with Image.open(path) as image:
            image.resize((image.width * 4, image.height * 4)).save(path, quality=95)
    assert main(["drift", str(file), str(same), "--json"]) == 3
    assert "size" in json.loads(capsys.readouterr().out)["drifted"]


def _replace(file: Path, stated: Manifest) -> None:
    from convserve_trainer.bundles import manifests

    net, _ = bundle.read(file)
    net.ClearField("metadata_props")
    manifests.attach(stated, net)
    file.write_bytes(net.SerializeToString())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none"], 2, "none: no such file or folder"),
        (["."], 1, ".: expected files with pictures (.jfif, .jpe, .jpeg, .jpg, .png), got none"),
        ([".", "--threshold", "0"], 2, "--threshold: expected more than 0, got 0"),
        ([".", "--limit", "0"], 2, "--limit: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str],
    status: int,
    message: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["drift", model, *arguments]) == status
    assert capsys.readouterr().err == f"convserve-train: {message}\n"


def test_pictures_of_which_none_can_be_read_are_an_error(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_text("x")
    assert main(["drift", model, str(tmp_path / "x.png")]) == 1
    assert "none of 1 pictures can be read" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_bundle_without_statistics_is_refused_and_convert_adds_them(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    assert main(small.fit(models)) == 0
    file = models / "small" / "1" / "model.onnx"
    stated = bundle.read_manifest(file)
    assert [
        sum(each.counts) for each in (stated.statistics.brightness, stated.statistics.contrast)
    ] == [91, 91]
    assert sum(stated.statistics.confidence.counts) == 30
    assert not stated.statistics.HasField("size")
    found = stated.statistics
    stated.ClearField("statistics")
    _replace(file, stated)
    (file.parent / "digests.json").unlink()
    capsys.readouterr()
    assert main(["drift", str(file), str(tmp_path)]) == 1
    assert "convserve-train convert --precision float32 publishes it" in capsys.readouterr().err
    assert main(["convert", str(file), "--precision", "float32", "--data", str(small.data)]) == 0
    again = bundle.read_manifest(models / "small" / "2").statistics
    assert again.brightness == found.brightness
    assert sum(again.confidence.counts) == 30

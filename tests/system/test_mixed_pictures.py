"""PNG, WebP, GIF and JPEG in one tree: trained, published, served, each answered as by Keras."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve import BadImage, Client
from convserve_trainer.datasets import photo_reader
from tests.mixed_pictures import (
    HEIGHT,
    RECIPE,
    WIDTH,
    answers_of_keras,
    draw,
    pixels_seen,
    run,
)
from tests.system.conftest import StartServer

pytestmark = pytest.mark.timeout(1000)


def test_every_file_is_answered_as_keras_answers_its_pixels(
    tmp_path: Path, start_server: StartServer
) -> None:
    models, data = tmp_path / "models", tmp_path / "mixed"
    draw(data / "train", 8, seed=1)
    draw(data / "validation", 4, seed=2)
    (tmp_path / "small.toml").write_text(RECIPE)
    printed = run(
        *("convserve_trainer.main", "fit", "photos", "--data", str(data), "--models", str(models)),
        *("--recipe", str(tmp_path / "small.toml"), "--formats", "all", "--subfolders", "use"),
    )
    assert "112 photographs to train on" in printed
    assert "not used" not in printed
    bundle = models / "mixed"
    # What it was trained on is in the bundle: evaluate needs no --formats.
    score = json.loads(
        run(
            *("convserve_trainer.main", "evaluate", str(bundle), "--data", str(data)),
            *("--subfolders", "use", "--json"),
        )
    )
    assert score["total"] == 56
    files = sorted(path for path in (data / "validation").rglob("*") if path.is_file())
    method = "picture-bilinear/1"
    pixels = np.stack([photo_reader.read(path, HEIGHT, WIDTH, method=method) for path in files])
    expected = answers_of_keras(bundle / "1" / "net.keras", pixels, tmp_path)

    address = start_server("--workers", "1").wait_until_serving()
    with Client(address) as client:
        model = next(each for each in client.models() if each.name == "mixed")
        assert model.manifest.input.resize == method
        assert model.file_formats == ("JPEG", "PNG", "WebP", "GIF")
        for path, one, seen in zip(files, expected, pixels, strict=True):
            answer = client.classify_images(path.read_bytes(), model="mixed")
            assert np.allclose(answer.probabilities, one, atol=1e-5), path.name
            assert pixels_seen(address, path.read_bytes()) == seen.tobytes(), path.name
        broken = next(path for path in files if path.suffix == ".webp").read_bytes()[:-9]
        with pytest.raises(BadImage, match="the WebP is truncated"):
            client.classify_images(broken, model="mixed")
        file = io.BytesIO()
        Image.new("RGB", (20, 20)).save(file, "BMP")
        with pytest.raises(BadImage, match="looks like a BMP"):
            client.classify_images(file.getvalue(), model="mixed")

    lines = run(
        *("convserve.main", "classify", "--server", address, "--model", "mixed"),
        *("--format", "jsonl", str(data / "validation")),
    )
    assert len(lines.splitlines()) == len(files), "of a folder, files of all formats"

"""PNG, WebP, GIF and JPEG in one tree: trained, published, served, each answered as by Keras."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from convserve import BadImage, Client
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_trainer.datasets import photo_reader
from tests.system.conftest import WAIT_S, StartServer

pytestmark = pytest.mark.timeout(1000)
CLASSES = ("blue", "red")
CHANNELS = {"red": 0, "blue": 2}
HEIGHT, WIDTH = 22, 24
RECIPE = """
task = "photos"
net = [{ layer = "conv", filters = 6, stride = 2 }, { layer = "global_average" }]
height = 22
width = 24
learning_rate = 0.05
epochs = 6
batch_size = 8
"""
#: The script's endings of names, format, mode, and what else Pillow is given.
KINDS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("jpg", "JPEG", "RGB", {"quality": 90}),
    ("png", "PNG", "RGB", {}),
    ("PNG", "PNG", "RGBA", {}),
    ("webp", "WEBP", "RGB", {"quality": 90}),
    ("WebP", "WEBP", "RGBA", {"lossless": True}),
    ("gif", "GIF", "P", {}),
)


def picture(colour: str, generator: np.random.Generator, mode: str) -> Image.Image:
    height, width = generator.integers(24, 80, 2)
    pixels = generator.integers(0, 120, (height, width, 4), np.uint8)
    pixels[..., CHANNELS[colour]] += 100
    pixels[..., 3] += 130
    whole = Image.fromarray(pixels)
    return whole if mode == "RGBA" else whole.convert("RGB").convert(mode)


def draw(folder: Path, rounds: int, seed: int) -> None:
    """Writes pictures of all kinds into class folders, half of them one folder deeper."""
    generator = np.random.default_rng(seed)
    for colour in CLASSES:
        (folder / colour / "more").mkdir(parents=True)
        for number in range(rounds):
            where = folder / colour / ("more" if number % 2 else "")
            for ending, kind, mode, options in KINDS:
                one = picture(colour, generator, mode)
                others = [picture("red", generator, "P").resize(one.size)] if kind == "GIF" else []
                more = {"save_all": True, "append_images": others} if others else {}
                one.save(where / f"{number}-{mode}.{ending}", kind, **options, **more)
            grey = generator.integers(0, 2**16, (30, 40), np.uint16)
            grey //= 2 if colour == "blue" else 1
            Image.fromarray(grey).save(where / f"{number}-deep.png")


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


#: Prints Keras's probabilities for a file of pixels.
KERAS = """
import json, sys
import keras
import numpy as np

net = keras.models.load_model(sys.argv[1], compile=False)
print(json.dumps(net.predict(np.load(sys.argv[2]), verbose=0).tolist()))
"""


def _pixels(address: str, file: bytes) -> bytes:
    """Returns the pixels that the model has seen of a file."""
    request = pb.ClassifyRequest(
        model="mixed", encoded=pb.EncodedImages(images=[file]), return_pixels=True
    )
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        reply: pb.ClassifyResponse = stub.Classify(request, timeout=WAIT_S)
    return reply.results[0].prediction.pixels


def test_every_file_is_answered_as_keras_answers_its_pixels(
    tmp_path: Path, start_server: StartServer
) -> None:
    models, data = tmp_path / "models", tmp_path / "mixed"
    draw(data / "train", 8, seed=1)
    draw(data / "validation", 4, seed=2)
    (tmp_path / "small.toml").write_text(RECIPE)
    printed = _run(
        *("convserve_trainer.main", "fit", "photos", "--data", str(data), "--models", str(models)),
        *("--recipe", str(tmp_path / "small.toml"), "--formats", "all", "--subfolders", "use"),
    )
    assert "112 photographs to train on" in printed
    assert "not used" not in printed
    bundle = models / "mixed"
    # What it was trained on is in the bundle: evaluate needs no --formats.
    score = json.loads(
        _run(
            *("convserve_trainer.main", "evaluate", str(bundle), "--data", str(data)),
            *("--subfolders", "use", "--json"),
        )
    )
    assert score["total"] == 56
    files = sorted(path for path in (data / "validation").rglob("*") if path.is_file())
    method = "picture-bilinear/1"
    pixels = np.stack([photo_reader.read(path, HEIGHT, WIDTH, method=method) for path in files])
    np.save(tmp_path / "pixels.npy", pixels)
    net = str(bundle / "1" / "net.keras")
    command = [sys.executable, "-c", KERAS, net, str(tmp_path / "pixels.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert done.returncode == 0, done.stderr
    expected = np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)

    address = start_server("--workers", "1").wait_until_serving()
    with Client(address) as client:
        model = next(each for each in client.models() if each.name == "mixed")
        assert model.manifest.input.resize == method
        assert model.file_formats == ("JPEG", "PNG", "WebP", "GIF")
        for path, one, seen in zip(files, expected, pixels, strict=True):
            answer = client.classify_images(path.read_bytes(), model="mixed")
            assert np.allclose(answer.probabilities, one, atol=1e-5), path.name
            assert _pixels(address, path.read_bytes()) == seen.tobytes(), path.name
        broken = next(path for path in files if path.suffix == ".webp").read_bytes()[:-9]
        with pytest.raises(BadImage, match="the WebP is truncated"):
            client.classify_images(broken, model="mixed")
        file = io.BytesIO()
        Image.new("RGB", (20, 20)).save(file, "BMP")
        with pytest.raises(BadImage, match="looks like a BMP"):
            client.classify_images(file.getvalue(), model="mixed")

    lines = _run(
        *("convserve.main", "classify", "--server", address, "--model", "mixed"),
        *("--format", "jsonl", str(data / "validation")),
    )
    assert len(lines.splitlines()) == len(files), "of a folder, files of all formats"

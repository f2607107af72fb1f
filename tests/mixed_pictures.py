"""Pictures of all formats in one tree, a net for them, and how Keras and a server answer them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image

from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.system.conftest import WAIT_S

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


def run(module: str, *arguments: str) -> str:
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


def pixels_seen(address: str, file: bytes, model: str = "mixed") -> bytes:
    """Returns the pixels that a model has seen of a file."""
    request = pb.ClassifyRequest(
        model=model, encoded=pb.EncodedImages(images=[file]), return_pixels=True
    )
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        reply: pb.ClassifyResponse = stub.Classify(request, timeout=WAIT_S)
    return reply.results[0].prediction.pixels


def answers_of_keras(net: Path, pixels: npt.NDArray[np.uint8], folder: Path) -> npt.NDArray[Any]:
    """Returns Keras's probabilities, float32 [N, K], of uint8 [N, H, W, C]."""
    np.save(folder / "pixels.npy", pixels)
    command = [sys.executable, "-c", KERAS, str(net), str(folder / "pixels.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)

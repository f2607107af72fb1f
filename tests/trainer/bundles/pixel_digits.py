"""A bundle that is made without training, and data sets that it is right or wrong about."""

from pathlib import Path

import numpy as np
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_protos.bundle_pb2 import IMAGE_KIND_PIXELS, Manifest
from tests.bundles import CLASSES, digit_of, manifest, model
from tests.trainer import idx_files

HELD_OUT = 40


def pixel_bundle(models: Path, stated: Manifest | None = None) -> Path:
    """Writes the model that says which pixel is lit; returns the folder of its version.

    Args:
        models: the models folder.
        stated: its manifest; None for a bare one.
    """
    stated = stated or manifest("lit")
    stated.input.kind, stated.input.resize = IMAGE_KIND_PIXELS, "pixels/1"
    folder = models / stated.name / "1"
    folder.mkdir(parents=True)
    content = model({MANIFEST_KEY: json_format.MessageToJson(stated)}).SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    return folder


def digits(folder: Path, wrong: int = 0, brightness: int = 0) -> Path:
    """Writes HELD_OUT held-out pictures, and as many to train on.

    Args:
        folder: of the data set.
        wrong: of the first so many, class 1 is lit, whatever they are.
        brightness: of the last row of each picture.
    """
    labels = (np.arange(HELD_OUT) % CLASSES).astype(np.uint8)
    images = np.stack([digit_of(int(label)) for label in labels])
    for number in range(0, 10 * wrong, 10):
        images[number] = digit_of(1)
    images[:, -1] = brightness
    return idx_files.write_arrays(folder, (images, labels), (images, labels))

"""How a published bundle does on held-out pictures, through ONNX Runtime."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_bundle.contract import BATCH_AXIS, INPUT, OUTPUT
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    IMAGE_KIND_PHOTO,
    IMAGE_KIND_PIXELS,
    ImageKind,
    Manifest,
)
from convserve_trainer.bundles import bundle
from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.export import contract

KINDS = (IMAGE_KIND_DIGITS, IMAGE_KIND_PHOTO, IMAGE_KIND_PIXELS)


def evaluate(file: Path, pictures: Pictures) -> Score:
    """Returns the score of a bundle.

    Args:
        file: model.onnx, one that `check` has let pass.
        pictures: what it is scored on, all of them.

    Raises:
        BundleError: ONNX Runtime refuses it.
        DataError: too many pictures cannot be read.
    """
    return score(*answers(file, pictures))


def answers(
    file: Path, pictures: Pictures
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]:
    """Returns what a bundle says, float32 [N, K], and what is right, int [N].

    Args:
        file: model.onnx, one that `check` has let pass.
        pictures: all that it is asked about, in their order.

    Raises:
        BundleError: ONNX Runtime refuses it.
        DataError: too many pictures cannot be read.
    """
    return answers_of(file.read_bytes(), pictures)


def answers_of(
    content: bytes, pictures: Pictures
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]:
    """Returns what the content of a model.onnx says, and what is right; see `answers`."""
    session = predict.session(content)
    probabilities, labels = [], []
    for pixels, right in pictures.batches(range(len(pictures)), predict.BATCH):
        probabilities.append(predict.by_onnxruntime(session, pixels))
        labels.append(right)
    return np.concatenate(probabilities), np.concatenate(labels)


def check(path: Path) -> tuple[Path, Manifest]:
    """Returns the path of a bundle's model.onnx, and its manifest.

    Args:
        path: of model.onnx, its version folder, or the model's folder (the newest version).

    Raises:
        BundleError: there is none at this path, or its graph is not what its manifest says.
    """
    file = find_bundle(path)
    model, manifest = bundle.read(file)
    spec = manifest.input
    if spec.kind not in KINDS:
        known = " or ".join(map(ImageKind.Name, KINDS))
        raise BundleError(f"{file}: takes {ImageKind.Name(spec.kind)}, expected {known}")
    if spec.resize not in METHODS:
        raise BundleError(f"{file}: takes pixels made by {spec.resize!r}, which is not known here")
    found = [contract.describe(value) for value in (*model.graph.input, *model.graph.output)]
    shape = f"{spec.height}, {spec.width}, {spec.channels}"
    expected = [
        f"{INPUT}: uint8 [{BATCH_AXIS}, {shape}]",
        f"{OUTPUT}: float32 [{BATCH_AXIS}, {len(manifest.labels)}]",
    ]
    if found != expected:
        raise BundleError(f"{file}: its graph has {found}, expected {expected}")
    return file, manifest

"""How a published bundle does on the held-out digits, through ONNX Runtime."""

from pathlib import Path

from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, ImageKind
from convserve_trainer import bundle, export, predict
from convserve_trainer.errors import BundleError
from convserve_trainer.mnist import Dataset
from convserve_trainer.score import Score, score


def evaluate(path: Path, dataset: Dataset) -> Score:
    """Returns the score of a digits bundle on the held-out digits.

    Args:
        path: of model.onnx, its version folder, or the model's folder (the newest version).
        dataset: what it is scored on; only the held-out part is used.

    Raises:
        BundleError: there is no digits bundle at this path, or ONNX Runtime refuses it.
    """
    file = digits_bundle(path)
    session = predict.session(file.read_bytes())
    return score(predict.by_onnxruntime(session, dataset.test_images), dataset.test_labels)


def digits_bundle(path: Path) -> Path:
    """Returns the path of a digits bundle's model.onnx.

    Raises:
        BundleError: there is none at this path.
    """
    file = bundle.find(path)
    model, manifest = bundle.read(file)
    if manifest.input.kind != IMAGE_KIND_DIGITS:
        kind = ImageKind.Name(manifest.input.kind)
        raise BundleError(f"{file}: takes {kind}, expected IMAGE_KIND_DIGITS")
    found = [export.describe(value) for value in (*model.graph.input, *model.graph.output)]
    expected = [
        f"{export.INPUT}: uint8 [{export.BATCH_AXIS}, 28, 28, 1]",
        f"{export.OUTPUT}: float32 [{export.BATCH_AXIS}, 10]",
    ]
    if found != expected:
        raise BundleError(f"{file}: its graph has {found}, expected {expected}")
    return file

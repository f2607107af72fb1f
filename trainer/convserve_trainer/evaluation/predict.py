"""Probabilities from Keras and from ONNX Runtime, for the same pixels."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_host import cpus
from convserve_trainer.datasets.pictures import Pictures, Pixels

if TYPE_CHECKING:
    import keras
    import onnxruntime

Probabilities = npt.NDArray[np.float32]


class Answers(NamedTuple):
    """What a net says of pictures, and what is right.

    Attributes:
        probabilities: float32 [N, K].
        labels: int [N], 0 to K - 1; where pictures have several labels [N, K], 1 for each that one
            has.
    """

    probabilities: Probabilities
    labels: npt.NDArray[np.integer]


BATCH = 50  # images; divides 10,000, so that Keras sees one shape only


def answer(net: Callable[[Pixels], Probabilities], pictures: Pictures) -> Answers:
    """Returns what a net says of all pictures, in their order.

    Args:
        net: of uint8 [N, H, W, C] makes float32 [N, K].
        pictures: one or more.

    Raises:
        DataError: too many pictures cannot be read.
    """
    probabilities, labels = [], []
    for pixels, right in pictures.batches(range(len(pictures)), BATCH):
        probabilities.append(net(pixels))
        labels.append(right)
    return Answers(np.concatenate(probabilities), np.concatenate(labels))


def by_keras(model: "keras.Model", images: Pixels) -> Probabilities:
    """Returns float32 [N, K] for uint8 [N, H, W, C], in one batch."""
    # Not model.predict: deterministic operations make its pipeline complain on the terminal.
    found: Probabilities = model.predict_on_batch(images)
    return found


def by_onnxruntime(
    session: "onnxruntime.InferenceSession", images: Pixels, batch: int = BATCH
) -> Probabilities:
    """Returns float32 [N, K] for uint8 [N, H, W, C], in batches of `batch` images."""
    parts = [
        session.run(["probabilities"], {"pixels": part})[0] for part in _batches(images, batch)
    ]
    return np.concatenate(parts)


def session(onnx_model: bytes) -> "onnxruntime.InferenceSession":
    """Returns an ONNX Runtime session on the CPU.

    Raises:
        BundleError: ONNX Runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they come as exceptions too
    if threads := cpus.quota_threads():  # it knows nothing of quotas
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(onnx_model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class but this one
        raise BundleError(f"ONNX Runtime refuses the model: {error}") from error


def _batches(images: Pixels, batch: int) -> list[Pixels]:
    return [images[start : start + batch] for start in range(0, len(images), batch)]

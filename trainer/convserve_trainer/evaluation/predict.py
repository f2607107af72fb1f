"""Probabilities from Keras and from ONNX Runtime, for the same pixels."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_host import cpus

if TYPE_CHECKING:
    import keras
    import onnxruntime

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

BATCH = 50  # images; divides 10,000, so that Keras sees one shape only


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

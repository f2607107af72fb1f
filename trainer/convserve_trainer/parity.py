"""Parity: the exported net must say what Keras says, on real held-out images."""

import numpy as np
import numpy.typing as npt

from convserve_trainer import predict
from convserve_trainer.errors import ParityError

TOLERANCE = 1e-5
LEAST_IMAGES = 1_000
BATCH_SIZES = (1, 7, 64)  # the remainder of a division, too, must not matter


def check(
    onnx_model: bytes,
    images: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], float]:
    """Compares ONNX Runtime with Keras on every image.

    Args:
        onnx_model: the bytes that will be published.
        images: uint8 [N, H, W, C], `LEAST_IMAGES` or more, held out.
        expected: Keras's probabilities, float32 [N, K].

    Returns:
        ONNX Runtime's probabilities, float32 [N, K], and the largest difference from Keras's.

    Raises:
        ParityError: a probability differs by more than `TOLERANCE`, or an arg-max at all.
    """
    if len(images) < LEAST_IMAGES:
        raise ParityError(f"parity needs {LEAST_IMAGES:,} images or more, has {len(images):,}")
    session = predict.session(onnx_model)
    largest = 0.0
    for batch in BATCH_SIZES:
        part = len(images) if batch == BATCH_SIZES[-1] else LEAST_IMAGES
        found = predict.by_onnxruntime(session, images[:part], batch)
        largest = max(largest, _difference(found, expected[:part], batch))
    return found, largest


def _difference(
    found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], batch: int
) -> float:
    largest = float(np.abs(found - expected).max())
    others = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    # Written so that a NaN fails.
    if not largest <= TOLERANCE or others:
        raise ParityError(
            f"ONNX Runtime differs from Keras by {largest:.2e} (at most {TOLERANCE:.0e} is taken) "
            f"and in {others} of {len(found):,} arg-max, in batches of {batch}"
        )
    return largest

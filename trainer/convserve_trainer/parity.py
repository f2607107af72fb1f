"""Parity: the exported net must say what Keras says, on real held-out images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer import predict
from convserve_trainer.errors import ParityError
from convserve_trainer.pictures import Batch
from convserve_trainer.score import Score, score

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-5
BATCH_SIZES = (1, 7)  # the remainder of a division, too, must not matter
IN_ALL_SIZES = 1_000  # images


@dataclass(frozen=True)
class Comparison:
    """What both make of the held-out images.

    Attributes:
        keras: its score.
        onnxruntime: its score.
        largest: difference between two probabilities of theirs.
    """

    keras: Score
    onnxruntime: Score
    largest: float


def check(onnx_model: bytes, model: "keras.Model", batches: Iterable[Batch]) -> Comparison:
    """Compares ONNX Runtime with Keras on every image.

    Args:
        onnx_model: the bytes that will be published.
        model: uint8 [N, H, W, C] to float32 [N, K].
        batches: all that is held out, one image or more; the first `IN_ALL_SIZES` are asked about
            in batches of `BATCH_SIZES` too.

    Raises:
        ParityError: a probability differs by more than `TOLERANCE`, or an arg-max at all.
    """
    session = predict.session(onnx_model)
    said_by_keras, said_by_onnxruntime, said_by_people = [], [], []
    largest, seen = 0.0, 0
    for pixels, labels in batches:
        expected = predict.by_keras(model, pixels)
        for size in BATCH_SIZES if seen < IN_ALL_SIZES else ():
            found = predict.by_onnxruntime(session, pixels, size)
            largest = max(largest, _difference(found, expected, size))
        found = predict.by_onnxruntime(session, pixels, len(pixels))
        largest = max(largest, _difference(found, expected, len(pixels)))
        seen += len(pixels)
        said_by_keras.append(expected)
        said_by_onnxruntime.append(found)
        said_by_people.append(labels)
    labels = np.concatenate(said_by_people)
    return Comparison(
        keras=score(np.concatenate(said_by_keras), labels),
        onnxruntime=score(np.concatenate(said_by_onnxruntime), labels),
        largest=largest,
    )


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

"""Parity: the exported net must say what Keras says, on real held-out images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_protos.bundle_pb2 import (
    PRECISION_FLOAT32,
    PRECISION_TENSOR_FLOAT_32,
    Precision,
)
from convserve_trainer import precisions, predict
from convserve_trainer.errors import ParityError
from convserve_trainer.pictures import Batch
from convserve_trainer.score import Score, score

if TYPE_CHECKING:
    import keras
    import onnx

TOLERANCE = precisions.BOUNDS[PRECISION_FLOAT32]
BATCH_SIZES = (1, 7)  # the remainder of a division, too, must not matter
IN_ALL_SIZES = 1_000  # images


@dataclass(frozen=True)
class Candidate:
    """A net that must say what Keras says.

    Attributes:
        model: uint8 [N, H, W, C] to float32 [N, K].
        tolerance: largest difference of a probability that is taken. Up to `TOLERANCE` every
            arg-max must agree, too. Beyond it one may differ where Keras's two highest
            probabilities are within twice the tolerance, and the tolerance itself sees to that.
        what: how messages call it.
    """

    model: "onnx.ModelProto"
    tolerance: float = TOLERANCE
    what: str = "ONNX Runtime"


@dataclass(frozen=True)
class Comparison:
    """What both make of the held-out images.

    Attributes:
        keras: its score.
        onnxruntime: the score of the first candidate.
        largest: difference between a probability of Keras and of any candidate.
        others: images of which a candidate has another arg-max than Keras; of the one with most.
    """

    keras: Score
    onnxruntime: Score
    largest: float
    others: int


def candidates(exported: "onnx.ModelProto", precision: Precision.ValueType) -> list[Candidate]:
    """Returns what must be compared before a net is published in a precision; that net first.

    The others imitate what a GPU makes of it, and must keep to half of the bound; the other half is
    for what they do not imitate.

    Args:
        exported: the net in float32.
        precision: that it is published in, a known one.

    Raises:
        ExportError: the net cannot be had in this precision.
    """
    if precision == PRECISION_FLOAT32:
        return [Candidate(exported)]
    from convserve_trainer import float16, gpu_rounding

    bound = precisions.BOUNDS[precision]
    imitation = Candidate(
        gpu_rounding.imitated(exported, precision),
        bound / 2,
        f"{precisions.name(precision)}, with the rounding of a GPU imitated,",
    )
    if precision == PRECISION_TENSOR_FLOAT_32:
        return [Candidate(exported), imitation]  # the file is that of float32
    return [Candidate(float16.convert(exported), bound, "ONNX Runtime in float16"), imitation]


def check(
    compared: Sequence[Candidate], model: "keras.Model", batches: Iterable[Batch]
) -> Comparison:
    """Compares ONNX Runtime with Keras on every image.

    Args:
        compared: the net that will be published, and others that must agree as well.
        model: uint8 [N, H, W, C] to float32 [N, K].
        batches: all that is held out, one image or more; the net that will be published is asked
            about the first `IN_ALL_SIZES` in batches of `BATCH_SIZES` too.

    Raises:
        ParityError: a candidate differs by more than it may.
    """
    sessions = [predict.session(candidate.model.SerializeToString()) for candidate in compared]
    said_by_keras, said_by_people = [], []
    said_by_each: list[list[predict.Probabilities]] = [[] for _ in compared]
    largest, seen = 0.0, 0
    for pixels, labels in batches:
        expected = predict.by_keras(model, pixels)
        for size in BATCH_SIZES if seen < IN_ALL_SIZES else ():
            found = predict.by_onnxruntime(sessions[0], pixels, size)
            largest = max(largest, _difference(compared[0], found, expected, size))
        for candidate, session, said in zip(compared, sessions, said_by_each, strict=True):
            found = predict.by_onnxruntime(session, pixels, len(pixels))
            largest = max(largest, _difference(candidate, found, expected, len(pixels)))
            said.append(found)
        seen += len(pixels)
        said_by_keras.append(expected)
        said_by_people.append(labels)
    keras, labels = np.concatenate(said_by_keras), np.concatenate(said_by_people)
    each = [np.concatenate(said) for said in said_by_each]
    return Comparison(
        keras=score(keras, labels),
        onnxruntime=score(each[0], labels),
        largest=largest,
        others=max(_others(rows, keras) for rows in each),
    )


def _difference(
    candidate: Candidate,
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    batch: int,
) -> float:
    largest = float(np.abs(found - expected).max())
    others = _others(found, expected)
    exact = candidate.tolerance <= TOLERANCE
    # Written so that a NaN fails.
    if not largest <= candidate.tolerance or (exact and others):
        advice = "" if exact else "; --precision float32 rounds nothing"
        raise ParityError(
            f"{candidate.what} differs from Keras by {largest:.2e} (at most "
            f"{candidate.tolerance:.0e} is taken) and in {others} of {len(found):,} arg-max, in "
            f"batches of {batch}{advice}"
        )
    return largest


def _others(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> int:
    return int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())

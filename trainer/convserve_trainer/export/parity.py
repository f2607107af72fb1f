"""Parity: the published net must say what its reference says, on real held-out images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT32,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    Precision,
)
from convserve_trainer.datasets.pictures import Batch, Pixels
from convserve_trainer.errors import DataError, ParityError
from convserve_trainer.evaluation import predict
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Score, Thresholds, score
from convserve_trainer.evaluation.score import right as is_right
from convserve_trainer.export import precisions

if TYPE_CHECKING:
    import onnx

TOLERANCE = precisions.BOUNDS[PRECISION_FLOAT32]
BATCH_SIZES = (1, 7)  # the remainder of a division, too, must not matter
IN_ALL_SIZES = 1_000  # images
UNREADABLE = "held-out pictures became unreadable during the check; run check-data on them"


class Reference(NamedTuple):
    """What the others are compared with.

    Attributes:
        name: how messages call it: Keras.
        answers: to all held-out images, in their order.
        thresholds: where images have several labels; None otherwise.
    """

    name: str
    answers: Answers
    thresholds: Thresholds | None = None

    @property
    def score(self) -> Score:
        """Of the answers."""
        return score(*self.answers, self.thresholds)


@dataclass(frozen=True)
class Candidate:
    """A net that must say what the reference says.

    Attributes:
        model: uint8 [N, H, W, C] to float32 [N, K].
        tolerance: largest difference of a probability that is allowed. Up to `TOLERANCE` every
            arg-max must agree, too. Beyond it one may differ where the reference's two highest
            probabilities are within twice the tolerance, and the tolerance itself sees to that.
            Where images have several labels the tolerance alone counts: by it a label is on the
            other side of its threshold only where the reference's probability is as near to that.
        what: how messages call it.
        costs: whether it is what shows the precision's cost, in place of the first candidate.
    """

    model: "onnx.ModelProto"
    tolerance: float = TOLERANCE
    what: str = "ONNX Runtime"
    costs: bool = False


@dataclass(frozen=True)
class Comparison:
    """What all make of the held-out images.

    Attributes:
        reference: its score.
        onnxruntime: the score of the first candidate.
        largest: difference between a probability of the reference and of any candidate.
        others: images of which a candidate has another arg-max, or other labels; of the one with
            most.
        rounded: the score of the candidate that shows the precision's cost.
        mean: over the images, of the largest difference of that candidate.
        changed: images that the reference alone or that candidate alone gets right.
        answers: of the first candidate.
    """

    reference: Score
    onnxruntime: Score
    rounded: Score
    largest: float
    others: int
    mean: float
    changed: int
    answers: Answers


def candidates(
    exported: "onnx.ModelProto",
    precision: Precision.ValueType,
    calibration: Iterable[Pixels] = (),
) -> list[Candidate]:
    """Returns what must be compared before a net is published in a precision; that net first.

    The others imitate what a device makes of it that computes in the precision, and must keep to
    half of the bound; the other half is for what they do not imitate. With int8 the other is the
    net in float32.

    Args:
        exported: the net in float32.
        precision: that it is published in, a known one.
        calibration: training pictures, of which int8 takes its ranges.

    Raises:
        ExportError: the net cannot be had in this precision.
    """
    if precision == PRECISION_FLOAT32:
        return [Candidate(exported)]
    bound = precisions.BOUNDS[precision]
    if precision == PRECISION_INT8:
        from convserve_trainer.export import int8

        made = int8.convert(exported, calibration)
        return [Candidate(made, bound, "ONNX Runtime in int8"), Candidate(exported)]
    from convserve_trainer.export import float16, gpu_rounding

    device = "CPU" if precision == PRECISION_BFLOAT16 else "GPU"
    imitation = Candidate(
        gpu_rounding.imitated(exported, precision),
        bound / 2,
        f"{precisions.name(precision)}, with the rounding of a {device} imitated,",
        costs=precision == PRECISION_BFLOAT16,
    )
    if precision in (PRECISION_TENSOR_FLOAT_32, PRECISION_BFLOAT16):
        return [Candidate(exported), imitation]  # the file is that of float32
    return [Candidate(float16.convert(exported), bound, "ONNX Runtime in float16"), imitation]


def check(
    compared: Sequence[Candidate], reference: Reference, batches: Iterable[Batch]
) -> Comparison:
    """Compares ONNX Runtime with the reference on every image.

    Args:
        compared: the net that will be published, and others that must agree as well.
        reference: what they must agree with.
        batches: all that is held out, one image or more; the net that will be published is asked
            about the first `IN_ALL_SIZES` in batches of `BATCH_SIZES` too.

    Raises:
        ParityError: a candidate differs by more than it may.
        DataError: the images are not those that the reference answered, because some cannot be
            read any more.
    """
    sessions = [predict.session(candidate.model.SerializeToString()) for candidate in compared]
    expected, right = reference.answers
    thresholds = reference.thresholds
    rows: list[list[predict.Probabilities]] = [[] for _ in compared]
    largest, seen = 0.0, 0
    for pixels, labels in batches:
        part = slice(seen, seen + len(pixels))
        if not np.array_equal(right[part], labels):
            raise DataError(UNREADABLE)
        for size in BATCH_SIZES if seen < IN_ALL_SIZES else ():
            found = predict.by_onnxruntime(sessions[0], pixels, size)
            difference = _difference(compared[0], reference, found, expected[part], size)
            largest = max(largest, difference)
        for candidate, session, candidate_rows in zip(compared, sessions, rows, strict=True):
            found = predict.by_onnxruntime(session, pixels, len(pixels))
            difference = _difference(candidate, reference, found, expected[part], len(pixels))
            largest = max(largest, difference)
            candidate_rows.append(found)
        seen += len(pixels)
    if seen < len(right):
        raise DataError(UNREADABLE)
    each = [np.concatenate(candidate_rows) for candidate_rows in rows]
    rounded = next((one for made, one in zip(compared, each, strict=True) if made.costs), each[0])
    return Comparison(
        reference=reference.score,
        onnxruntime=score(each[0], right, thresholds),
        rounded=score(rounded, right, thresholds),
        largest=largest,
        others=max(_others(found, expected, thresholds) for found in each),
        mean=float(np.abs(rounded - expected).max(axis=1).mean()),
        changed=int(
            (is_right(rounded, right, thresholds) != is_right(expected, right, thresholds)).sum()
        ),
        answers=Answers(each[0], right),
    )


def _difference(
    candidate: Candidate,
    reference: Reference,
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    batch: int,
) -> float:
    largest = float(np.abs(found - expected).max())
    thresholds = reference.thresholds
    others = _others(found, expected, thresholds)
    exact = candidate.tolerance <= TOLERANCE
    # Written so that a NaN fails.
    if not largest <= candidate.tolerance or (exact and thresholds is None and others):
        advice = "" if exact else "; --precision float32 rounds nothing"
        what = "arg-max" if thresholds is None else "sets of labels"
        raise ParityError(
            f"{candidate.what} differs from {reference.name} by {largest:.2e} (expected at most "
            f"{candidate.tolerance:.0e}) and in {others} of {len(found):,} {what}, in "
            f"batches of {batch}{advice}"
        )
    return largest


def _others(
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    thresholds: Thresholds | None,
) -> int:
    if thresholds is not None:
        return int(((found >= thresholds) != (expected >= thresholds)).any(axis=1).sum())
    return int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())

"""A net of float32 in the precision that it is published in, checked against what it must say."""

from collections.abc import Sequence
from typing import NamedTuple, TextIO

import onnx

from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT32,
    PRECISION_INT8,
    Precision,
)
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import AccuracyError
from convserve_trainer.evaluation import predict
from convserve_trainer.export import contract, int8, loss, parity, precisions
from convserve_trainer.export.parity import Candidate, Comparison, Reference


class ExportOptions(NamedTuple):
    """What a net is made into.

    Attributes:
        precision: a known one.
        calibration_pictures: that int8 takes its ranges from, 1 or more.
    """

    precision: Precision.ValueType = PRECISION_FLOAT32
    calibration_pictures: int = precisions.CALIBRATION_PICTURES

    def calibrated_on(self, data: Data) -> int:
        """Returns how many training pictures that are; 0 in other precisions than int8."""
        wanted = self.calibration_pictures if self.precision == PRECISION_INT8 else 0
        return min(wanted, len(data.train))


def candidates(
    exported: onnx.ModelProto, options: ExportOptions, data: Data, seed: int
) -> list[Candidate]:
    """Returns the net in the precision that it is published in, and others to compare with it.

    Args:
        exported: the net in float32.
        options: the precision, and how it is made.
        data: whose training pictures int8 is calibrated on.
        seed: that these are drawn with.

    Raises:
        ExportError: the net cannot be had in this precision, or the graph breaks the contract.
    """
    calibration = int8.sample(data.train, options.calibrated_on(data), seed)
    found = parity.candidates(exported, options.precision, calibration)
    contract.check(found[0].model)
    return found


def check(
    compared: Sequence[Candidate],
    options: ExportOptions,
    data: Data,
    reference: Reference,
    min_accuracy: float,
    out: TextIO,
) -> Comparison:
    """Checks a net before it is published, on all that is held out.

    Args:
        compared: the net that will be published, then others; see `candidates`.
        options: the precision.
        data: whose held-out pictures are answered.
        reference: what the net must say.
        min_accuracy: least share of held-out pictures that are right, 0 to 1.
        out: takes what a user wants to see.

    Raises:
        ParityError: it says something else.
        AccuracyError: it misses the floor, or loses too many right answers.
        DataError: pictures cannot be read any more.
    """
    held_out = data.held_out.batches(range(len(data.held_out)), predict.BATCH)
    comparison = parity.check(compared, reference, held_out)
    print(
        f"held-out {data.what}, ONNX Runtime  {comparison.onnxruntime}",
        f"largest difference between the two {comparison.largest:.1e} "
        f"{_bound(comparison, options.precision)}, other labels {comparison.others:,}",
        sep="\n",
        file=out,
        flush=True,
    )
    if options.precision in (PRECISION_INT8, PRECISION_BFLOAT16):
        loss.check(comparison, options.precision)
    accuracy = comparison.onnxruntime.accuracy
    if accuracy < min_accuracy:
        raise AccuracyError(
            f"accuracy: expected the floor of {min_accuracy:.2%} or more, got {accuracy:.2%}: "
            "nothing was published (--min-accuracy sets another floor)"
        )
    return comparison


def print_score(reference: Reference, data: Data, out: TextIO) -> None:
    """Prints how well the reference does on the held-out pictures."""
    print(f"held-out {data.what}, {reference.name:<13} {reference.score}", file=out, flush=True)


def _bound(compared: Comparison, precision: Precision.ValueType) -> str:
    bound = f"(bound of {precisions.name(precision)} {precisions.BOUNDS[precision]:.0e})"
    lost = compared.reference.correct - compared.rounded.correct
    cost = f"right answers lost {lost:,} (bound {loss.allowed(compared):,})"
    if precision == PRECISION_INT8:
        return f"(int8 has no bound), mean {compared.mean:.1e} (bound {loss.MEAN:.0e}), {cost}"
    return f"{bound}, {cost}" if precision == PRECISION_BFLOAT16 else bound

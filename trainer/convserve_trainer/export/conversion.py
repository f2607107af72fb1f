"""A net of float32 in the precision that it is published in, checked against what it must say."""

from typing import NamedTuple, TextIO

import onnx

from convserve_protos.bundle_pb2 import PRECISION_FLOAT32, PRECISION_INT8, Precision
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import AccuracyError
from convserve_trainer.evaluation import predict
from convserve_trainer.export import contract, int8, int8_loss, parity, precisions
from convserve_trainer.export.parity import Comparison, Reference


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


def convert(
    exported: onnx.ModelProto,
    settings: ExportOptions,
    data: Data,
    seed: int,
    reference: Reference,
    min_accuracy: float,
    out: TextIO,
) -> tuple[onnx.ModelProto, Comparison]:
    """Returns the net that is published, and what was compared on all that is held out.

    Args:
        exported: the net in float32.
        settings: what it is made into.
        data: pictures to calibrate on, and those that are held out.
        seed: that pictures to calibrate on are drawn with.
        reference: what the net must say.
        min_accuracy: least share of held-out pictures that are right, 0 to 1.
        out: takes what a user wants to see.

    Raises:
        ExportError: the net cannot be had in this precision, or the graph breaks the contract.
        ParityError: it says something else.
        AccuracyError: it misses the floor, or loses too many right answers.
    """
    precision = settings.precision
    calibration = int8.sample(data.train, settings.calibrated_on(data), seed)
    candidates = parity.candidates(exported, precision, calibration)
    made = candidates[0].model
    contract.check(made)
    held_out = data.held_out.batches(range(len(data.held_out)), predict.BATCH)
    compared = parity.check(candidates, reference, held_out)
    print(
        f"held-out {data.what}, {reference.name:<13} {compared.reference}",
        f"held-out {data.what}, ONNX Runtime  {compared.onnxruntime}",
        f"largest difference between the two {compared.largest:.1e} {_bound(compared, precision)}, "
        f"other labels {compared.others:,}",
        sep="\n",
        file=out,
        flush=True,
    )
    if precision == PRECISION_INT8:
        int8_loss.check(compared)
    accuracy = compared.onnxruntime.accuracy
    if accuracy < min_accuracy:
        raise AccuracyError(
            f"accuracy {accuracy:.2%} is below the floor of {min_accuracy:.2%}: "
            "nothing was published (--min-accuracy sets another floor)"
        )
    return made, compared


def _bound(compared: Comparison, precision: Precision.ValueType) -> str:
    if precision != PRECISION_INT8:
        return f"(bound of {precisions.name(precision)} {precisions.BOUNDS[precision]:.0e})"
    lost = compared.reference.correct - compared.onnxruntime.correct
    return (
        f"(int8 has no bound), mean {compared.mean:.1e} (bound {int8_loss.MEAN:.0e}), right "
        f"answers lost {lost:,} (bound {int8_loss.allowed(compared):,})"
    )

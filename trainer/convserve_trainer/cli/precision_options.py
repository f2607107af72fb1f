"""The options that say in what precision a net is published."""

import argparse
from typing import TYPE_CHECKING

from convserve_protos.bundle_pb2 import PRECISION_INT8
from convserve_trainer.errors import UsageError
from convserve_trainer.export import precisions

if TYPE_CHECKING:
    from convserve_trainer.export.conversion import ExportOptions


def add(group: argparse._ActionsContainer, default: str | None) -> None:
    """Adds the options.

    Args:
        group: that they are added to.
        default: the precision; None where it must be given.
    """
    group.add_argument(
        "--precision",
        choices=list(precisions.NAMES),
        default=default,
        required=default is None,
        help="what servers compute in: tf32 lets CUDA round to TensorFloat-32, float16 halves the "
        "file; both must keep to 0.01 of the probabilities, float32 to 0.00001; bfloat16 is for "
        "CPUs with matrix units, keeps to 0.08 and may lose 0.2%% of the pictures; int8 is for "
        "CPUs, a quarter of the file, and may lose as many"
        + (f" [default: {default}]" if default else ""),
    )
    group.add_argument(
        "--calibration-pictures",
        metavar="PICTURES",
        type=int,
        help="int8: training pictures that ranges are taken from, 1 or more [default: "
        f"{precisions.CALIBRATION_PICTURES}]",
    )


def read(options: argparse.Namespace) -> "ExportOptions":
    """Returns what the options ask for.

    Raises:
        UsageError: an option is out of its range, or for another precision.
    """
    precision, pictures = precisions.NAMES[options.precision], options.calibration_pictures
    if pictures is not None and precision != PRECISION_INT8:
        raise UsageError(
            f"--calibration-pictures: expected with --precision int8 only, got {options.precision}"
        )
    if pictures is not None and pictures < 1:
        raise UsageError(f"--calibration-pictures: expected 1 or more, got {pictures}")
    # Help is instant, and so are errors in the options: this imports ONNX.
    from convserve_trainer.export.conversion import ExportOptions

    return ExportOptions(precision, pictures or precisions.CALIBRATION_PICTURES)

"""The precisions that a net is published in, and how far from Keras each may be.

float16 and TensorFloat-32 keep 11 bits of a number, 10 of them stored: rounding changes it by up to
2^-11 of itself. Every convolution and product rounds both of its factors. Five of them, as the
lecture's net has, change a logit of 10 by up to 10 * 10 * 2^-11 = 0.05 where nothing cancels, and a
probability by a quarter of that, since no softmax or sigmoid is steeper. That is about the bound;
most roundings cancel, and what is measured is a few times less.

bfloat16 keeps 8 bits of a number: eight times the rounding, and so eight times the bound. Since
that much may change the label of a picture that a net is unsure of, what it costs in right answers
is bounded too, as with int8.

int8 keeps 8 bits of a layer's whole range, not of each number, and no useful bound holds for every
picture. What is bounded is what it costs over all of them: see `loss.py`.
"""

from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT16,
    PRECISION_FLOAT32,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    PRECISION_UNSPECIFIED,
    Precision,
)

#: What `--precision` says.
NAMES = {
    "float32": PRECISION_FLOAT32,
    "tf32": PRECISION_TENSOR_FLOAT_32,
    "float16": PRECISION_FLOAT16,
    "bfloat16": PRECISION_BFLOAT16,
    "int8": PRECISION_INT8,
}

#: Largest difference between a probability of a server and of Keras.
BOUNDS = {
    PRECISION_FLOAT32: 1e-5,  # sums in another order, nothing else
    PRECISION_TENSOR_FLOAT_32: 1e-2,
    PRECISION_FLOAT16: 1e-2,
    PRECISION_BFLOAT16: 8e-2,
    PRECISION_INT8: 1.0,  # none: no probabilities differ by more
}

#: Training pictures that int8 is calibrated on, unless `--calibration-pictures` says otherwise.
CALIBRATION_PICTURES = 512


def read_precision(stated: Precision.ValueType) -> Precision.ValueType:
    """Returns the precision of a bundle: float32 where it states none."""
    return PRECISION_FLOAT32 if stated == PRECISION_UNSPECIFIED else stated


def name(stated: Precision.ValueType) -> str:
    """Returns a bundle's precision in words."""
    names = {number: name for name, number in NAMES.items()}
    return names.get(read_precision(stated), f"unknown ({stated})")

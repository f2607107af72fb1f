"""What int8 and bfloat16 may cost over all held-out pictures; checked before a net is published.

8 bits of a layer's range change single pictures by more than any useful bound, above all those that
the net is unsure of. What counts is how many right answers are lost, and how far the probabilities
are off in the mean. bfloat16 has a bound for single pictures; here it is its labels that count.
"""

import math

from convserve_protos.bundle_pb2 import PRECISION_BFLOAT16, PRECISION_INT8, Precision
from convserve_trainer.errors import AccuracyError, ParityError
from convserve_trainer.export import precisions
from convserve_trainer.export.parity import Comparison

#: Right answers that may be lost, as a share of the held-out pictures: 20 of 10,000.
LOST = 0.002
#: Bound of the mean, over the pictures, of the largest difference of a picture's probabilities.
MEAN = 0.02

ADVICE = {
    PRECISION_INT8: "more --calibration-pictures may help; --precision float16 loses less, and "
    "float32 nothing",
    PRECISION_BFLOAT16: "--precision float32 loses nothing",
}


def allowed(compared: Comparison) -> int:
    """Returns how many right answers may be lost, those won over subtracted.

    0.2 % of the pictures; where these are few, as many as mere chance takes away: two standard
    deviations. Of d pictures that one of the two nets alone gets right, each is as likely the one's
    as the other's if neither is better, so that the difference deviates by the root of d.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions
    or percentages", Psychometrika 12, 1947.
    """
    return int(max(LOST * compared.rounded.total, 2 * math.sqrt(compared.changed)))


def check(compared: Comparison, precision: Precision.ValueType = PRECISION_INT8) -> None:
    """Checks what a precision costs.

    Args:
        compared: the net in it, and what it must say.
        precision: int8 or bfloat16.

    Raises:
        AccuracyError: too many right answers are lost.
        ParityError: the probabilities differ by too much in the mean.
    """
    name, advice = precisions.name(precision), ADVICE[precision]
    before, after = compared.reference, compared.rounded
    lost, most = before.correct - after.correct, allowed(compared)
    if lost > most:
        raise AccuracyError(
            f"{name} has {after.correct:,} of {after.total:,} right, float32 {before.correct:,}: "
            f"{lost:,} are lost, at most {most:,} may be; nothing was published: {advice}"
        )
    if precision == PRECISION_INT8 and not compared.mean <= MEAN:  # written so that a NaN fails
        raise ParityError(
            f"int8 differs from float32 by {compared.mean:.2e} in the mean of the pictures "
            f"(expected at most {MEAN:.0e}) and by {compared.largest:.2e} at most; nothing was "
            f"published: {advice}"
        )

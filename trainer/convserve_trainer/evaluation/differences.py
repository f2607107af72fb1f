"""Two nets on the same pictures of several labels: how far their figures differ by luck."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convserve_trainer.evaluation import resampling
from convserve_trainer.evaluation.intervals import Interval
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.resampling import Drawn
from convserve_trainer.evaluation.score import Thresholds

#: Of what is compared, each with its name for people; the first one decides.
NAMED = {"mean_average_precision": "mAP", "f1_macro": "F1 (macro)", "f1_micro": "F1 (micro)"}


@dataclass(frozen=True)
class Difference:
    """A figure of two nets, A and B.

    Attributes:
        name: of the figure, one of NAMED.
        a: of A, 0 to 1.
        b: of B.
        interval: where B less A lies on pictures of this sort, with a probability of about 95 %.
        p: how often the difference of draws is on the other side of 0, or there, from both sides.
    """

    name: str
    a: float
    b: float
    interval: Interval
    p: float

    @property
    def difference(self) -> float:
        """Figure of B less that of A, -1 to 1."""
        return self.b - self.a

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it."""
        return asdict(self) | {"difference": self.difference}

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{NAMED[self.name]} of B less that of A: {self.difference:+.2%} "
            f"(95 % interval {low:+.2%} to {high:+.2%}, p = {self.p:.3g})"
        )


def differences(a: tuple[Answers, Thresholds], b: tuple[Answers, Thresholds]) -> list[Difference]:
    """Returns the differences of two nets, by the bootstrap over pairs.

    The same pictures are drawn for both, so that what is hard for both does not count.

    Args:
        a: answers of A, and its thresholds.
        b: of B, to the same pictures.

    Source: B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapters 13
        (percentiles) and 15 (p).
    """
    drawn = Drawn(*a), Drawn(*b)
    once = np.ones(len(a[0].labels), np.int64)
    whole = [each.figures(once) for each in drawn]
    draws = [[each.figures(counts) for each in drawn] for counts in resampling.draws(a[0])]
    found = []
    for name in NAMED:
        apart = np.array([getattr(for_b, name) - getattr(for_a, name) for for_a, for_b in draws])
        low, high = np.quantile(apart, [0.025, 0.975])
        tail = 1 + min(int((apart <= 0).sum()), int((apart >= 0).sum()))
        p = min(1.0, 2 * tail / (1 + len(apart)))
        of_a, of_b = (float(getattr(figures, name)) for figures in whole)
        found.append(Difference(name, of_a, of_b, (float(low), float(high)), p))
    return found

"""How a net does on a part of the pictures: the dark ones, the small ones."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.evaluation.intervals import SomeRight
from convserve_trainer.evaluation.traits import Traits

PARTS = 4
LEAST = 20  # pictures of a part; of fewer the interval says that nothing is known


@dataclass(frozen=True)
class Slice(SomeRight):
    """Pictures of which a trait is within bounds.

    Attributes:
        trait: its name.
        low: of the trait.
        high: of the trait; the next part begins above it.
        pictures: so many, LEAST or more.
        correct: of which so many are right.
        whole: share that is right of all pictures, 0 to 1.
    """

    trait: str
    low: float
    high: float
    pictures: int
    correct: int
    whole: float

    @property
    def verdict(self) -> str:
        """How it is beside all pictures: "worse", "better", or nothing where both may be equal."""
        low, high = self.interval
        if high < self.whole:
            return "worse"
        return "better" if low > self.whole else ""

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON."""
        found = {"accuracy": self.accuracy, "interval": self.interval, "verdict": self.verdict}
        return {name: value for name, value in asdict(self).items() if name != "whole"} | found


def sliced(traits: Traits, right: npt.NDArray[np.bool_]) -> list[Slice]:
    """Returns the parts of each trait, lowest first: quarters, or fewer where values are equal.

    Args:
        traits: of N pictures; one of another number of pictures is left out.
        right: bool [N], whether each is answered rightly.
    """
    return [
        each
        for trait, values in traits.items()
        if len(values) == len(right)
        for each in _parts(trait, values, right)
    ]


def _parts(
    trait: str, values: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]
) -> Iterator[Slice]:
    parts = min(PARTS, len(values) // LEAST)
    if parts < 2 or values.min() == values.max():
        return
    inner = np.quantile(values, np.arange(1, parts) / parts)
    numbers = np.searchsorted(np.unique(inner), values, "left")  # an edge is of the part below it
    for number in np.unique(numbers):
        chosen = numbers == number
        yield Slice(
            trait,
            float(values[chosen].min()),
            float(values[chosen].max()),
            int(chosen.sum()),
            int(right[chosen].sum()),
            float(right.mean()),
        )

"""How well probabilities meet labels; one formula for Keras and for ONNX Runtime."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EPSILON = 1e-7  # Keras clips probabilities there before it takes the logarithm


@dataclass(frozen=True)
class Score:
    """Figures on held-out images.

    Attributes:
        correct: images whose most probable label is the right one.
        total: images.
        loss: mean categorical cross-entropy, nats.
    """

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of images that are right, 0 to 1."""
        return self.correct / self.total

    def as_dict(self) -> dict[str, float]:
        """Returns the metrics of a manifest."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "correct": self.correct,
            "total": self.total,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, accuracy {self.accuracy:.4f} "
            f"({self.correct:,} of {self.total:,} right)"
        )


def score(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> Score:
    """Returns the figures of float32 [N, K] against int [N]."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Score(
        correct=int((probabilities.argmax(axis=1) == labels).sum()),
        total=len(labels),
        loss=float(-np.log(np.clip(right, EPSILON, 1 - EPSILON)).mean()),
    )

"""All that the rest of a training depends on, beside its recipe and its data."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from convserve_trainer.runs.history import History

if TYPE_CHECKING:
    import keras


class Position(NamedTuple):
    """How far a training has come.

    Attributes:
        epochs: that are finished.
        steps: of the next epoch that are done.
    """

    epochs: int
    steps: int = 0

    def __str__(self) -> str:
        if self.steps:
            return f"epoch {self.epochs + 1}, step {self.steps}"
        return f"epoch {self.epochs}" if self.epochs else "its beginning"


@dataclass
class Means:
    """Means of Keras's figures over pictures, batch by batch.

    Attributes:
        loss: sum over the pictures so far, nats.
        accuracy: how many of them were right.
        pictures: so far.
    """

    loss: float = 0.0
    accuracy: float = 0.0
    pictures: int = 0

    def add(self, figures: dict[str, float], pictures: int) -> dict[str, float]:
        """Takes the figures of a batch; returns the means so far."""
        self.loss += float(figures["loss"]) * pictures
        self.accuracy += float(figures["accuracy"]) * pictures
        self.pictures += pictures
        return self.values()

    def values(self) -> dict[str, float]:
        """Returns "loss" and "accuracy"."""
        return {"loss": self.loss / self.pictures, "accuracy": self.accuracy / self.pictures}


@dataclass
class UnderWay:
    """The part of an epoch that is done.

    Attributes:
        steps: so many.
        means: over their pictures.
        seconds: they took.
        waited_s: of them, how many went into waiting for pictures.
    """

    steps: int = 0
    means: Means = field(default_factory=Means)
    seconds: float = 0.0
    waited_s: float = 0.0


@dataclass
class Training:
    """A training between two steps.

    The order of the pictures is not in it: it follows from the seed and the position alone.

    Attributes:
        model: compiled: weights, the optimizer with its slots and its count of steps (and so any
            schedule of the learning rate), and the states of its layers' random generators.
        history: of the finished epochs, with the weights of the best.
        under_way: the epoch that is not finished.
    """

    model: "keras.Model"
    history: History = field(default_factory=History)
    under_way: UnderWay = field(default_factory=UnderWay)

    @property
    def position(self) -> Position:
        """How far it has come."""
        return Position(len(self.history.epochs), self.under_way.steps)

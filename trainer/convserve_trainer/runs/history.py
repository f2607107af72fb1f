"""What became of a training, epoch by epoch, and the weights of its best epoch."""

import csv
import io
import math
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

Weights = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Epoch:
    """Figures of one finished epoch.

    Attributes:
        epoch: its number, counted from 1.
        loss: mean over the pictures it was trained on, each as it was met, nats.
        accuracy: share of them that were right, 0 to 1.
        val_loss: after the epoch, on the validation pictures; None without validation.
        val_accuracy: likewise.
        seconds: it took, validation included.
        input_share: of the time of its training steps, how much went into waiting for pictures.
        learning_rate: step of the optimizer at its end.
        val_map: mAP on the validation pictures, 0 to 1; None where they have one label each.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    input_share: float
    learning_rate: float
    val_map: float | None = None


COLUMNS = tuple(column.name for column in fields(Epoch))
#: Those that a table always has.
_USUAL = COLUMNS[: COLUMNS.index("val_map")]


@dataclass
class History:
    """All finished epochs of a training.

    Attributes:
        epochs: in order.
        weights: of the best epoch, or at the end their average; None where those of the last step
            are used.
    """

    epochs: list[Epoch] = field(default_factory=list)
    weights: Weights | None = None

    @property
    def best(self) -> Epoch:
        """The epoch of the lowest validation loss, the first of equals; the last one without."""
        if self.epochs[-1].val_loss is None:
            return self.epochs[-1]
        return min(self.epochs, key=_rank)

    @property
    def stale(self) -> int:
        """How many epochs ended since the best one; 0 before the first."""
        return len(self.epochs) - self.best.epoch if self.epochs else 0

    @property
    def input_share(self) -> float:
        """Share of the training steps' time that went into waiting for pictures, 0 to 1."""
        seconds = sum(epoch.seconds for epoch in self.epochs)
        waited = sum(epoch.seconds * epoch.input_share for epoch in self.epochs)
        return waited / seconds if seconds else 0.0

    def csv(self) -> str:
        """Returns a table: a line of names, then a line for each epoch; figures are not rounded.

        It has a column val_map only where an epoch has one.
        """
        several = any(epoch.val_map is not None for epoch in self.epochs)
        names = COLUMNS if several else _USUAL
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(epoch, name) for name in names] for epoch in self.epochs)
        return text.getvalue()


def read_csv(text: str) -> list[Epoch]:
    """Returns the epochs of a table that `History.csv` made.

    Raises:
        ValueError: it is none.
    """
    header, *rows = csv.reader(io.StringIO(text))
    if tuple(header) not in (_USUAL, COLUMNS):
        raise ValueError(f"the history has columns {header}, expected {list(COLUMNS)}")
    return [_epoch(*row) for row in rows]


def _rank(epoch: Epoch) -> float:
    loss = epoch.val_loss
    return math.inf if loss is None or math.isnan(loss) else loss


def _epoch(number: str, *figures: str) -> Epoch:
    loss, accuracy, val_loss, val_accuracy, seconds, share, rate, *rest = figures
    return Epoch(
        epoch=int(number),
        loss=float(loss),
        accuracy=float(accuracy),
        val_loss=float(val_loss) if val_loss else None,
        val_accuracy=float(val_accuracy) if val_accuracy else None,
        seconds=float(seconds),
        input_share=float(share),
        learning_rate=float(rate),
        val_map=float(rest[0]) if rest and rest[0] else None,
    )

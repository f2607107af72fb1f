"""`fit --calibrate`: a temperature, fitted on pictures that were kept out of the training.

It is folded into the last layer, so that the graph, and whoever serves it, stay as they are.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets import pictures
from convserve_trainer.datasets.pictures import Part, Pictures
from convserve_trainer.evaluation import predict, temperature
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.nets import models

if TYPE_CHECKING:
    import keras

MOST, SHARE = 5_000, 0.1


@dataclass(frozen=True)
class Calibrated:
    """What a calibration does on the pictures that it is fitted on.

    Attributes:
        temperature: that the numbers before the softmax, or the sigmoid, were divided by.
        before: score as trained.
        after: score at the temperature.
        errors: the expected calibration error before and after, 0 to 1.
    """

    temperature: float
    before: Score
    after: Score
    errors: tuple[float, float]

    def __str__(self) -> str:
        losses = f"loss {self.before.loss:.4f} becomes {self.after.loss:.4f}"
        errors = f"calibration error {self.errors[0]:.2%} becomes {self.errors[1]:.2%}"
        return (
            f"temperature {self.temperature:.3f}, fitted on {self.before.total:,} pictures kept "
            f"out of the training: {losses}, {errors}"
        )


def share(count: int) -> int:
    """Returns how many of so many training pictures are kept out: 5,000, or a tenth of fewer."""
    return min(MOST, round(count * SHARE))


def kept_out(train: Pictures) -> tuple[Part, Part]:
    """Returns the pictures to train on, and those to fit the temperature on.

    Raises:
        DataError: a class has one picture only.
    """
    return pictures.split(train, max(1, share(len(train))) / len(train))


def calibrate(model: "keras.Model", calibration: Pictures) -> Calibrated:
    """Fits a temperature and divides the last layer's weights by it.

    Args:
        model: whose last layer is dense, with a softmax or a sigmoid; changed in place.
        calibration: pictures that it was not trained on.
    """
    answers, labels = _answers(model, calibration)
    fitted = temperature.fit(answers, labels)
    mended = temperature.apply_temperature(answers, fitted).astype(np.float32)
    head = model.layers[-1]
    head.set_weights([weight / fitted for weight in head.get_weights()])
    errors = tuple(temperature.calibration_error(each, labels) for each in (answers, mended))
    return Calibrated(fitted, score(answers, labels), score(mended, labels), (errors[0], errors[1]))


def _answers(
    model: "keras.Model", calibration: Pictures
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]:
    net = models.with_class_columns(model)
    answers, labels = [], []
    for pixels, right in calibration.batches(range(len(calibration)), predict.BATCH):
        answers.append(predict.by_keras(net, pixels))
        labels.append(right)
    return np.concatenate(answers), np.concatenate(labels)

"""`fit --calibrate`: a temperature, fitted on pictures that were kept out of the training.

It is folded into the last layer, so that the graph, and whoever serves it, stay as they are.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.evaluation import predict, temperature
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.nets import models

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration does on the pictures that it is fitted on.

    Attributes:
        pictures: that it is fitted on.
        temperature: that the numbers before the softmax, or the sigmoid, were divided by.
        before: score as trained; of several labels each decision on one counts as a picture.
        after: score at the temperature.
        errors: the expected calibration error before and after, 0 to 1.
    """

    pictures: int
    temperature: float
    before: Score
    after: Score
    errors: tuple[float, float]

    def __str__(self) -> str:
        losses = f"loss {self.before.loss:.4f} becomes {self.after.loss:.4f}"
        errors = f"calibration error {self.errors[0]:.2%} becomes {self.errors[1]:.2%}"
        return (
            f"temperature {self.temperature:.3f}, fitted on {self.pictures:,} pictures kept "
            f"out of the training: {losses}, {errors}"
        )


def calibrate(model: "keras.Model", calibration: Pictures) -> CalibrationResult:
    """Fits a temperature and divides the last layer's weights by it.

    Args:
        model: whose last layer is dense, with a softmax or a sigmoid; changed in place.
        calibration: pictures that it was not trained on.
    """
    net = models.with_class_columns(model)
    answers, labels = predict.answer(partial(predict.by_keras, net), calibration)
    if labels.ndim == 2:
        answers, labels = temperature.as_two_classes(answers, labels)
    fitted = temperature.fit(answers, labels)
    mended = temperature.apply_temperature(answers, fitted).astype(np.float32)
    head = model.layers[-1]
    head.set_weights([weight / fitted for weight in head.get_weights()])
    errors = tuple(temperature.calibration_error(each, labels) for each in (answers, mended))
    return CalibrationResult(
        len(calibration),
        fitted,
        score(answers, labels),
        score(mended, labels),
        (errors[0], errors[1]),
    )

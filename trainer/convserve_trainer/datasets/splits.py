"""Which of the training pictures are trained on, and which are kept for other uses."""

from dataclasses import replace

import numpy as np

from convserve_trainer.datasets import label_sets
from convserve_trainer.datasets.pictures import Data, Part, Pictures
from convserve_trainer.errors import DataError

CALIBRATION_MOST, CALIBRATION_SHARE = 5_000, 0.1


def reserve(data: Data, validation_share: float, calibrate: bool) -> Data:
    """Returns the data with what is not trained on set apart, for thresholds as well.

    Args:
        data: whose training pictures are split.
        validation_share: of them, for a validation after each epoch; 0 for none.
        calibrate: whether pictures for a temperature are set apart, too.

    Raises:
        DataError: a class has one picture only.
    """
    if validation_share:
        train, validation = split(data.train, validation_share)
        data = replace(data, train=train, validation=validation)
    if calibrate:
        train, calibration = split_calibration(data.train)
        data = replace(data, train=train, calibration=calibration)
    if data.several:
        if thresholds := data.validation or data.calibration:
            return replace(data, thresholds=thresholds)
        train, thresholds = split_calibration(data.train)
        data = replace(data, train=train, thresholds=thresholds)
    return data


def split(pictures: Pictures, share: float) -> tuple[Part, Part]:
    """Returns the pictures in two parts, each with every class in the same share.

    The choice depends on nothing but their labels, so that trainings with other seeds are
    compared on the same pictures.

    Args:
        pictures: two or more of each class.
        share: of the second part, above 0 and below 1; it has one picture of a class at least.

    Raises:
        DataError: a class has one picture only; of several labels, there is one picture only.
    """
    generator = np.random.default_rng(0)
    if pictures.labels.ndim == 2:
        chosen = label_sets.spread(pictures.labels, share, generator)
        return (
            Part(pictures, np.flatnonzero(~chosen)),
            Part(pictures, generator.permutation(np.flatnonzero(chosen))),
        )
    first, second = [], []
    for label in np.unique(pictures.labels):
        numbers = generator.permutation(np.flatnonzero(pictures.labels == label))
        if len(numbers) < 2:
            raise DataError(
                f"class {label} has a single picture: none can be kept for validation_share"
            )
        kept = min(max(round(share * len(numbers)), 1), len(numbers) - 1)
        first.append(numbers[kept:])
        second.append(numbers[:kept])
    return (
        Part(pictures, np.sort(np.concatenate(first))),
        Part(pictures, generator.permutation(np.concatenate(second))),
    )


def split_calibration(train: Pictures) -> tuple[Part, Part]:
    """Returns the pictures to train on, and those to fit a temperature on.

    Raises:
        DataError: a class has one picture only.
    """
    return split(train, max(1, calibration_count(len(train))) / len(train))


def calibration_count(count: int) -> int:
    """Returns how many of so many training pictures are kept: 5,000, or a tenth of fewer."""
    return min(CALIBRATION_MOST, round(count * CALIBRATION_SHARE))

"""The parts that a recipe makes of the training pictures."""

from dataclasses import replace

from convserve_trainer.datasets import pictures
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.evaluation import calibrate
from convserve_trainer.recipes.recipe import Recipe


def parted(data: Data, recipe: Recipe) -> Data:
    """Returns the data with what is not trained on: a validation, pictures for a temperature.

    Raises:
        DataError: a class has one picture only.
    """
    if recipe.validation_share:
        part, validation = pictures.split(data.train, recipe.validation_share)
        data = replace(data, train=part, validation=validation)
    if recipe.calibrate:
        part, calibration = calibrate.kept_out(data.train)
        data = replace(data, train=part, calibration=calibration)
    return data

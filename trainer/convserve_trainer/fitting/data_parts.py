"""The parts that a recipe makes of the training pictures."""

from dataclasses import replace

from convserve_trainer.data import pictures
from convserve_trainer.data.pictures import Data
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.scores import calibrate


def parted(data: Data, recipe: Recipe) -> Data:
    """Returns the data with what is not trained on: a validation, pictures for a temperature.

    Raises:
        DataError: a class has one picture only.
    """
    if recipe.validation_share:
        part, validation = pictures.split(data.train, recipe.validation_share)
        data = replace(data, train=part, validation=validation)
    if recipe.calibrate:
        part, unseen = calibrate.kept_out(data.train)
        data = replace(data, train=part, unseen=unseen)
    return data

import json
from typing import Any

import pytest

from convserve_trainer import recipes
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import LECTURE


def test_lecture_has_the_settings_of_the_lecture() -> None:
    assert json.loads(LECTURE.to_json()) == {
        "name": "lecture",
        "task": "digits",
        "net": "lecture",
        "optimizer": "rmsprop",
        "learning_rate": 0.001,
        "loss": "categorical_crossentropy",
        "epochs": 5,
        "batch_size": 64,
        "steps": None,
        "validation_steps": None,
        "height": None,
        "width": None,
        "seed": 1,
        "limit": None,
        "min_accuracy": 0.987,
    }


def test_override_of_nothing_is_the_recipe() -> None:
    assert LECTURE.override() == LECTURE


@pytest.mark.parametrize("setting", ["epochs", "batch_size", "limit"])
def test_override_of_what_is_trained_lifts_the_floor(setting: str) -> None:
    changed = LECTURE.override(**{setting: 3})
    assert getattr(changed, setting) == 3
    assert changed.min_accuracy == 0


def test_override_with_the_recipes_own_value_keeps_the_floor() -> None:
    assert LECTURE.override(epochs=5, batch_size=64) == LECTURE


def test_override_of_the_seed_keeps_the_floor() -> None:
    changed = LECTURE.override(seed=0)
    assert (changed.seed, changed.min_accuracy) == (0, 0.987)


def test_override_of_the_floor_holds_beside_others() -> None:
    assert LECTURE.override(limit=100, min_accuracy=0.5).min_accuracy == 0.5
    assert LECTURE.override(min_accuracy=0.0).min_accuracy == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; it takes 1 or more"),
        ({"batch_size": -1}, "--batch-size is -1; it takes 1 or more"),
        ({"limit": 0}, "--limit is 0; it takes 1 or more"),
        ({"seed": -1}, "--seed is -1; it takes 0 to 4294967295"),
        ({"seed": 2**32}, "--seed is 4294967296; it takes 0 to 4294967295"),
        ({"min_accuracy": 98.7}, "--min-accuracy is 98.7; it takes 0 to 1"),
        ({"min_accuracy": float("nan")}, "--min-accuracy is nan; it takes 0 to 1"),
    ],
)
def test_override_out_of_range_names_flag_value_and_range(
    override: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        LECTURE.override(**override)
    assert str(caught.value) == message


def test_unknown_recipe_names_those_that_exist() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'lectrue' for digits; there are: lecture$"):
        recipes.find("lectrue", "digits")

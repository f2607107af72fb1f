"""Recipes as text: what is written is read back, what was overridden is shown."""

import tomllib
from pathlib import Path

import pytest

from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import recipe_files, recipe_text
from convserve_trainer.recipes.recipe import Recipe, make_recipe

DIGITS = recipe_files.find("best", "digits")


@pytest.mark.parametrize(
    "recipe", recipe_files.every(), ids=lambda recipe: f"{recipe.task}-{recipe.name}"
)
def test_text_is_read_back_as_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    for about in ("", 'a "quoted"\\ line\nand \x7f \U0001f600'):
        described = recipe.override(about=about)
        path = tmp_path / f"{recipe.name}.toml"
        path.write_text(recipe_text.text(described, recipe))
        assert recipe_files.read(path) == described


def test_overrides_say_what_the_recipe_says() -> None:
    changes = {"learning_rate": 0.01, "augmentation.shift": 0.0, "net.0.filters": 16, "steps": 5}
    text = recipe_text.text(DIGITS.override(changes), DIGITS)
    lines = [line.strip() for line in text.splitlines() if "#" in line]
    layer = 'kernel = 5, norm = "batch" }'
    assert lines == [
        f'{{ layer = "conv", filters = 16, {layer},  # the recipe says {{ layer = "conv", '
        f"filters = 32, {layer}",
        "learning_rate = 0.01  # the recipe says 0.003",
        "steps = 5  # the recipe says nothing",
        "min_accuracy = 0.0  # the recipe says 0.995",
        "shift = 0.0  # the recipe says 0.09",
    ]


def test_layers_that_are_gone_are_shown() -> None:
    net = tomllib.loads(recipe_text.text(DIGITS))["net"]
    text = recipe_text.text(DIGITS.override({"net": net[:-1]}), DIGITS)
    assert '  # the recipe goes on: { layer = "dropout", rate = 0.2 }\n]' in text
    assert recipe_text.text(DIGITS).count("#") == 0


def test_teachers_and_later_changes_survive_json_and_toml(tmp_path: Path) -> None:
    changes = {"augmentation.levels": 0.5, "augmentation.elastic": 0.02, "augmentation.mixup": 0.2}
    teachers = {"teachers": ["models/a", 'models/"b"'], "temperature": 2.0}
    recipe = DIGITS.override(changes | {"distillation": teachers})
    assert make_recipe(recipe.values(), "--") == recipe
    text = recipe_text.text(recipe, DIGITS)
    (tmp_path / "best.toml").write_text(text)
    assert recipe_files.read(tmp_path / "best.toml") == recipe
    assert """teachers = ["models/a", "models/\\"b\\""]  # the recipe says []""" in text


def test_later_settings_that_change_nothing_are_not_written_so_older_programs_read_the_rest() -> (
    None
):
    plain = DIGITS.override({"augmentation.levels": 0.0})
    values = plain.values()
    assert "distillation" not in values
    assert not {"elastic", "levels", "mixup", "cutmix"} & values["augmentation"].keys()
    assert values["augmentation"]["flip"] is False
    bent = plain.override({"augmentation.elastic": 0.02}).values()["augmentation"]
    assert bent.keys() - values["augmentation"].keys() == {"elastic"}
    every = plain.every_value()
    assert every["augmentation"]["levels"] == 0
    assert every["distillation"]["teachers"] == []


def test_distillation_without_teachers_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        DIGITS.override({"distillation.share": 0.7})
    assert str(caught.value) == "distillation.teachers: expected one or more, got none"
    with pytest.raises(UsageError, match="is not a valid setting .did you mean share"):
        DIGITS.override({"distillation.shares": 0.7})


def test_recipe_of_before_is_written_as_it_was_so_its_bundles_and_runs_go_on() -> None:
    values = recipe_files.find("lecture", "digits").values()
    assert list(values) == [
        *("name", "task", "about", "net", "augmentation", "optimizer", "learning_rate"),
        *("schedule", "warmup_epochs", "weight_decay", "loss", "label_smoothing"),
        *("class_weights", "epochs", "batch_size", "steps", "validation_steps"),
        *("validation_share", "calibrate", "patience", "height", "width", "channels"),
        *("mixed_precision", "seed", "limit", "min_accuracy"),
    ], "a setting that came later belongs into LATER of recipe.py"
    assert list(values["augmentation"]) == [
        *("rotation", "shear", "zoom", "stretch", "crop", "shift", "flip", "brightness"),
        *("contrast", "saturation", "erase", "fill"),
    ]

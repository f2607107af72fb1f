"""Recipes as text: what is written is read back, what was overridden is shown."""

import tomllib
from pathlib import Path

import pytest

from convserve_trainer.recipes import recipe_files, recipe_text
from convserve_trainer.recipes.recipe import Recipe

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
    layer = 'kernel = 5, stride = 2, norm = "batch" }'
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

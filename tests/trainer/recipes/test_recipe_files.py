import json
from pathlib import Path
from typing import Any

import pytest

from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.recipes.layers import Conv, Dense, Flatten, MaxPool
from convserve_trainer.recipes.recipe import Recipe

LECTURE = recipe_files.find("lecture", "digits")
SMALL = """
task = "digits"
net = [{ layer = "conv", filters = 8 }, { layer = "global_average" }]
epochs = 2
batch_size = 32
"""


def _read(tmp_path: Path, text: str, name: str = "mine.toml") -> Recipe:
    (tmp_path / name).write_text(text)
    return recipe_files.read(tmp_path / name)


def test_lecture_has_the_settings_of_the_lecture() -> None:
    assert Recipe(
        name="lecture",
        task="digits",
        about=LECTURE.about,
        net=(
            *(Conv(filters=32), MaxPool()),
            *(Conv(filters=64), MaxPool()),
            *(Conv(filters=64), Flatten(), Dense(units=64)),
        ),
        augmentation=Augmentation(),
        optimizer="rmsprop",
        learning_rate=0.001,
        schedule="constant",
        loss="categorical_crossentropy",
        epochs=5,
        batch_size=64,
        seed=1,
        min_accuracy=0.987,
    ) == LECTURE  # fmt: skip


def test_lecture_of_photographs_has_the_settings_of_the_lecture() -> None:
    recipe = recipe_files.find("lecture", "photos")
    assert (recipe.height, recipe.width) == (150, 150)
    assert (recipe.optimizer, recipe.learning_rate) == ("rmsprop", 1e-4)
    assert (recipe.epochs, recipe.steps, recipe.batch_size) == (30, 100, 20)
    assert recipe.validation_steps == 50
    assert recipe.augmentation == Augmentation()


@pytest.mark.parametrize("recipe", recipe_files.every(), ids=lambda r: f"{r.task}/{r.name}")
def test_recipes_that_come_along_say_what_they_are_and_survive_json(recipe: Recipe) -> None:
    assert recipe.about
    assert recipe.min_accuracy > 0
    assert json.loads(recipe.to_json()) == recipe.values()
    assert recipe_files.shown(f"{recipe.task}/{recipe.name}").startswith("#")


def test_override_of_nothing_is_the_recipe() -> None:
    assert LECTURE.override() == LECTURE


@pytest.mark.parametrize("setting", ["epochs", "batch_size", "limit"])
def test_override_of_what_is_trained_lifts_the_floor(setting: str) -> None:
    changed = LECTURE.override({setting: 3})
    assert getattr(changed, setting) == 3
    assert changed.min_accuracy == 0


def test_override_reaches_into_the_net_and_the_augmentation() -> None:
    changed = LECTURE.override({"net.0.filters": 16, "augmentation.shift": 0.1})
    assert changed.net[0] == Conv(filters=16)
    assert changed.augmentation == Augmentation(shift=0.1)
    assert LECTURE.net[0] == Conv(filters=32)


def test_override_with_the_recipes_own_value_keeps_the_floor() -> None:
    assert LECTURE.override(epochs=5, batch_size=64) == LECTURE


def test_override_of_the_seed_keeps_the_floor() -> None:
    changed = LECTURE.override(seed=0)
    assert (changed.seed, changed.min_accuracy) == (0, 0.987)


def test_override_of_the_floor_holds_beside_others() -> None:
    assert LECTURE.override(limit=100, min_accuracy=0.5).min_accuracy == 0.5
    assert LECTURE.override(min_accuracy=0.0).min_accuracy == 0
    by_name = {"min_accuracy": 0.9}
    assert LECTURE.override(by_name, limit=100).min_accuracy == 0.9
    assert LECTURE.override(by_name, min_accuracy=0.5).min_accuracy == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        ({"batch_size": -1}, "--batch-size: expected 1 or more, got -1"),
        ({"limit": 0}, "--limit: expected 1 or more, got 0"),
        ({"seed": -1}, "--seed: expected 0 or more, got -1"),
        ({"seed": 2**32}, "--seed: expected 4294967295 or less, got 4294967296"),
        ({"min_accuracy": 98.7}, "--min-accuracy: expected 1 or less, got 98.7"),
        ({"min_accuracy": float("nan")}, "--min-accuracy: expected 0 or more, got nan"),
        ({"learning_rate": "fast"}, "--learning-rate: expected a number, got 'fast'"),
    ],
)
def test_override_out_of_range_names_flag_value_and_range(
    override: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        LECTURE.override(**override)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", "--epoch is not a valid setting (did you mean epochs?)"),
        (
            "augmentation.rotate",
            "--augmentation.rotate is not a valid setting (did you mean rotation?)",
        ),
        ("net.0.filter", "--net.0.filter is not a valid setting (did you mean filters?)"),
        ("net.9.filters", "the recipe has no net.9.filters"),
        ("seed.of", "the recipe has no seed.of"),
    ],
)
def test_override_of_what_does_not_exist_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LECTURE.override({name: 1})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["lectrue", "no/such", "Lecture"])
def test_unknown_recipe_names_those_that_exist(name: str) -> None:
    with pytest.raises(UsageError, match=rf"no recipe '{name}' for digits; there are: lecture, .*"):
        recipe_files.find(name, "digits")


def test_file_of_a_user_is_a_recipe_named_after_it(tmp_path: Path) -> None:
    recipe = _read(tmp_path, SMALL)
    assert (recipe.name, recipe.epochs, recipe.optimizer) == ("mine", 2, "rmsprop")
    assert recipe_files.find(str(tmp_path / "mine.toml"), "digits") == recipe


def test_shown_file_read_again_is_the_recipe_but_for_its_name(tmp_path: Path) -> None:
    recipe = _read(tmp_path, recipe_files.shown("photos/lecture"))
    assert recipe.values() | {"name": "lecture"} == recipe_files.find("lecture", "photos").values()


def test_file_for_another_task_is_refused(tmp_path: Path) -> None:
    _read(tmp_path, SMALL)
    with pytest.raises(
        UsageError, match=r"mine.toml: expected a recipe for photos, got one for digits$"
    ):
        recipe_files.find(str(tmp_path / "mine.toml"), "photos")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("learning_rat = 1", "learning_rat is not a valid setting (did you mean learning_rate?)"),
        (
            "zzz = 1",
            "zzz is not a valid setting, there are: name, task, about, net, augmentation, ",
        ),
        (
            "[augmentation]\nrotate = 3",
            "augmentation.rotate is not a valid setting (did you mean rotation?)",
        ),
        ("[augmentation]\nflip = 3", "augmentation.flip: expected true or false, got 3"),
        (
            "[augmentation]\nfill = 'balck'",
            "augmentation.fill: expected black or reflect, got 'balck'",
        ),
        (
            "schedule = 'cosin'",
            "schedule: expected constant or cosine, got 'cosin' (did you mean cosi",
        ),
        (
            "optimizer = 'adamx'",
            "optimizer: expected rmsprop, adam, adamw or sgd, got 'adamx' (did",
        ),
        ("learning_rate = 0", "learning_rate: expected more than 0, got 0"),
        ("label_smoothing = 1", "label_smoothing: expected less than 1, got 1"),
        ("weight_decay = 0.1", "weight_decay: expected with adamw or sgd only, got rmsprop"),
        ("warmup_epochs = 2", "warmup_epochs: expected fewer than the 2 epochs, got 2"),
        ("patience = 2", "patience needs validation_share or validation_steps"),
        ("validation_share = 0.1\nvalidation_steps = 3", "give validation_steps or validation_sh"),
        ("height = 10", "give both height and width, or neither"),
        ("name = 'other'", "name is that of the file; remove it"),
        ("epochs = 3", "not TOML: Cannot overwrite a value"),
        ("= 3", "not TOML: "),
    ],
)
def test_fault_in_a_file_is_named(tmp_path: Path, added: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, SMALL + added)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: {message}")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("", "net: expected 1 or more, got []"),
        ("{ filters = 3 }", "net.0.layer is missing"),
        ("{ layer = 'cnov', filters = 3 }", "net.0.layer: expected conv, residual, "),
        ("{ layer = 'conv' }", "net.0.filters is missing"),
        ("{ layer = 'conv', filters = 0 }", "net.0.filters: expected 1 or more, got 0"),
        ("{ layer = 'conv', filters = 3, size = 3 }", "net.0.size is not a valid setting ("),
        ("{ layer = 'conv', filters = 3 }", "the net has neither flatten nor global_average"),
        ("{ layer = 'dense', units = 3 }", "dense comes before flatten or global_average"),
        ("{ layer = 'flatten' }, { layer = 'max_pool' }", "max_pool comes after flatten or glob"),
    ],
)
def test_fault_in_a_net_is_named(tmp_path: Path, net: str, message: str) -> None:
    text = f'task = "digits"\nnet = [{net}]\nepochs = 2\nbatch_size = 32\n'
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: {message}")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.toml: No such file or directory$"):
        recipe_files.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary.toml: not a text file"):
        recipe_files.read(tmp_path / "binary.toml")


def test_recipe_that_does_not_exist_cannot_be_shown() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'lecture'; there are: digits/lecture, "):
        recipe_files.shown("lecture")

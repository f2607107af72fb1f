"""What a recipe says for the card of its models: which texts it may have, and what it changes."""

import json

import pytest

from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import recipe_files, recipe_text
from convserve_trainer.recipes.card import MOST, Card
from convserve_trainer.recipes.recipe import make_recipe
from convserve_trainer.runs import run_key

BEST = recipe_files.find("best", "digits")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"licence": "Apache-2.0"},
            "card.licence: expected an identifier of Hugging Face's, or other, got 'Apache-2.0' "
            "(did you mean apache-2.0?)",
        ),
        ({"limitations": "a\tb"}, "card.limitations: expected printable text, got '\\t' in it"),
        ({"data_set": "a\nb"}, "card.data_set: expected one line, got several"),
        (
            {"intended_use": "x" * (MOST + 1)},
            "card.intended_use: expected 2,000 characters or less, got 2,001",
        ),
        (
            {"licence": "other", "licence_name": "mine"},
            "card.licence_name and licence_link: expected both with the licence other",
        ),
        (
            {"licence": "mit", "licence_name": "mine"},
            "card.licence_name and licence_link: expected with the licence other only, got mit",
        ),
        (
            {"licence": "other", "licence_name": "My Own", "licence_link": "LICENSE"},
            "card.licence_name: expected lower-case letters, digits, '.' and '-', got 'My Own'",
        ),
        (
            {"licence": "other", "licence_name": "mine", "licence_link": "javascript:x"},
            "card.licence_link: expected a URL, LICENSE or LICENSE.md, got 'javascript:x'",
        ),
    ],
)
def test_field_that_a_card_cannot_have_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BEST.override({f"card.{name}": text for name, text in fields.items()})
    assert str(caught.value) == message


def test_misspelt_field_is_named_with_what_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe(BEST.values() | {"card": {"license": "mit"}}, "mine.toml: ")
    assert str(caught.value) == (
        "mine.toml: card.license is not a valid setting (did you mean licence?)"
    )


def test_card_survives_json_and_toml() -> None:
    card = Card(
        licence="other",
        licence_name="mine-1.0",
        licence_link="https://example.org/licence",
        intended_use='Digits of "forms":\n- one a picture, ä, 😀',
    )
    values = {f"card.{name}": getattr(card, name) for name in card.__struct_fields__}
    recipe = BEST.override(values)
    assert make_recipe(json.loads(recipe.to_json()), "") == recipe
    assert "[card]\nlicence = " in recipe_text.text(recipe)
    assert recipe.card == card


def test_card_changes_neither_floor_nor_what_a_training_is() -> None:
    recipe = BEST.override({"card.licence": "mit"})
    assert recipe.min_accuracy == BEST.min_accuracy > 0
    key = run_key.make_run_key(BEST, "d1")
    assert run_key.make_run_key(recipe, "d1") == key
    assert "card" not in key


def test_recipe_without_a_card_is_the_json_of_before_there_were_cards() -> None:
    assert "card" not in json.loads(BEST.to_json())

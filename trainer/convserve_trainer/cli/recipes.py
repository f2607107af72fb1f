"""The command convserve-train recipes."""

import argparse
import json

from convserve_trainer.cli.command import Command, add_json

EPILOG = """examples:
  convserve-train recipes
  convserve-train recipes digits/best > mine.toml
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument(
        "recipe",
        metavar="TASK/NAME",
        nargs="?",
        help="to be shown, as a file to begin with, for fit --recipe mine.toml [default: a list of "
        "all]",
    )
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Prints the recipes, or the file of one.

    Raises:
        UsageError: there is no such recipe.
    """
    from convserve_trainer.recipes import recipe_files

    if options.recipe is not None:
        print(recipe_files.shown(options.recipe), end="")
        return
    every = recipe_files.every()
    if options.json:
        print(json.dumps([recipe.values() for recipe in every], indent=2))
        return
    for recipe in every:
        print(f"{recipe.task}/{recipe.name:<12} {recipe.about}")


COMMAND = Command("recipes", "list the recipes, or show the file of one", EPILOG, add_options, run)

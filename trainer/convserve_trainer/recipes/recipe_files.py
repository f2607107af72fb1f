"""Recipes in files: those that come along, and a user's own.

A file is TOML: the fields of `recipe.Recipe`, but for the name, which is that of the file.
"""

import tomllib
from importlib import resources
from pathlib import Path

from convserve_host import os_errors
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import recipe
from convserve_trainer.recipes.recipe import Recipe

TASKS = ("digits", "photos")
SUFFIX = ".toml"
_FOLDER = resources.files("convserve_trainer.recipes") / "shipped"


def find(name: str, task: str) -> Recipe:
    """Returns the recipe of that name, or of that file.

    Args:
        name: of one that comes along, or the path of a file that ends with .toml.
        task: that it should be for.

    Raises:
        UsageError: there is none, it is for another task, or the file is not a recipe; the message
            says where, and names the recipes that exist.
    """
    if name.endswith(SUFFIX):
        found = read(Path(name))
        if found.task != task:
            raise UsageError(f"{name}: expected a recipe for {task}, got one for {found.task}")
        return found
    there = names(task)
    if name not in there:
        raise UsageError(
            f"no recipe {name!r} for {task}; there are: {', '.join(there)}, and any file NAME.toml"
        )
    return _parsed(text(name, task), name, "")


def names(task: str) -> list[str]:
    """Returns the names of the recipes for a task, the lecture's first."""
    files = (_FOLDER / task).iterdir()
    there = sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))
    return sorted(there, key=lambda name: name != "lecture")


def every() -> list[Recipe]:
    """Returns all recipes that come along."""
    return [find(name, task) for task in TASKS for name in names(task)]


def shown(name: str) -> str:
    """Returns the file of a recipe that comes along.

    Args:
        name: as "digits/lecture".

    Raises:
        UsageError: there is none.
    """
    every_name = [f"{task}/{each}" for task in TASKS for each in names(task)]
    if name not in every_name:
        raise UsageError(f"no recipe {name!r}; there are: {', '.join(every_name)}")
    task, _, of_task = name.partition("/")
    return text(of_task, task)


def text(name: str, task: str) -> str:
    """Returns the file of a recipe that comes along."""
    return (_FOLDER / task / f"{name}{SUFFIX}").read_text()


def read(path: Path) -> Recipe:
    """Returns the recipe in a file.

    Raises:
        UsageError: it cannot be read, is not TOML, or not a recipe.
    """
    try:
        content = path.read_text()
    except OSError as error:
        raise UsageError(f"{path}: {os_errors.reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file ({error.reason})") from error
    return _parsed(content, path.name.removesuffix(SUFFIX), f"{path}: ")


def _parsed(content: str, name: str, where: str) -> Recipe:
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}not TOML: {error}") from error
    if values.setdefault("name", name) != name:
        raise UsageError(f"{where}name is that of the file; remove it")
    return recipe.make_recipe(values, where)

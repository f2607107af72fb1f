"""What a sweep searches: ranges, choices and fixed values of fields of a recipe, from a TOML file.

learning_rate = { low = 1e-4, high = 1e-2, log = true }
"augmentation.shift" = { low = 0.0, high = 0.2 }
batch_size = { choices = [32, 64, 128] }
epochs = 5
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from convserve_host import os_errors
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

#: They decide which pictures trials are compared on, or say nothing of a training.
SAME_FOR_ALL = (
    *("name", "task", "about", "limit", "height", "width", "channels", "seed"),
    *("min_accuracy", "validation_share", "validation_steps", "calibrate"),
)
EXPECTED = "{ low = ..., high = ... }, with log = true or step = ..., or { choices = [...] }"


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers from low to high, both included.

    Attributes:
        low: the least.
        high: the most.
        log: drawn evenly on a logarithmic scale.
        step: from one number to the next; None for any, or 1 for whole numbers.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where the numbers do not go together."""
        if not self.low < self.high:
            raise ValueError(f"low: expected less than high, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"low: expected more than 0 with log, got {self.low}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise ValueError(
                f"step: expected more than 0, up to high - low, and without log, got {self.step}"
            )


class Choices(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several values.

    Attributes:
        choices: of any kind that the field takes.
    """

    choices: list[Any]

    def __post_init__(self) -> None:
        """Raises ValueError where there is nothing to choose."""
        if len(self.choices) < 2:
            raise ValueError(
                f"choices: expected two or more, got {len(self.choices)}; give a fixed value by "
                "itself"
            )


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        fixed: values by field, as `fit --set` names them.
        searched: ranges and choices, likewise.
        whole: fields of `searched` that are whole numbers.
    """

    fixed: Mapping[str, Any]
    searched: Mapping[str, Range | Choices]
    whole: frozenset[str]

    def draw(self, trial: "Trial") -> dict[str, Any]:
        """Returns a value for each field that is searched."""
        for name, among in self.searched.items():
            if isinstance(among, Choices):
                # Optuna keeps words and numbers only, and a net is a list.
                trial.suggest_categorical(name, [json.dumps(each) for each in among.choices])
            elif name in self.whole:
                low, high, step = int(among.low), int(among.high), int(among.step or 1)
                trial.suggest_int(name, low, high, log=among.log, step=step)
            else:
                trial.suggest_float(name, among.low, among.high, log=among.log, step=among.step)
        return self.values(trial.params)

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of what Optuna keeps of a trial."""
        return {
            name: json.loads(value) if isinstance(self.searched[name], Choices) else value
            for name, value in params.items()
        }

    def settings(self) -> dict[str, str]:
        """Returns the space in words, by field."""
        words = {name: json.dumps(value) for name, value in self.fixed.items()}
        words |= {name: msgspec.json.encode(each).decode() for name, each in self.searched.items()}
        return {f"space of {name}": value for name, value in words.items()}


def read(path: Path, recipe: Recipe) -> Space:
    """Returns the space in a file, each value of which the recipe takes.

    Args:
        path: of the file.
        recipe: whose fields are searched.

    Raises:
        UsageError: the file cannot be read, is not TOML, or not a space of this recipe.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {os_errors.reason(error)}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    now = recipe.every_value()
    given = dict(_fields(content, "", now))
    for name in given:
        if name in SAME_FOR_ALL:
            raise UsageError(
                f"{path}: {name} is the same for all trials, so that they can be compared; options "
                "and the recipe set it"
            )
    fixed = {name: value for name, value in given.items() if not isinstance(value, dict)}
    where = f"{path}: "
    recipe.override(fixed, where=where)
    searched = {
        name: _among(value, f"{where}{name}")
        for name, value in given.items()
        if isinstance(value, dict)
    }
    if not searched:
        raise UsageError(f"{path}: nothing is searched; give a field {EXPECTED}")
    whole = frozenset(
        name
        for name, among in searched.items()
        if isinstance(among, Range) and _is_whole(among, _value(now, name))
    )
    for name, among in searched.items():
        for value in among.choices if isinstance(among, Choices) else (among.low, among.high):
            recipe.override({**fixed, name: value}, where=where)
    return Space(fixed, searched, whole)


def _fields(table: Mapping[str, Any], before: str, now: Any) -> Iterator[tuple[str, Any]]:
    """Yields fields and their values; a table may hold a part of the recipe."""
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and isinstance(_value(now, name), dict):
            yield from _fields(value, f"{name}.", now)
        else:
            yield name, value


def _value(now: Any, name: str) -> Any:
    """Returns the recipe's value of a field, None if there is none."""
    for step in name.split("."):
        if isinstance(now, list):
            now = now[int(step)] if step.isdecimal() and int(step) < len(now) else None
        else:
            now = now.get(step) if isinstance(now, dict) else None
    return now


def _among(value: dict[str, Any], where: str) -> Range | Choices:
    kind: type[Range | Choices] = Choices if "choices" in value else Range
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):  # ours
            raise UsageError(f"{where}: {error.__cause__}") from error
        raise UsageError(f"{where}: expected {EXPECTED}, or a value, got {value}") from error


def _is_whole(among: Range, now: Any) -> bool:
    """Returns whether a range is one of whole numbers: `low = 0, high = 1` may be either."""
    numbers = (among.low, among.high, among.step or 1)
    return all(isinstance(each, int) for each in numbers) and not isinstance(now, float)

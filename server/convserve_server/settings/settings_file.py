"""The TOML file of settings: keys by themselves, or in tables by section; [models.NAME]."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convserve_host.arguments import did_you_mean
from convserve_server.settings.kinds import Value
from convserve_server.settings.setting import SettingError, settings_of
from convserve_server.settings.settings import PER_MODEL, SECTIONS, SETTINGS, check_table

_MODELS = "models"


@dataclass(frozen=True)
class FileValues:
    """What a file gives, checked.

    Attributes:
        values: By the name of a setting.
        by_model: By a model's name, what it has of its own.
    """

    values: dict[str, Value] = field(default_factory=dict)
    by_model: dict[str, dict[str, Value]] = field(default_factory=dict)


def read_settings_file(path: str) -> FileValues:
    """Returns what a file gives.

    Raises:
        SettingError: The file cannot be read or is not TOML, a key is unknown or given twice, or a
            value is not valid.
    """
    content = _read_toml(path)
    result = FileValues()
    for key, value in content.items():
        if isinstance(value, dict) and key in SECTIONS:
            _add_section(result, path, key, value)
        elif key in SETTINGS:
            _add(result, path, key, key, value)
        else:
            known = [*SETTINGS, *SECTIONS]
            raise SettingError(f"{path}: {key}: unknown setting{did_you_mean(key, known)}")
    return result


def _add_section(result: FileValues, path: str, section: str, table: dict[str, Any]) -> None:
    names = {one.attribute: one.name for one in settings_of(SECTIONS[section])}
    for key, value in table.items():
        where = f"{section}.{key}"
        if section == _MODELS and isinstance(value, dict):
            _add_model(result, path, key, value)
        elif key in names:
            _add(result, path, names[key], where, value)
        elif key in SETTINGS:
            raise SettingError(
                f"{path}: {where}: expected in the table [{SETTINGS[key].section}], got it in "
                f"[{section}]"
            )
        else:
            raise SettingError(f"{path}: {where}: unknown setting{did_you_mean(key, names)}")


def _add_model(result: FileValues, path: str, model: str, table: dict[str, Any]) -> None:
    try:
        check_table(model, table)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    result.by_model[model] = {
        key: PER_MODEL[key].parse(value, f"{path}: models.{model}.{key}")
        for key, value in table.items()
    }


def _add(result: FileValues, path: str, name: str, where: str, value: object) -> None:
    if name in result.values:
        raise SettingError(f"{path}: {name}: expected once, got it in a table and outside it")
    result.values[name] = SETTINGS[name].parse(value, f"{path}: {where}")


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingError(f"config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"config: {path} is not TOML: {error}") from error

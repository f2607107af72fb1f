"""A recipe as the text of its file: what is not the default, in TOML."""

import json
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from convserve_trainer.recipes.recipe import Recipe

NAMED_BY_THE_FILE = ("name",)


def text(recipe: Recipe, written: Recipe | None = None) -> str:
    """Returns the TOML that `recipe_files.read` makes the recipe of, in a file of its name.

    Args:
        recipe: with all overrides.
        written: without them; what differs from it gets a comment that says what it was.
    """
    before = recipe if written is None else written
    changed = [
        name for name in recipe.__struct_fields__ if getattr(recipe, name) != getattr(before, name)
    ]
    given = _given_fields(recipe, changed)
    tables = {name: value for name, value in given.items() if isinstance(value, dict)}
    lines: list[str] = []
    for name, value in given.items():
        if name not in tables and name not in NAMED_BY_THE_FILE:
            lines += _lines(name, value, getattr(before, name), name in changed)
    for name, value in tables.items():
        lines += ["", f"[{name}]"]
        inner, inner_before = getattr(recipe, name), getattr(before, name)
        for field in inner.__struct_fields__:
            was, now = getattr(inner_before, field), getattr(inner, field)
            if field in value or was != now:
                lines += _lines(field, now, was, was != now)
    return "\n".join(lines) + "\n"


def _given_fields(struct: Struct, always: list[str]) -> dict[str, Any]:
    """Returns the fields that are not the default, and those that are always written."""
    tag = struct.__struct_config__.tag
    given: dict[str, Any] = {} if tag is None else {"layer": tag}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if field.default is NODEFAULT or value != field.default or field.name in always:
            given[field.name] = _plain(value)
    return given


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return _given_fields(value, [])
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _lines(name: str, value: Any, before: Any, changed: bool) -> list[str]:
    if isinstance(value, list):
        was = [_plain(each) for each in before]
        rows = []
        for number, each in enumerate(value):
            old = was[number] if number < len(was) else None
            rows.append(f"  {_toml(each)},{_note(old, changed and each != old)}")
        gone = [f"  # the recipe goes on: {_toml(each)}" for each in was[len(value) :]]
        return [f"{name} = [", *rows, *gone, "]"]
    if value is None:  # TOML has no word for it
        return [f"# {name} is not set{_note(before, changed)}"] if changed else []
    return [f"{name} = {_toml(value)}{_note(before, changed)}"]


def _note(before: Any, changed: bool) -> str:
    if not changed:
        return ""
    return f"  # the recipe says {'nothing' if before is None else _toml(before)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    return repr(value)

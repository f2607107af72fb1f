"""The measured figures, each with where it is from."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("figures.toml")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A cell of a table in the docs.

    Attributes:
        about: what it is, with its unit.
        page: of the docs.
        command: that has printed the table below it.
        row: the first cells of the line.
        column: name of the column.
        value: of the cell.
    """

    about: str
    page: str
    command: str
    row: tuple[str, ...]
    column: str
    value: float


def read_figures() -> dict[str, Figure]:
    """Returns the figures by their names."""
    tables = tomllib.loads(_FILE.read_text())
    return {name: Figure(**{**table, "row": tuple(table["row"])}) for name, table in tables.items()}

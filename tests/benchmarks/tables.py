"""Reads the tables that the commands print."""

import re
from collections.abc import Iterable


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def figures_of(cells: Iterable[str]) -> list[float]:
    return [float(figure) for text in cells for figure in re.findall(r"\d+\.?\d*", text)]


def tables_of(output: str) -> list[list[list[str]]]:
    """The rows below the header of each table, after the heading."""
    _, *tables = output.strip().split("\n\n")
    return [[cells_of(line) for line in table.splitlines()[2:]] for table in tables]

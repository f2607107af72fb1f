"""Rows in columns that are as wide as what is in them."""

from __future__ import annotations

from collections.abc import Sequence

from convserve.command.terminal_text import padded, printable, width_of


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as lines, without a newline at the end.

    Args:
        rows: Their cells; as many in each row, and at least one row.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(width_of(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(map(padded, row, widths)).rstrip() for row in cells)

"""What the tables have in common: how they look, and from which width on."""

from __future__ import annotations

from rich.table import Table

WIDE = 130
"""Columns of a terminal from which on there is space between those of a table."""

HEAD = "bold"
"""Of heads. All styles have names that a terminal shows readably on light and on dark ground."""

TROUBLE = "bold red"
"""Of what an operator has to see."""


def table_of(*heads: str, gap: int = 2) -> Table:
    """Returns a table without rows; each head begins with < or >, the side of its column."""
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style=HEAD)
    for head in heads:
        side = "left" if head[0] == "<" else "right"
        table.add_column(head[1:], justify=side, no_wrap=True)  # type: ignore[arg-type]
    return table

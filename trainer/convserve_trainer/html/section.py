"""What a topic of the lecture returns: text, tables and figures, in the order of reading."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

WIDTH = 88  # characters of a line on a terminal


@dataclass(frozen=True)
class Figure:
    """A figure, drawn for light paper and for dark.

    Attributes:
        name: of its files, without ending.
        alt: what is to be seen, for those who cannot see it.
        caption: below it.
        shown: what a page takes, for light paper and for dark: PNG if the figure is photographic,
            because its SVG is only pixels in a wrapper; else SVG.
        files: of the one for light paper, by their endings, "svg" and "png"; none if only a page
            was asked for.
        photographic: whether it consists of pictures, not of lines.
    """

    name: str
    alt: str
    caption: str
    shown: tuple[bytes, bytes]
    files: Mapping[str, bytes]
    photographic: bool


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        head: names of the columns; the first is aligned to the left, the others to the right.
        rows: as many cells each.
        caption: above it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [self.caption, *(_row(cells, widths) for cells in (self.head, *self.rows))]
        return "\n".join(lines)


@dataclass(frozen=True)
class Listing:
    """Lines that are shown unchanged.

    Attributes:
        text: the lines.
        caption: below them.
    """

    text: str
    caption: str

    def __str__(self) -> str:
        return self.text


Part: TypeAlias = str | Table | Figure | Listing
"""A string is a paragraph; what is between backticks is code or a formula."""


@dataclass(frozen=True)
class Section:
    """A topic.

    Attributes:
        topic: its name on the command line.
        title: what it is about.
        parts: in the order of reading.
    """

    topic: str
    title: str
    parts: Sequence[Part]

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        return [part for part in self.parts if isinstance(part, Figure)]

    def __str__(self) -> str:
        """The text and the numbers, as a terminal shows them."""
        shown = [self.title.upper()]
        for part in self.parts:
            if isinstance(part, Table | Listing):
                shown.append(str(part))
            elif isinstance(part, str):
                shown.append(textwrap.fill(part.replace("`", ""), WIDTH))
        return "\n\n".join(shown)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        f"{cell:<{width}}" if not number else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join((first, *others)).rstrip()

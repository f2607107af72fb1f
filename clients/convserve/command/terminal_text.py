"""Text for a terminal: that does no harm there, and how wide it is."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Returns text on one line that cannot steer the terminal: other characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def width_of(text: str) -> int:
    """Returns how many columns of a terminal printable text has.

    Source: Unicode Standard Annex 11, East Asian Width; marks that combine have no column.
    """
    return len(text) if text.isascii() else sum(map(_columns, text))


def padded(text: str, width: int) -> str:
    """Returns printable text, filled with spaces to so many columns."""
    return text + " " * (width - width_of(text))


def shortened(text: str, width: int) -> str:
    """Returns printable text in at most so many columns, at least 1, its middle left out."""
    if width_of(text) <= width:
        return text
    tail = _start(text[::-1], width // 2)[::-1]
    return _start(text, width - width_of(tail) - 1) + "…" + tail


def _start(text: str, width: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > width:
            return text[:index]
    return text


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

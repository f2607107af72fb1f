"""What is drawn in a terminal: digits, bars, and text that does no harm there."""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

BAR_CELLS = 20

# Two pixels in one character: the upper one is its foreground, the lower one its background.
_UPPER_HALF = "▀"
# Without colours: neither, upper, lower, both pixels lit.
_HALVES = " ▀▄█"
_LIT_FROM = 96
# The grey ramp of 256-colour terminals: 24 steps from black to white.
_FIRST_GREY, _GREYS = 232, 24
_EIGHTHS = "▏▎▍▌▋▊▉█"


def draw_digit(pixels: npt.NDArray[np.uint8], *, colour: bool = False) -> str:
    """Draws one grey image with half blocks, two rows of pixels in a line.

    Args:
        pixels: uint8 [H, W] or [H, W, 1], 0 (dark) to 255 (light).
        colour: Draw in 24 greys by escape sequences, for a terminal; otherwise in plain characters,
            pixels of 96 and more lit.

    Returns:
        ceil(H / 2) lines of W characters, without a newline at the end.
    """
    image = pixels.reshape(pixels.shape[0], pixels.shape[1])
    if len(image) % 2:
        image = np.vstack([image, np.zeros_like(image[:1])])
    draw = _line_in_greys if colour else _line_in_halves
    return "\n".join(
        draw(upper, lower) for upper, lower in zip(image[::2], image[1::2], strict=True)
    )


def draw_bar(share: float) -> str:
    """Draws a share, 0 to 1, as a bar of up to 20 characters in steps of an eighth of one."""
    eighths = round(share * BAR_CELLS * len(_EIGHTHS))
    full, rest = divmod(eighths, len(_EIGHTHS))
    return _EIGHTHS[-1] * full + (_EIGHTHS[rest - 1] if rest else "")


def printable(text: str) -> str:
    """Returns text on one line that cannot steer the terminal: other characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def width_of(text: str) -> int:
    """Returns how many columns of a terminal printable text takes.

    Source: Unicode Standard Annex 11, East Asian Width; marks that combine take no column.
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
    taken = 0
    for place, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:place]
    return text


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _line_in_halves(upper: npt.NDArray[np.uint8], lower: npt.NDArray[np.uint8]) -> str:
    lit = (upper >= _LIT_FROM) + 2 * (lower >= _LIT_FROM)
    return "".join(_HALVES[each] for each in lit)


def _line_in_greys(upper: npt.NDArray[np.uint8], lower: npt.NDArray[np.uint8]) -> str:
    tops, bottoms = (_FIRST_GREY + row.astype(int) * _GREYS // 256 for row in (upper, lower))
    cells = (
        f"\x1b[38;5;{top};48;5;{bottom}m{_UPPER_HALF}"
        for top, bottom in zip(tops, bottoms, strict=True)
    )
    return "".join(cells) + "\x1b[0m"

"""What is drawn in a terminal: digits and bars."""

from __future__ import annotations

import os
from typing import TextIO

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


def has_colours(stream: TextIO) -> bool:
    """Returns whether escape sequences for colours may be written: to a terminal that knows them.

    Source: https://no-color.org, and TERM=dumb, which Emacs and others set.
    """
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


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

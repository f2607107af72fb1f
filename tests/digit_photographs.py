"""Handwritten digits as a camera sees them, drawn from MNIST with a seed."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float32]

HEIGHT, WIDTH = 360, 480
PAPER, INK, TABLE = 225.0, 40.0, 45.0


def stroke(digit: Pixels, height: int) -> Levels:
    """Returns a digit of MNIST, uint8 [28, 28], as a pen leaves it: share of ink, 0 to 1."""
    scale = height / 20
    side = round(28 * scale)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    smooth = large.filter(ImageFilter.GaussianBlur(scale * 0.35))
    levels = np.asarray(smooth, np.float32) / 255
    share = np.clip((levels - 0.5) * scale + 0.5, 0, 1).astype(np.float32)
    rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
    cut: Levels = share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cut


def written(digits: list[Pixels], height: int = 120, top: int = 110, left: int = 140) -> Levels:
    """Returns the ink on a sheet with digits side by side: 0 to 1, [HEIGHT, WIDTH]."""
    sheet = np.zeros((HEIGHT, WIDTH), np.float32)
    for digit in digits:
        share = stroke(digit, height)
        sheet[top : top + share.shape[0], left : left + share.shape[1]] = share
        left += share.shape[1] + height // 3
    return sheet


def _plain(_: np.random.Generator) -> tuple[Levels, Levels]:
    return np.ones((HEIGHT, WIDTH), np.float32), np.ones((HEIGHT, WIDTH), np.float32)


def _slope(angle: float) -> Levels:
    """Distance in pixels from a line through the digit."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    slope: Levels = (columns - 190) * np.float32(np.cos(angle)) + (rows - 170) * np.float32(
        np.sin(angle)
    )
    return slope


def _soft(random: np.random.Generator) -> tuple[Levels, Levels]:
    slope = _slope(random.uniform(0, 2 * np.pi))
    return _plain(random)[0], 1 - 0.6 * (slope - slope.min()) / np.ptp(slope)


def _hard(random: np.random.Generator) -> tuple[Levels, Levels]:
    slope = _slope(random.uniform(0, 2 * np.pi)) + random.uniform(-60, 60)
    return _plain(random)[0], 1 - 0.5 / (
        1 + np.exp(np.clip(-slope / random.uniform(1, 8), -30, 30))
    )


def _lined(across: bool) -> Callable[[np.random.Generator], tuple[Levels, Levels]]:
    def lines(random: np.random.Generator) -> tuple[Levels, Levels]:
        page = Image.new("L", (WIDTH, HEIGHT), 0)
        draw = ImageDraw.Draw(page)
        tilt = random.uniform(-15, 15)
        for row in range(-20, HEIGHT + 20, 26):
            draw.line([(0, row), (WIDTH, row + tilt)], fill=255, width=2)
        for column in range(-20, WIDTH + 20, 26) if across else ():
            draw.line([(column, 0), (column - tilt, HEIGHT)], fill=255, width=2)
        lined = 1 - 0.35 * np.asarray(page, np.float32) / 255
        return lined.astype(np.float32), _plain(random)[1]

    return lines


def _table(random: np.random.Generator) -> tuple[Levels, Levels]:
    corners = np.array([(-200, -140), (200, -140), (200, 140), (-200, 140)])
    angle = random.uniform(-0.15, 0.15)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    page = Image.new("L", (WIDTH, HEIGHT), 0)
    ImageDraw.Draw(page).polygon(
        [tuple(corner) for corner in corners @ turn.T + (240, 180)], fill=255
    )
    sheet = np.asarray(page, np.float32) / 255
    wood = TABLE / PAPER * (1 + 0.1 * random.standard_normal((HEIGHT, WIDTH), np.float32))
    return (sheet + (1 - sheet) * wood).astype(np.float32), _plain(random)[1]


SCENES = {
    "even": _plain,
    "soft": _soft,
    "hard": _hard,
    "ruled": _lined(across=False),
    "squared": _lined(across=True),
    "table": _table,
}


def photograph(ink: Levels, scene: str, seed: int, light: bool = False) -> Image.Image:
    """Returns a photograph of a sheet.

    Args:
        ink: as `written` returns it.
        scene: one of `SCENES`.
        seed: of the noise, and of where light, lines and sheet are.
        light: chalk on a board: paper and ink change places.
    """
    random = np.random.default_rng(seed)
    paper, lamp = SCENES[scene](random)
    ground, mark = (60.0, 220.0) if light else (PAPER, INK)
    seen = (ground * paper * (1 - ink) + mark * ink) * lamp
    noisy = seen + random.standard_normal((HEIGHT, WIDTH), np.float32) * 3
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))

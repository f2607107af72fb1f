"""What is drawn on a sheet: strokes that are darker, or lighter, than the ground around them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convserve_imaging.components import Pieces, pieces_of
from convserve_imaging.ground import Levels, Mask, closed, holds_square

LEAST_CONTRAST = 24  # of 255, between ink and ground; less is a blank sheet

#: Of the strongest ink: stronger is a stroke. Higher where a piece goes through the whole picture,
#: as the lines of ruled paper do, which are fainter than most ink.
_THRESHOLDS = (0.5, 0.6, 0.7)
_CORE = 0.65  # of the strongest ink; a shadow of a hand is fainter, and counts for nothing

#: Ink is measured as a share of its ground, of which a shadow leaves as much. Darker ground than
#: this share of the lightest may be no paper at all, and counts as if it were as light as that.
_DARKEST_PAPER = 0.5

#: Standard deviations of a normal noise that are not ink; its median absolute deviation is 0.67.
_NOISE = 5 / 0.67

#: Share of a piece's outline at which the ground itself falls by half of the ink's contrast. What
#: is beyond is then as dark as the piece: it is a part of something larger than strokes are.
_MOST_TORN = 0.12
_DIRECTIONS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right)

#: Of the square of their longer side, the pixels of strokes; lines of paper have fewer.
_LINES = 0.06
_HAIR = 0.025  # the same, of lines that end somewhere

_NEAR = 0.4  # of the digit's longer side; as far as a stroke may be from the others
_LEAST_STROKE = 0.02  # of the digit's area; less is dust
_CLEAR = 0.12  # of its longer side, a gap from top to bottom as digits in a row have
_ALIKE = 0.7  # of the taller's height, the shorter of digits in a row
_ABREAST = 0.6  # of the shorter's height, what two in a row have at the same height
_OTHER = 0.5  # of its longer side, what is not near it and a digit too
_SAME_INK = 0.25  # of its ink, the least of another digit

Strength = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Drawing:
    """The strokes of the most likely digit, in one of the two senses that a picture may have.

    Attributes:
        light: whether they are lighter than their ground.
        ground: uint8 [H, W], 255 less the level where the strokes are light.
        darkest: the least that the strength of ink is a share of.
        grain: strength that the ground itself has on average.
        faintest: strength of what may be grain, above the average.
        contrast: strength of the strokes above the grain.
        strokes: bool [H, W].
        box: of the strokes: first row and column, row and column after the last.
        torn: whether they are parts of something larger.
        lines: whether they are thin lines of the paper.
        others: whether there are pieces that may be other digits.
        clutter: pixels as strong as the strokes elsewhere, as a share of those of the strokes.
        largest: share of all pieces' pixels that the largest piece has.
        whole: whether the picture was read with one ground, and all of it is the digit.
    """

    light: bool
    ground: Levels
    darkest: float
    grain: float
    faintest: float
    contrast: float
    strokes: Mask
    box: Box
    torn: bool
    lines: bool
    others: bool
    clutter: float
    largest: float
    whole: bool

    @property
    def area(self) -> int:
        """Pixels of the box."""
        top, left, bottom, right = self.box
        return (bottom - top) * (right - left)

    def holds(self, other: "Drawing") -> bool:
        """Returns whether another one lies within this one's box, which is larger."""
        slack = 0.05 * max(self.box[2] - self.box[0], self.box[3] - self.box[1])
        before = zip(self.box[:2], other.box[:2], strict=True)
        after = zip(self.box[2:], other.box[2:], strict=True)
        within = all(mine <= its + slack for mine, its in before)
        within &= all(mine >= its - slack for mine, its in after)
        return within and self.area > 1.05 * other.area

    def thicker(self, share: float) -> bool:
        """Returns whether somewhere it is thicker than a share of its longer side."""
        top, left, bottom, right = self.box
        side = max(bottom - top, right - left)
        return holds_square(self.strokes[top:bottom, left:right], round(share * side) + 1)


def strength(grey: Levels, ground: Levels, darkest: float) -> Strength:
    """Returns how much darker than its ground each pixel is: float32, shares of the ground."""
    below = ground - grey.astype(np.float32)
    return np.asarray(below / np.maximum(ground, np.float32(darkest)), dtype=np.float32)


def nth_strongest(ink: Strength, rank: int) -> float:
    """Returns the level that so many pixels have or exceed, counted from 1."""
    return float(np.partition(ink, -rank, axis=None)[-rank])


def drawn(picture: Levels, light: bool, window: int | None) -> Drawing | None:
    """Returns the strokes of the most likely digit of one sense; None if there are no strokes.

    Args:
        picture: uint8 [H, W].
        light: whether the strokes are lighter than their ground.
        window: pixels, more than the strokes are thick; None where all of the picture has one
            ground, and whatever is drawn on it is the digit.
    """
    grey = 255 - picture if light else picture
    ground = np.full_like(grey, grey.max()) if window is None else closed(grey, window)
    darkest = max(1.0, _DARKEST_PAPER * float(ground.max()))
    ink = strength(grey, ground, darkest)
    # The strongest pixels of all are specks as likely as strokes.
    strongest = nth_strongest(ink, 1 + ink.size // 2500)
    grain, spread = _grain(ink, _THRESHOLDS[0] * strongest)
    contrast = strongest - grain
    if contrast * float(ground.max()) < LEAST_CONTRAST or contrast <= _NOISE * spread:
        return None
    for threshold in _THRESHOLDS:
        mask = ink > grain + max(threshold * contrast, _NOISE * spread)
        pieces = pieces_of(mask)
        levels = ink.ravel()[pieces.pixels]
        core = pieces.sums(np.where(levels > grain + _CORE * contrast, levels, 0))
        through, touching = _at_border(pieces, picture.shape)
        sides = np.maximum(pieces.bottom - pieces.top, pieces.right - pieces.left)
        thin = np.where(through, _LINES, _HAIR)
        lines = pieces.area < thin * sides * sides
        if window is not None:
            core *= np.where(lines, 0.05, np.where(touching & ~through, 0.3, 1.0))
            torn = _torn(pieces, mask, ground, contrast)
            core *= np.where(torn, 0.02, 1.0)
        else:
            torn = np.zeros(len(core), bool)
        main = int(core.argmax())
        if window is None or not lines[main]:
            break
    mine, others = _sorted(pieces, core, main, lines | torn, touching)
    if window is None:
        mine = np.ones(len(core), bool)
    strokes = pieces.mask(mine, picture.shape)
    inside = int(pieces.area[mine].sum())
    return Drawing(
        light=light,
        ground=ground,
        darkest=darkest,
        grain=grain,
        faintest=_NOISE * spread,
        contrast=contrast,
        strokes=strokes,
        box=(
            int(pieces.top[mine].min()),
            int(pieces.left[mine].min()),
            int(pieces.bottom[mine].max()),
            int(pieces.right[mine].max()),
        ),
        torn=bool(torn[main]),
        lines=bool(lines[main]),
        others=window is not None and bool(others.any()),
        clutter=float(pieces.area[~mine & ~lines & ~others].sum() / max(inside, 1)),
        largest=float(pieces.area.max() / max(pieces.area.sum(), 1)),
        whole=window is None,
    )


def _grain(ink: Strength, most: float) -> tuple[float, float]:
    """Returns the strength that ground has on average, and the median deviation from it.

    By the weakest quarter: edges of strokes are many where a digit fills its picture. Of normal
    noise the first decile and the first quartile are 0.61 standard deviations apart.
    """
    sample = ink[::2, ::2].ravel() if ink.size > 4096 else ink.ravel()
    sample = sample[sample < most]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.partition(sample, (sample.size // 10, sample.size // 4))[
        [sample.size // 10, sample.size // 4]
    ]
    spread = float(high - low) * 0.67 / 0.61
    return float(high) + spread, spread


def _at_border(pieces: Pieces, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Returns which pieces go through the picture, and which touch its border: bool [N]."""
    top, bottom = pieces.top == 0, pieces.bottom == shape[0]
    left, right = pieces.left == 0, pieces.right == shape[1]
    return (top & bottom) | (left & right), top | bottom | left | right


def _torn(pieces: Pieces, mask: Mask, ground: Levels, contrast: float) -> Mask:
    """Returns which pieces are parts of something larger, by the ground around them: bool [N]."""
    columns = mask.shape[1] + 4
    at = (pieces.pixels // mask.shape[1] + 2) * columns + pieces.pixels % mask.shape[1] + 2
    around = np.pad(mask, 2).ravel()
    inside = around[at - 1] & around[at + 1] & around[at - columns] & around[at + columns]
    outline = np.flatnonzero(~inside)
    levels = np.pad(ground, 2, mode="edge").ravel()
    here = at[outline]
    beyond = [levels[here + 2 * down * columns + 2 * right] for down, right in _DIRECTIONS]
    high = levels[here].astype(np.float32)
    falling = np.zeros(len(at), bool)
    falling[outline] = high - np.min(beyond, axis=0) > 0.5 * contrast * high
    torn: Mask = pieces.sums(falling) > _MOST_TORN * pieces.sums(~inside)
    return torn


def _sorted(
    pieces: Pieces, core: npt.NDArray[np.float64], main: int, never: Mask, touching: Mask
) -> tuple[Mask, Mask]:
    """Returns which pieces belong to the digit of the main one, and which to other digits."""
    heights, widths = pieces.bottom - pieces.top, pieces.right - pieces.left
    digits = (core >= _SAME_INK * core[main]) & ~touching & ~never
    large = (pieces.area >= _LEAST_STROKE * pieces.area[main]) & ~never
    mine = np.arange(len(core)) == main
    while True:
        top, bottom = pieces.top[mine].min(), pieces.bottom[mine].max()
        left, right = pieces.left[mine].min(), pieces.right[mine].max()
        height, side = bottom - top, max(bottom - top, right - left)
        beside = np.maximum(pieces.left - right, left - pieces.right)
        below = np.maximum(pieces.top - bottom, top - pieces.bottom)
        far = np.maximum(beside, below) > _NEAR * side
        shorter, taller = np.minimum(heights, height), np.maximum(heights, height)
        abreast = (beside > _CLEAR * side) & (shorter >= _ALIKE * taller)
        abreast &= -below >= _ABREAST * shorter
        others = digits & ~mine & (abreast | (far & (np.maximum(heights, widths) >= _OTHER * side)))
        grown = mine | (large & ~far & ~others)
        if np.array_equal(grown, mine):
            return mine, others
        mine = grown

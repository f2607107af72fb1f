"""The ink of one handwritten digit in a picture: on paper of any light, with lines, on a table."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from convserve_imaging.drawing import LEAST_CONTRAST, Drawing, drawn, nth_strongest, strength
from convserve_imaging.errors import BlankPictureError, NoDigitError, SeveralDigitsError
from convserve_imaging.ground import Levels, widened

#: Pixels, the longer side of what is searched for the digit; larger pictures are reduced to it.
_SEARCHED = 320

#: Pixels, the longer side of the digit that is cut out, at most; beyond, it is reduced.
_CUT = 320

#: Pixels; a smaller picture is a digit that somebody cut out, with all that belongs to it.
_CUT_OUT = 28

#: Of the picture's shorter side: no stroke is so thick. What is, is ground.
_THICKEST = 1 / 3

_BLOB = 0.5  # of its longer side, what is thicker is not a stroke
_CUT_BLOB = 0.4  # the same of a digit that fills its picture
_SHEET = 0.33  # the same, where it may be a sheet around a dark digit
_LEAST_SIDE = 0.03  # of the picture's, and 5 pixels of those searched; what is smaller is dust
_FILLED = 0.85  # of either side of the picture, what a digit fills that was cut out
_MOST_CROSSINGS = 8  # strokes of a cut out digit that end at the border; lines of paper are more
_MOST_BORDER = 0.45  # of the border, ink; a shadow covers more
_MOST_CLUTTER = 0.7  # of the digit's pixels, as strong as it, elsewhere; paper has hardly any
_LEAST_RING = 0.3  # of what is around a digit, ground; half of it may be in a shadow
_FAINT = 0.25  # of the ground, ink; what is fainter and no digit is the grain of a blank sheet
_FAINTEST = 0.01  # of the strongest ink; fainter pixels are ground
_LOUDEST = 0.3  # of the strongest ink, what may be grain next to a stroke
_BLANK = "the picture is blank: no digit differs from its ground"
_EXPECTED = "expected one handwritten digit, darker or lighter than all around it, got"

Grey = npt.NDArray[np.float32]


def digit_ink(picture: Levels) -> Grey:
    """Returns the ink of the one digit in a picture, cut out with little around it.

    Args:
        picture: uint8 [H, W], 0 (black) to 255 (white); dark ink on light ground or the reverse.

    Returns:
        float32 [h, w], 0 (ground) to 255 (the strongest ink).

    Raises:
        BlankPictureError: nothing is drawn on it.
        SeveralDigitsError: there is more than one digit.
        NoDigitError: what is on it is not a digit.
    """
    scale = -(-max(picture.shape) // _SEARCHED)
    searched = _reduced(picture, scale)
    found = _found(searched)
    if found is None:
        if np.ptp(searched) < LEAST_CONTRAST or _even(searched):
            raise BlankPictureError(_BLANK)
        raise NoDigitError(f"{_EXPECTED} a picture without strokes")
    if max(searched.shape) > _CUT_OUT:
        _check(searched, found)
    return _cut(picture, found, scale)


def _even(picture: Levels) -> bool:
    """Returns whether neighbouring pixels differ by less than ink and ground would."""
    rows = np.abs(np.diff(picture.astype(np.int16), axis=0))
    columns = np.abs(np.diff(picture.astype(np.int16), axis=1))
    return max(int(rows.max(initial=0)), int(columns.max(initial=0))) < LEAST_CONTRAST


def _found(picture: Levels) -> Drawing | None:
    """Returns the most likely digit."""
    light = _dark_border(picture)
    if max(picture.shape) <= _CUT_OUT:
        return drawn(picture, light, None)
    window = max(_CUT_OUT, round(_THICKEST * min(picture.shape)))
    likely = drawn(picture, light, window)
    if light or likely is None or likely.torn or _ring(picture, likely) < 0.9 or _touches(likely):
        likely = _likelier(picture, likely, drawn(picture, not light, window))
    doubtful = likely is None or likely.torn or _touches(likely) or likely.thicker(_SHEET)
    if doubtful and _reaches(picture, light):
        whole = drawn(picture, light, None)
        if whole is not None and _fills(whole):
            return whole
    return likely


def _reaches(picture: Levels, light: bool) -> bool:
    """Returns whether what is light, or dark, reaches nearly all sides of the picture."""
    middle = (int(picture.min()) + int(picture.max())) // 2
    inked = picture > middle if light else picture < middle
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    return len(rows) > 0 and bool(
        rows[-1] - rows[0] >= _FILLED * len(picture)
        and columns[-1] - columns[0] >= _FILLED * picture.shape[1]
    )


def _dark_border(picture: Levels) -> bool:
    """Returns whether the border, and its corners most of all, is dark: the ink is light."""
    corners = np.repeat(picture[[0, 0, -1, -1], [0, -1, 0, -1]], len(picture) // 2)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1], corners])
    return float(border.mean()) < (float(picture.min()) + float(picture.max())) / 2


def _likelier(picture: Levels, one: Drawing | None, other: Drawing | None) -> Drawing | None:
    """Returns which of two readings, dark ink and light ink, is more likely."""
    if one is None or other is None:
        return one or other
    dark, light = (other, one) if one.light else (one, other)
    if _alone(picture, dark) != _alone(picture, light):
        return dark if _alone(picture, dark) else light
    ring_dark, ring_light = _ring(picture, dark), _ring(picture, light)
    # Between the strokes of light ink are dark shapes; but a sheet on a dark table holds dark ink.
    if light.holds(dark) and ring_light > 0.5 and not light.thicker(_SHEET):
        return light
    return light if ring_light > ring_dark + 0.5 else dark


def _alone(picture: Levels, digit: Drawing) -> bool:
    """Returns whether around the digit there is nothing but its ground."""
    if digit.torn or digit.lines or digit.clutter > _MOST_CLUTTER:
        return False
    if digit.area > picture.size / 2:
        return _fills(digit)
    return _ring(picture, digit) >= _LEAST_RING


def _ring(picture: Levels, digit: Drawing) -> float:
    """Returns the share of what is just around the digit that is as its ground is: 0 to 1."""
    top, left, bottom, right = digit.box
    first, start = max(0, top - 3), max(0, left - 3)
    around = picture[first : bottom + 3, start : right + 3]
    outside = np.ones(around.shape, bool)
    outside[
        max(0, top - 1 - first) : bottom + 1 - first, max(0, left - 1 - start) : right + 1 - start
    ] = False
    ring = around[outside].astype(np.float32)
    if not ring.size:
        return 0.0
    under = float(np.median(digit.ground[digit.strokes]))
    near = 0.4 * digit.contrast * max(under, digit.darkest)
    return float((np.abs((255 - ring if digit.light else ring) - under) < near).mean())


def _touches(digit: Drawing) -> bool:
    top, left, bottom, right = digit.box
    height, width = digit.strokes.shape
    return top <= 1 or left <= 1 or bottom >= height - 1 or right >= width - 1


def _fills(digit: Drawing) -> bool:
    """Returns whether the digit fills the picture, as one that somebody cut out."""
    drawn_on = digit.strokes
    border = np.concatenate(
        [drawn_on[0], drawn_on[1:, -1], drawn_on[-1, -2::-1], drawn_on[-2:0:-1, 0]]
    )
    crossings = int(np.count_nonzero(border != np.roll(border, 1))) // 2
    return (
        digit.largest >= 0.5
        and crossings <= _MOST_CROSSINGS
        and float(border.mean()) <= _MOST_BORDER
        and not digit.thicker(_CUT_BLOB)
    )


def _check(picture: Levels, digit: Drawing) -> None:
    """Raises an error for anything but a single digit."""
    top, left, bottom, right = digit.box
    if max(bottom - top, right - left) < max(5, _LEAST_SIDE * max(picture.shape)):
        raise BlankPictureError("the picture is blank but for some dust")
    if not (digit.whole or _alone(picture, digit)) or digit.thicker(_BLOB):
        if digit.contrast < _FAINT:
            raise BlankPictureError(_BLANK)
        raise NoDigitError(f"{_EXPECTED} a picture of something else")
    if digit.others:
        raise SeveralDigitsError(f"{_EXPECTED} several digits; cut them apart")


def _cut(picture: Levels, digit: Drawing, scale: int) -> Grey:
    """Returns the ink within the digit's box, of the picture's own pixels."""
    shape = digit.strokes.shape
    margin = max(shape) if digit.whole else _margin(digit)
    top, left = (max(0, side - margin) for side in digit.box[:2])
    bottom, right = (
        min(most, side + margin) for side, most in zip(digit.box[2:], shape, strict=True)
    )
    grey = picture[top * scale : bottom * scale, left * scale : right * scale]
    cut_scale = -(-max(grey.shape) // _CUT)
    grey = _reduced(grey, cut_scale)
    within = (slice(top, bottom), slice(left, right))
    ground = _enlarged(digit.ground[within], grey.shape)
    ink = strength(255 - grey if digit.light else grey, ground, digit.darkest) - digit.grain
    if not digit.whole:
        near = widened(digit.strokes, margin)[within]
        ink *= _enlarged(255 * near.astype(np.uint8), grey.shape) > 0
    # A camera sharpens edges: a few pixels may be stronger than the stroke.
    rank = 1 if max(shape) <= _CUT_OUT else 1 + ink.size // 400
    strongest = nth_strongest(ink, rank)
    # The mean of n x n pixels has an n-th of their noise.
    noise = min(digit.faintest * scale / cut_scale, _LOUDEST * strongest)
    ink[ink <= max(_FAINTEST * strongest, noise)] = 0
    return np.asarray(np.minimum(ink * (255 / strongest), 255), dtype=np.float32)


def _margin(digit: Drawing) -> int:
    """Returns how many pixels around the strokes belong to them, for their soft edges."""
    if digit.faintest:
        return 1
    # No camera saw it: it may have been enlarged, and have edges as wide as a pixel was.
    top, left, bottom, right = digit.box
    return 1 + max(bottom - top, right - left) // 12


def _reduced(picture: Levels, scale: int) -> Levels:
    return picture if scale == 1 else np.asarray(Image.fromarray(picture).reduce(scale))


def _enlarged(levels: Levels, shape: tuple[int, ...]) -> Levels:
    if levels.shape == shape:
        return levels
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))

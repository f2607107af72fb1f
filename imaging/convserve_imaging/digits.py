"""Any picture of a digit becomes one as MNIST was made.

The digit is scaled, its aspect ratio kept, to fit a box of 20 x 20 with grey levels from
anti-aliasing; the box is placed in a field of 28 x 28 so that its centre of mass is the centre of
the field. Light ink on a dark ground.

Source: LeCun, Cortes, Burges: "The MNIST database of handwritten digits", section on the format.
That the centre of the field is the middle of pixel 14, counted from 0, was measured on the 10,000
test digits: all their centres of mass lie between 13.5 and 14.5, and 9,997 fill 20 pixels exactly.
"""

import math
import os
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from convserve_imaging.errors import BlankPictureError
from convserve_imaging.grey_pictures import grey_picture
from convserve_imaging.picture_files import MAX_DECODER_BYTES, MAX_PIXELS

FIELD = 28  # pixels, each side of the result
BOX = 20  # pixels, longer side of the digit in it
CENTRE = 14  # pixel, where the centre of mass goes
LEAST_CONTRAST = 24  # of 255, between ink and ground; less is a blank sheet
FAINTEST = 0.01  # of the strongest ink; fainter pixels are ground
EDGE = (
    0.05  # of the strongest ink, where the digit ends: enlarging smooths an edge beyond its place
)

Picture: TypeAlias = Image.Image | bytes | str | os.PathLike[str]
Grey: TypeAlias = npt.NDArray[np.float32]
Pixels: TypeAlias = npt.NDArray[np.uint8]


def centre(
    picture: Picture,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
) -> Pixels:
    """Makes of a picture of one digit what MNIST would have made of it.

    Args:
        picture: a Pillow image, the bytes of a file, or the path of one. Any mode: colours become
            grey, transparency becomes paper, dark ink on a light ground is inverted.
        formats: Pillow's names of the formats that are taken ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory that decoding the file may take, by its header.

    Returns:
        uint8 [28, 28, 1], 0 (ground) to 255 (ink).

    Raises:
        NotAPictureError: the bytes are no picture, or of another format.
        DamagedPictureError: the picture cannot be decoded.
        TooManyPixelsError: it exceeds a limit by its header; nothing was decoded.
        BlankPictureError: it has no ink.
        OSError: the path cannot be read.
    """
    opened = picture if isinstance(picture, Image.Image | bytes) else _read(picture)
    grey = grey_picture(opened, formats, max_pixels, max_decoder_bytes)
    ink = _contrast(grey.astype(np.float32))
    digit = _scaled(_cropped(ink))
    return _placed(digit)[:, :, np.newaxis]


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _contrast(grey: Grey) -> Grey:
    """Returns the ink of a sheet, whose ground is what most of its border is."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(border)
    grain = np.median(np.abs(border - ground))
    light = grey.max() - ground < ground - grey.min()
    ink = ground - grey if light else grey - ground
    strongest = ink.max()
    if strongest < LEAST_CONTRAST:
        raise BlankPictureError("the picture is blank: no digit stands out from its ground")
    # 5 standard deviations of normal noise, whose median absolute deviation is 0.67 of one.
    ink[ink <= max(FAINTEST * strongest, 5 / 0.67 * grain)] = 0
    if not ink.any():
        raise BlankPictureError("the picture is blank: no digit stands out from the noise")
    return np.asarray(ink * (255 / strongest), dtype=np.float32)


def _cropped(ink: Grey) -> Grey:
    """Returns the smallest rectangle that holds the digit."""
    drawn = ink > EDGE * ink.max()
    rows = np.flatnonzero(drawn.any(axis=1))
    columns = np.flatnonzero(drawn.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(ink: Grey) -> Pixels:
    """Returns the digit with its longer side 20 pixels: uint8 [h, w]."""
    height, width = ink.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(ink).resize(size, Image.Resampling.BOX)
    levels: Grey = np.asarray(small, dtype=np.float32)
    return np.rint(levels).astype(np.uint8)


def _placed(digit: Pixels) -> Pixels:
    """Returns uint8 [28, 28] with the digit's centre of mass in the middle."""
    field = np.zeros((FIELD, FIELD), dtype=np.uint8)
    top = _offset(digit.sum(axis=1, dtype=np.float64))
    left = _offset(digit.sum(axis=0, dtype=np.float64))
    height, width = digit.shape
    field[top : top + height, left : left + width] = digit
    return field


def _offset(mass: npt.NDArray[np.float64]) -> int:
    """Returns where a profile of masses starts to have its centre at `CENTRE`, in the field."""
    middle = float(mass @ np.arange(len(mass)) / mass.sum())
    start = math.ceil(CENTRE - 0.5 - middle)  # the least that brings it to 13.5 or beyond
    return min(max(start, 0), FIELD - len(mass))

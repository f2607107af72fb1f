"""Turns any picture of a digit into one as MNIST has them.

The digit is scaled, its aspect ratio kept, to fit a box of 20 x 20 with grey levels from
anti-aliasing; the box is put into a field of 28 x 28 so that its centre of mass is the centre of
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

from convserve_imaging.grey_pictures import grey_picture
from convserve_imaging.ink import Grey, digit_ink
from convserve_imaging.picture_files import MAX_DECODER_BYTES, MAX_PIXELS

FIELD = 28  # pixels, each side of the result
BOX = 20  # pixels, longer side of the digit in it
CENTRE = 14  # pixel, where the centre of mass goes
EDGE = 0.05  # of the strongest ink, where the digit ends: enlarging blurs an edge beyond it

Picture: TypeAlias = Image.Image | bytes | str | os.PathLike[str]
Pixels: TypeAlias = npt.NDArray[np.uint8]


def centre(
    picture: Picture,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
) -> Pixels:
    """Returns a picture of one digit as MNIST would have made it.

    Args:
        picture: a Pillow image, the bytes of a file, or the path of one. Any mode: colours become
            grey, transparency becomes paper, dark ink on a light ground is inverted.
        formats: Pillow's names of the accepted formats ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory that decoding the file may take, by its header.

    Returns:
        uint8 [28, 28, 1], 0 (ground) to 255 (ink).

    Raises:
        NotAPictureError: the bytes are not a picture, or of another format.
        DamagedPictureError: the picture cannot be decoded.
        TooManyPixelsError: it exceeds a limit by its header; nothing was decoded.
        BlankPictureError: nothing is drawn on it.
        SeveralDigitsError: there is more than one digit.
        NoDigitError: what is on it is not a digit.
        OSError: the path cannot be read.
    """
    opened = picture if isinstance(picture, Image.Image | bytes) else _read(picture)
    grey = grey_picture(opened, formats, max_pixels, max_decoder_bytes)
    digit = _scaled(_large(digit_ink(grey)))
    return _placed(digit)[:, :, np.newaxis]


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _large(ink: Grey) -> Grey:
    """Returns the digit, cropped, with its longer side no smaller than it will be."""
    cropped = _cropped(ink)
    times = -(-4 * BOX // max(cropped.shape))
    if times <= 4:
        return cropped
    # Smoothly, with the ground around it; shrinking it afterwards keeps it smooth.
    around = np.pad(cropped, 2)
    size = (around.shape[1] * times, around.shape[0] * times)
    enlarged = Image.fromarray(around).resize(size, Image.Resampling.LANCZOS)
    return _cropped(np.asarray(enlarged, dtype=np.float32).clip(0, 255))


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

"""A picture of any kind in grey, and not larger than is useful for finding a digit in it.

The whole picture is never held in a wider form than its decoder gives: it is cut into tiles, and
each is made grey and reduced on its own.
"""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from convserve_imaging.errors import DamagedPictureError
from convserve_imaging.exif import upright
from convserve_imaging.picture_files import MAX_DECODER_BYTES, MAX_PIXELS, open_file

LONGEST_SIDE = 1024
"""Pixels, of a grey picture at most."""

#: Of 255, between the darkest and the lightest pixel; a sheet with less is blank.
_LEAST_CONTRAST = 24

#: Pixels of a tile, each side, before it is reduced.
_TILE = 512

_Box: TypeAlias = tuple[int, int, int, int]
_Part: TypeAlias = tuple[float, float, float, float]


def grey_picture(
    picture: Image.Image | bytes,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
) -> npt.NDArray[np.uint8]:
    """Returns a picture in grey, upright by its Exif orientation, and not larger than is useful.

    Colours become their luma, modes of more than 8 bits are stretched to the range of 8, and what
    is transparent becomes white paper, or black where nothing would be seen on white.

    Args:
        picture: a Pillow image, or the whole file.
        formats: Pillow's names of the accepted formats ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory that decoding may take, by the file's header. What is made of
            the decoded picture takes a few MiB more, whatever its size.

    Returns:
        uint8 [H, W], 0 (black) to 255 (white), its longer side `LONGEST_SIDE` or less: larger
        pictures are reduced, the aspect ratio kept, by the mean of the pixels.

    Raises:
        NotAPictureError: the bytes are not a picture, or of another format.
        DamagedPictureError: the picture cannot be decoded.
        UnsupportedPictureError: a variety of its format that is not supported.
        TooManyPixelsError: it exceeds a limit by its header; nothing was decoded.
    """
    opened = open_file(picture, formats, max_pixels)
    decoded = opened.decode(max_decoder_bytes, LONGEST_SIDE)
    try:
        return upright(_drawn(decoded), opened.orientation)
    except Exception as error:  # Pillow raises anything at all for modes that it half knows
        raise DamagedPictureError(f"the {decoded.mode} picture is damaged: {error}") from error


def _drawn(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Returns the picture, reduced, on the paper on which it is seen."""
    small = _reduced(picture)
    if small.mode != "LA":
        return _levels(np.asarray(small))
    # White digits on nothing are seen on black paper only.
    grey, opacity = small.split()
    black = ImageChops.multiply(grey, opacity)
    white = np.asarray(ImageChops.add(black, ImageChops.invert(opacity)))
    return white if np.ptp(white) >= _LEAST_CONTRAST else np.asarray(black)


def _reduced(picture: Image.Image) -> Image.Image:
    """Returns the picture in grey, in a mode of `_grey`, its longer side `LONGEST_SIDE` or less."""
    scale = max(1.0, max(picture.size) / LONGEST_SIDE)
    width, height = (max(1, round(side / scale)) for side in picture.size)
    small: Image.Image | None = None
    for target, box, part in _tiles(picture.size, (width, height)):
        tile = _grey(picture.crop(box))
        small = small or Image.new(tile.mode, (width, height))
        size = (target[2] - target[0], target[3] - target[1])
        small.paste(tile.resize(size, Image.Resampling.BOX, part), target)
    assert small is not None, "a picture has a pixel, and so a tile"
    return small


def _tiles(size: tuple[int, int], reduced: tuple[int, int]) -> Iterator[tuple[_Box, _Box, _Part]]:
    """Yields which pixels of the reduced picture, the pixels around theirs, and theirs in those."""
    columns, rows = (list(_cuts(*sides)) for sides in zip(size, reduced, strict=True))
    for top, bottom, first_row, last_row, above, below in rows:
        for left, right, first, last, before, behind in columns:
            yield (
                (left, top, right, bottom),
                (first, first_row, last, last_row),
                (before, above, behind, below),
            )


def _cuts(size: int, reduced: int) -> Iterator[tuple[int, int, int, int, float, float]]:
    """The same in one direction: start and end of each of the three."""
    step = size / reduced
    count = max(1, int(_TILE / step))
    for start in range(0, reduced, count):
        end = min(start + count, reduced)
        first, last = start * step, min(end * step, size)
        outer = int(first)
        yield start, end, outer, math.ceil(last), first - outer, last - outer


def _grey(tile: Image.Image) -> Image.Image:
    """Returns it in L, with transparent parts in LA, with more than 8 bits in I;16 or F."""
    if tile.mode == "I;16":
        return tile
    if tile.mode.startswith(("I", "F")):
        return Image.fromarray(np.nan_to_num(np.asarray(tile, dtype=np.float32)))
    return tile.convert("LA" if tile.has_transparency_data else "L")


def _levels(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Returns uint8 [H, W]; wider levels are stretched to the range of bytes."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    levels = pixels.astype(np.float32)
    low, high = levels.min(), levels.max()
    if low == high:
        return np.zeros(levels.shape, dtype=np.uint8)
    stretched: npt.NDArray[np.uint8] = np.rint((levels - low) * (255 / (high - low))).astype("u1")
    return stretched

"""Reads a picture file whose pixels are used unchanged: it must have the size of the net."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from convserve_imaging.errors import UnsupportedPictureError
from convserve_imaging.exif import upright
from convserve_imaging.luma import luma
from convserve_imaging.picture_files import MAX_DECODER_BYTES, MAX_PIXELS, open_file

#: Rows that are checked together.
_BAND = 64


def decode(
    data: bytes,
    height: int,
    width: int,
    channels: int,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a file, neither resized nor stretched nor inverted.

    Args:
        data: the whole file.
        height: rows that it must have, upright.
        width: columns that it must have.
        channels: of the result, 1 (grey: the luma of colours) or 3 (RGB).
        formats: Pillow's names of the accepted formats ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory that decoding the file may take, by its header.

    Returns:
        uint8 [height, width, channels], 0 to 255, not scaled.

    Raises:
        NotAPictureError: it is not a picture, or of another format.
        DamagedPictureError: it cannot be decoded.
        UnsupportedPictureError: it has another size, transparent parts or more than 8 bits.
        TooManyPixelsError: it exceeds a limit by its header; nothing was decoded.
    """
    opened = open_file(data, formats, max_pixels)
    rows, columns = opened.size[::-1] if opened.orientation < 5 else opened.size
    if (rows, columns) != (height, width):
        raise _other_size((columns, rows), height, width)
    picture = opened.decode(max_decoder_bytes)
    if picture.mode.startswith(("I", "F")):
        raise UnsupportedPictureError("the picture has more than 8 bits a pixel; expected 8")
    if picture.has_transparency_data and _is_transparent(picture):
        raise UnsupportedPictureError("the picture has transparent parts; save it opaque")
    rgb = upright(np.asarray(picture.convert("RGB")), opened.orientation)
    return luma(rgb) if channels == 1 else rgb


def _is_transparent(picture: Image.Image) -> bool:
    """Returns whether any pixel is transparent; reads a band of rows at a time to save memory."""
    for top in range(0, picture.height, _BAND):
        band = picture.crop((0, top, picture.width, min(top + _BAND, picture.height)))
        if band.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            return True
    return False


def _other_size(size: tuple[int, int], height: int, width: int) -> UnsupportedPictureError:
    return UnsupportedPictureError(
        f"the picture has {size[1]} rows and {size[0]} columns; expected {height} rows and "
        f"{width} columns, since pixels are used unchanged"
    )

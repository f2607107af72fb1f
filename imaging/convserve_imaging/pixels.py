"""A picture file whose pixels are taken as they are: it has the size that a net takes, or none."""

import numpy as np
import numpy.typing as npt

from convserve_imaging.errors import UnsupportedPictureError
from convserve_imaging.luma import luma
from convserve_imaging.picture_files import identified, loaded


def decode(
    data: bytes, height: int, width: int, channels: int, formats: tuple[str, ...] | None = None
) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a file, neither resized nor stretched nor inverted.

    Args:
        data: the whole file.
        height: rows that it must have, upright.
        width: columns that it must have.
        channels: of the result, 1 (grey: the luma of colours) or 3 (RGB).
        formats: Pillow's names of the formats that are taken ("JPEG", "PNG"); None for all.

    Returns:
        uint8 [height, width, channels], 0 to 255, not scaled.

    Raises:
        NotAPictureError: it is no picture, or of another format.
        DamagedPictureError: it cannot be decoded.
        UnsupportedPictureError: it has another size, transparent parts or more than 8 bits.
        TooManyPixelsError: it is far too large.
    """
    opened = identified(data, formats)
    if sorted(opened.size) != sorted((width, height)):  # by the header: a bomb is not decoded
        raise _other_size(opened.size, height, width)
    picture = loaded(opened)
    if picture.size != (width, height):
        raise _other_size(picture.size, height, width)
    if picture.mode.startswith(("I", "F")):
        raise UnsupportedPictureError("the picture has more than 8 bits a pixel; 8 are taken")
    if picture.has_transparency_data:
        opacity = np.asarray(picture.convert("RGBA"))[..., 3]
        if opacity.min() < 255:
            raise UnsupportedPictureError("the picture is transparent in places; save it opaque")
    rgb = np.asarray(picture.convert("RGB"))
    return luma(rgb) if channels == 1 else rgb


def _other_size(size: tuple[int, int], height: int, width: int) -> UnsupportedPictureError:
    return UnsupportedPictureError(
        f"the picture has {size[1]} rows and {size[0]} columns; its pixels are taken as they are, "
        f"{height} rows and {width} columns"
    )

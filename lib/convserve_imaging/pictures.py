"""Turns a picture file of several formats into pixels of the size that a net expects.

A JPEG gives what `photos` makes of it, byte for byte. A PNG, a WebP, or the first frame of a GIF is
decoded whole, becomes RGB on white paper where it is transparent, is reduced by the mean of n x n
pixels, n the largest number that leaves no side smaller than what is asked for, and brought to that
size by the same bilinear convolution; then it is turned upright by its Exif orientation. Of 16 bits
a sample the upper 8 are used. ICC profiles and gamma are not applied.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from convserve_imaging import jpeg, photos
from convserve_imaging.errors import (
    DamagedPictureError,
    PictureError,
    UnsupportedPictureError,
)
from convserve_imaging.exif import upright
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES, MAX_PIXELS
from convserve_imaging.luma import luma
from convserve_imaging.picture_files import open_file
from convserve_imaging.resizing import resized

FORMATS = ("PNG", "WEBP", "GIF")
"""What is decoded beside JPEG, by Pillow's names."""

#: Rows that become RGB at a time: what is held beside the decoded picture is small.
_BAND = 64

Pixels = npt.NDArray[np.uint8]


def decode(
    data: bytes,
    height: int,
    width: int,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
    channels: int = 3,
) -> Pixels:
    """Returns the pixels of a file as a net expects them.

    Args:
        data: the whole file: JPEG, PNG, WebP or GIF.
        height: rows of the result, 1 or more.
        width: columns of the result, 1 or more.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory for decoding it and bringing it to size, by the header.
        channels: of the result, 3 (RGB) or 1 (grey: the luma of that RGB).

    Returns:
        uint8 [height, width, channels], 0 to 255, not scaled.

    Raises:
        NotAPictureError: it is of none of the formats; the message says what it looks like.
        TooManyPixelsError: it is too large by its header; nothing was decoded.
        UnsupportedPictureError: a variety of its format that is not supported.
        TruncatedPictureError: a part of it is missing.
        DamagedPictureError: its data contradict themselves.
    """
    if data.startswith(jpeg.SOI):
        return photos.decode(data, height, width, max_pixels, max_decoder_bytes, channels)
    opened = open_file(data, FORMATS, max_pixels)
    lies = opened.orientation >= 5  # rows and columns are exchanged
    rows, columns = (width, height) if lies else (height, width)
    times = max(1, min(opened.size[0] // columns, opened.size[1] // rows))
    reduced = [-(-side // times) for side in opened.size]
    # Resizing holds three copies in RGB, and the result.
    after = 9 * reduced[0] * reduced[1] + 3 * rows * columns
    picture = opened.decode(max(0, max_decoder_bytes - after))
    # The last row and column may stand for fewer pixels than the others.
    part = (opened.size[1] / times, opened.size[0] / times)
    pixels = resized(_reduced(picture, times), rows, columns, part)
    turned = upright(pixels, opened.orientation)
    return luma(turned) if channels == 1 else turned


def upright_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns height and width of a file's picture by its header, turned upright.

    Args:
        data: the whole file: JPEG, PNG, WebP or GIF.
        max_pixels: most pixels by the header.

    Raises:
        NotAPictureError, TooManyPixelsError, UnsupportedPictureError, TruncatedPictureError,
            DamagedPictureError: as `decode`.
    """
    if data.startswith(jpeg.SOI):
        header = jpeg.read_header(data)
        size, orientation = (header.width, header.height), header.orientation
    else:
        opened = open_file(data, FORMATS, max_pixels)
        size, orientation = opened.size, opened.orientation
    return size if orientation >= 5 else size[::-1]


def _reduced(picture: Image.Image, times: int) -> Pixels:
    """Returns uint8 [H, W, 3], each pixel the mean of `times` x `times`, on white."""
    step = max(1, _BAND // times) * times
    bands = []
    for top in range(0, picture.height, step):
        band = picture.crop((0, top, picture.width, min(top + step, picture.height)))
        try:
            bands.append(np.asarray(_rgb(band).reduce(times)))
        except PictureError:
            raise
        except (OSError, ValueError) as error:  # Pillow's, of what a header left open
            raise DamagedPictureError(f"the {picture.mode} picture is damaged: {error}") from error
    return np.concatenate(bands)


def _rgb(picture: Image.Image) -> Image.Image:
    """Returns it in RGB, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey
        if picture.has_transparency_data:
            raise UnsupportedPictureError(
                "the picture has 16 bits of grey and a transparent level; save it opaque"
            )
        upper = (np.asarray(picture) >> 8).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")

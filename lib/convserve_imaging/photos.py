"""Turns JPEG bytes into pixels of the size that a net expects.

The picture is decoded at the smallest scale of libjpeg-turbo's (M/8, in the DCT) that is not
smaller than what is asked for, brought to that size by bilinear convolution (triangle filter, its
support widened when shrinking, so that nothing aliases; the aspect ratio is not kept), and turned
upright by its Exif orientation. The same bytes give the same pixels on every CPU: both libraries
compute in integers.

CMYK and YCCK become RGB by R = C * K / 255 of the values as stored, which by Adobe's convention
are inverted (255: no ink); files without Adobe's marker are read by it too, as browsers do. ICC
profiles are not applied: they change a few levels at several times the cost of decoding.

Nothing may be missing from a file, not even its end marker. Stray bytes between the segments of the
header are ignored; any other contradiction in the data is an error, since half a picture would
get an answer like a whole one.
"""

import numpy as np
import numpy.typing as npt
import simplejpeg  # noqa: F401 - jpeg_pixels can do without; a net must not get other pixels then

from convserve_imaging import jpeg_pixels
from convserve_imaging.exif import upright
from convserve_imaging.jpeg import read_header
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES, MAX_PIXELS
from convserve_imaging.luma import luma
from convserve_imaging.resizing import resized

#: Rows that become RGB at a time: products take four times the memory of a picture.
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
    """Returns the pixels of a JPEG file as a net expects them.

    Releases the GIL for nearly all of its time, so that threads decode side by side.

    Args:
        data: the whole file.
        height: rows of the result, 1 or more.
        width: columns of the result, 1 or more.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory for its coefficients, for what comes out of the decoder, and
            for bringing that to size, by the file's header.
        channels: of the result, 3 (RGB) or 1 (grey: the luma of that RGB).

    Returns:
        uint8 [height, width, channels], 0 to 255, not scaled.

    Raises:
        NotAPictureError: it is not a JPEG; the message says what it looks like.
        TooManyPixelsError: it is too large by its header; nothing was decoded.
        UnsupportedPictureError: a variety of JPEG that is not supported.
        TruncatedPictureError: a part of it is missing.
        DamagedPictureError: its data contradict themselves.
    """
    header = read_header(data)
    lies = header.orientation >= 5  # rows and columns are exchanged
    rows, columns = (width, height) if lies else (height, width)
    jpeg_pixels.check_size(header, max_pixels)
    colours = "CMYK" if header.components == 4 else "RGB"
    # Resizing holds three copies in RGB, and the result.
    picture = jpeg_pixels.decode(
        header, rows, columns, colours, max_decoder_bytes, 9, 3 * rows * columns
    )
    if colours == "CMYK":
        picture = _rgb(picture)
    turned = upright(resized(picture, rows, columns), header.orientation)
    return luma(turned) if channels == 1 else turned


def _rgb(cmyk: Pixels) -> Pixels:
    """Returns uint8 [H, W, 3] for inverted uint8 [H, W, 4]."""
    rgb: Pixels = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for row in range(0, len(cmyk), _BAND):
        band = cmyk[row : row + _BAND]
        products = band[:, :, :3].astype(np.uint16) * band[:, :, 3:]
        rgb[row : row + _BAND] = (products + 127) // 255
    return rgb

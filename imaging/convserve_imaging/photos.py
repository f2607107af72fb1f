"""JPEG bytes become pixels of the size that a net takes.

The picture is decoded at the smallest scale of libjpeg-turbo's (M/8, in the DCT) that is not
smaller than what is asked for, brought to that size by bilinear convolution (triangle filter, its
support widened when shrinking, so that nothing aliases; the aspect ratio is not kept), and turned
upright by its Exif orientation. The same bytes give the same pixels on every CPU: both libraries
compute in integers.

CMYK and YCCK become RGB by R = C * K / 255 of the values as stored, which by Adobe's convention
are inverted (255: no ink); files without Adobe's marker are read by it too, as browsers do. ICC
profiles are not applied: they change a few levels at several times the cost of decoding.

Nothing may be missing from a file, not even its end marker. Stray bytes between the segments of the
header are passed over; any other contradiction in the data is an error, since half a picture would
get an answer like a whole one.
"""

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image, UnidentifiedImageError

from convserve_imaging.errors import (
    DamagedPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.jpeg import Header, read_header
from convserve_imaging.luma import luma

MAX_PIXELS = 1 << 26
"""Largest picture taken by default, width times height: 8,192 x 8,192."""

MAX_DECODER_BYTES = 256 << 20
"""Most memory by default that a decoder may need for one picture's coefficients or its output."""

#: Passes over the picture that its scans may cost, in units of the largest picture.
_MAX_PASSES = 16

_BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)

Pixels = npt.NDArray[np.uint8]


def decode(
    data: bytes,
    height: int,
    width: int,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
    channels: int = 3,
) -> Pixels:
    """Makes of a JPEG file the pixels that a net takes.

    Releases the GIL for nearly all of its time, so that threads decode side by side.

    Args:
        data: the whole file.
        height: rows of the result, 1 or more.
        width: columns of the result, 1 or more.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory for its coefficients or for what comes out of the decoder,
            by the file's header. What resizing takes comes on top, twice the latter at most.
        channels: of the result, 3 (RGB) or 1 (grey: the luma of that RGB).

    Returns:
        uint8 [height, width, channels], 0 to 255, not scaled.

    Raises:
        NotAPictureError: it is no JPEG; the message says what it looks like.
        TooManyPixelsError: it is too large by its header; nothing was decoded.
        UnsupportedPictureError: a variety of JPEG that is not taken.
        TruncatedPictureError: a part of it is missing.
        DamagedPictureError: its data contradict themselves.
    """
    header = read_header(data)
    lies = header.orientation >= 5  # rows and columns change places
    rows, columns = (width, height) if lies else (height, width)
    _check_size(header, max_pixels)
    _check_memory(header, rows, columns, max_decoder_bytes)
    picture = _resized(_decoded(header, rows, columns), rows, columns)
    upright = _upright(picture, header.orientation)
    return luma(upright) if channels == 1 else upright


def _check_size(header: Header, max_pixels: int) -> None:
    pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    if pixels > max_pixels:
        raise TooManyPixelsError(f"the JPEG has {size}; at most {max_pixels:,} are taken")
    if len(header.data) < header.least_bytes:
        raise TruncatedPictureError(
            f"the JPEG is truncated: {len(header.data):,} bytes cannot hold its {size}"
        )
    if header.scans > max(1, _MAX_PASSES * MAX_PIXELS // pixels):
        raise TooManyPixelsError(
            f"the JPEG has {size} in {header.scans} scans; "
            f"at most {_MAX_PASSES * MAX_PIXELS // pixels} are taken at that size"
        )


def _check_memory(header: Header, rows: int, columns: int, most: int) -> None:
    output = _output_bytes(header, rows, columns)
    needed = max(output, header.coefficient_bytes)
    if needed <= most:
        return
    kind = ""
    if header.lossless:
        kind = " and is lossless"
    elif header.coefficient_bytes > output:
        kind = " and is progressive"
    raise TooManyPixelsError(
        f"the JPEG has {header.width} x {header.height} pixels{kind}: decoding takes "
        f"{-(-needed >> 20)} MiB of memory, at most {most >> 20} are given"
    )


def _output_bytes(header: Header, rows: int, columns: int) -> int:
    """Size of what the decoder gives, at the scale that it is asked for."""
    eighths = 8
    if not header.lossless:  # which cannot be decoded scaled
        while (
            eighths > 1
            and _scaled(header.height, eighths - 1) >= min(rows, header.height)
            and _scaled(header.width, eighths - 1) >= min(columns, header.width)
        ):
            eighths -= 1
    channels = 4 if header.components == 4 else 3
    return _scaled(header.height, eighths) * _scaled(header.width, eighths) * channels


def _scaled(size: int, eighths: int) -> int:
    return -(-size * eighths // 8)


def _decoded(header: Header, rows: int, columns: int) -> Pixels:
    """Returns uint8 [H, W, 3], no smaller than rows x columns unless the file itself is."""
    scale = {} if header.lossless else _scale(header, rows, columns)
    colours = "CMYK" if header.components == 4 else "RGB"
    try:
        picture: Pixels = simplejpeg.decode_jpeg(header.data, colours, **scale)
    except ValueError as error:
        if "subsampling" in str(error):
            return _decoded_by_pillow(header, rows, columns)
        raise _explained(error) from error
    return _rgb(picture) if colours == "CMYK" else picture


def _scale(header: Header, rows: int, columns: int) -> dict[str, int]:
    return {
        "min_height": min(rows, header.height),
        "min_width": min(columns, header.width),
        "min_factor": 1,
    }


def _decoded_by_pillow(header: Header, rows: int, columns: int) -> Pixels:
    """The same for legal sampling factors that TurboJPEG's interface has no name for (4:1:0)."""
    try:
        with Image.open(io.BytesIO(header.data), formats=["JPEG"]) as picture:
            picture.draft("RGB", (columns, rows))
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise DamagedPictureError("the JPEG is damaged: its header contradicts itself") from error
    except Exception as error:  # Pillow's decoders raise anything at all on damaged files
        raise _explained(error) from error


def _explained(error: Exception) -> PictureError:
    """Returns the error for what a decoder says."""
    said = str(error).removeprefix("Corrupt JPEG data: ")
    if "remature end" in said or "truncated" in said.lower():
        return TruncatedPictureError(f"the JPEG is truncated: {said}")
    return DamagedPictureError(f"the JPEG is damaged: {said}")


def _rgb(cmyk: Pixels) -> Pixels:
    """Returns uint8 [H, W, 3] for inverted uint8 [H, W, 4]."""
    products = cmyk[:, :, :3].astype(np.uint16) * cmyk[:, :, 3:]
    return ((products + 127) // 255).astype(np.uint8)


def _resized(picture: Pixels, rows: int, columns: int) -> Pixels:
    height, width, _ = picture.shape
    if (height, width) == (rows, columns):
        return picture
    source = ImageData(width, height, PixelType.U8x3, picture.tobytes())
    target = ImageData(columns, rows, PixelType.U8x3)
    Resizer().resize(source, target, _BILINEAR)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(rows, columns, 3)


def _upright(picture: Pixels, orientation: int) -> Pixels:
    if orientation >= 5:
        picture = picture.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)

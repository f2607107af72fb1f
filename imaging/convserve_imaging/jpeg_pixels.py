"""The pixels of a JPEG whose header was read: checked against limits, then decoded strictly.

Nothing may be missing from a file, and its data may not contradict themselves: what libjpeg would
warn of is an error, since half a picture would get an answer like a whole one.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from convserve_imaging.errors import (
    DamagedPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.jpeg import Header

try:
    import simplejpeg
except ModuleNotFoundError:  # clients are installed without; servers and trainers have it
    simplejpeg = None

MAX_PIXELS = 1 << 26
"""Largest picture taken by default, width times height: 8,192 x 8,192."""

MAX_DECODER_BYTES = 256 << 20
"""Most memory by default that decoding one picture may take."""

#: Passes over the picture that its scans may cost, in units of the largest picture; those of
#: arithmetic codes cost five times as much.
_MAX_PASSES = 16
_ARITHMETIC_COST = 5

MAX_PIXELS_PER_BYTE = 4096
"""Most pixels, in all scans, that one byte of an arithmetic-coded or progressive picture may stand
for. Arithmetic codes and runs of empty blocks have no other bound: 122 bytes may be 43 megapixels
and cost as much time. Flat pictures of 12 megapixels have 1,700 (progressive) and 3,400 (with
arithmetic codes) in ten scans, clear skies and white pages 1,100 in one, photographs under 400."""

#: Pixels, in all scans, of which any file may have as many.
_FREE_PIXELS = 1 << 16

Pixels = npt.NDArray[np.uint8]


def check_size(header: Header, max_pixels: int) -> None:
    """Checks what decoding would cost in time, by the header.

    Raises:
        TooManyPixelsError: it is too large, or has too many scans for its size.
        TruncatedPictureError: the file is too short for its size.
    """
    pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    if pixels > max_pixels:
        raise TooManyPixelsError(f"the JPEG has {size}; at most {max_pixels:,} are taken")
    if len(header.data) < header.least_bytes:
        raise TruncatedPictureError(
            f"the JPEG is truncated: {len(header.data):,} bytes cannot hold its {size}"
        )
    scans = _MAX_PASSES * MAX_PIXELS // pixels // (_ARITHMETIC_COST if header.arithmetic else 1)
    if header.scans > max(1, scans):
        raise TooManyPixelsError(
            f"the JPEG has {size} in {header.scans} scans; "
            f"at most {max(1, scans)} are taken at that size"
        )
    most = _FREE_PIXELS + MAX_PIXELS_PER_BYTE * len(header.data)
    if (header.arithmetic or header.buffered) and pixels * header.scans > most:
        raise TooManyPixelsError(
            f"the JPEG has {size} in {header.scans} scans of {len(header.data):,} bytes; at most "
            f"{MAX_PIXELS_PER_BYTE:,} pixels are taken for a byte"
        )


def check_memory(header: Header, needed: int, most: int) -> None:
    """Checks what decoding would take in memory.

    Args:
        header: of the file.
        needed: bytes for the decoded picture and what is made of it. The coefficients of a
            progressive one come before, beside the decoded picture alone.
        most: bytes that are given.

    Raises:
        TooManyPixelsError: it is more than that.
    """
    if needed <= most:
        return
    kind = ""
    if header.lossless:
        kind = " and is lossless"
    elif header.coefficient_bytes > needed // 2:
        kind = " and is progressive"
    raise TooManyPixelsError(
        f"the JPEG has {header.width} x {header.height} pixels{kind}: decoding takes "
        f"{-(-needed >> 20)} MiB of memory, at most {most >> 20} are given"
    )


def decoded_size(header: Header, rows: int, columns: int) -> tuple[int, int]:
    """Returns rows and columns of what `decode` makes, which are no fewer than those asked for."""
    eighths = 8
    if not header.lossless:  # which cannot be decoded scaled
        while (
            eighths > 1
            and _scaled(header.height, eighths - 1) >= min(rows, header.height)
            and _scaled(header.width, eighths - 1) >= min(columns, header.width)
        ):
            eighths -= 1
    return _scaled(header.height, eighths), _scaled(header.width, eighths)


def _scaled(size: int, eighths: int) -> int:
    return -(-size * eighths // 8)


def decode(header: Header, rows: int, columns: int, colours: str) -> Pixels:
    """Decodes at the smallest scale of libjpeg-turbo's that is not smaller than what is asked for.

    Args:
        header: of the file.
        rows: least of the result, as stored; those of the file where it has fewer.
        columns: least of the result.
        colours: "RGB" or "GRAY" (the luma); "CMYK" (inverted, as Adobe stores it) for 4 components.

    Returns:
        uint8 [H, W, C] of `decoded_size`.

    Raises:
        TruncatedPictureError: a part of it is missing.
        DamagedPictureError: its data contradict themselves.
    """
    if simplejpeg is None:
        return _decoded_by_pillow(header, rows, columns, colours)
    scale = {} if header.lossless else _scale(header, rows, columns)
    try:
        picture: Pixels = simplejpeg.decode_jpeg(header.data, colours, **scale)
    except ValueError as error:
        if "subsampling" in str(error):
            return _decoded_by_pillow(header, rows, columns, colours)
        raise _explained(error) from error
    return picture


def _scale(header: Header, rows: int, columns: int) -> dict[str, int]:
    return {
        "min_height": min(rows, header.height),
        "min_width": min(columns, header.width),
        "min_factor": 1,
    }


def _decoded_by_pillow(header: Header, rows: int, columns: int, colours: str) -> Pixels:
    """The same for legal sampling factors that TurboJPEG's interface has no name for (4:1:0)."""
    mode = {"GRAY": "L"}.get(colours, colours)
    try:
        with Image.open(io.BytesIO(header.data), formats=["JPEG"]) as picture:
            picture.draft(mode, (columns, rows))
            pixels = np.asarray(picture.convert(mode))
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise DamagedPictureError("the JPEG is damaged: its header contradicts itself") from error
    except Exception as error:  # Pillow's decoders raise anything at all on damaged files
        raise _explained(error) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _explained(error: Exception) -> PictureError:
    """Returns the error for what a decoder says."""
    said = str(error).removeprefix("Corrupt JPEG data: ")
    if "remature end" in said or "truncated" in said.lower():
        return TruncatedPictureError(f"the JPEG is truncated: {said}")
    return DamagedPictureError(f"the JPEG is damaged: {said}")

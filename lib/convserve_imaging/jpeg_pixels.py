"""The pixels of a JPEG whose header was read: checked against limits, then decoded strictly.

Nothing may be missing from a file, and its data may not contradict themselves: every warning of
libjpeg is an error, since half a picture would get an answer like a whole one.
"""

import math
import re

import numpy as np
import numpy.typing as npt

from convserve_imaging import jpeg_intervals, jpeg_pillow
from convserve_imaging.errors import PictureError, TooManyPixelsError, TruncatedPictureError
from convserve_imaging.jpeg import Header

try:
    import simplejpeg
except ModuleNotFoundError:  # clients are installed without; servers and trainers have it
    simplejpeg = None

MAX_PIXELS = 1 << 26
"""Largest accepted picture by default, width times height: 8,192 x 8,192."""

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
FREE_PIXELS = 1 << 16

_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd")

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
        raise TooManyPixelsError(f"the JPEG has {size}; expected at most {max_pixels:,}")
    if len(header.data) < header.least_bytes:
        raise TruncatedPictureError(
            f"the JPEG is truncated: {len(header.data):,} bytes cannot hold its {size}"
        )
    scans = _MAX_PASSES * MAX_PIXELS // pixels // (_ARITHMETIC_COST if header.arithmetic else 1)
    if header.scans > max(1, scans):
        raise TooManyPixelsError(
            f"the JPEG has {size} in {header.scans} scans; "
            f"expected at most {max(1, scans)} at that size"
        )
    most = FREE_PIXELS + MAX_PIXELS_PER_BYTE * len(header.data)
    if (header.arithmetic or header.buffered) and pixels * header.scans > most:
        raise TooManyPixelsError(
            f"the JPEG has {size} in {header.scans} scans of {len(header.data):,} bytes; expected "
            f"at most {MAX_PIXELS_PER_BYTE:,} pixels for a byte"
        )


def decode(
    header: Header,
    rows: int,
    columns: int,
    colours: str,
    max_bytes: int,
    after: int,
    result: int = 0,
) -> Pixels:
    """Decodes at the smallest scale of the decoder's that is not smaller than what is asked for.

    Args:
        header: of the file.
        rows: least of the result, as stored; those of the file where it has fewer.
        columns: least of the result.
        colours: "RGB" or "GRAY" (the luma); "CMYK" (inverted, as Adobe stores it) for 4 components.
        max_bytes: most memory that decoding may take, and what is made of the decoded picture.
        after: bytes a pixel that the latter takes, the decoded picture included.
        result: bytes that it takes beside, whatever the size.

    Returns:
        uint8 [H, W, C].

    Raises:
        TooManyPixelsError: it would take more memory; nothing was decoded.
        TruncatedPictureError: a part of it is missing.
        DamagedPictureError: its data contradict themselves.
    """
    rows, columns = min(rows, header.height), min(columns, header.width)
    channels = {"GRAY": 1, "RGB": 3, "CMYK": 4}[colours]
    size = _decoded_size(header, rows, columns)
    _check_memory(header, channels * math.prod(size), after * math.prod(size) + result, max_bytes)
    if simplejpeg is not None:
        try:
            return _decoded(header, header.data, rows, columns, colours)
        except ValueError as error:
            # Legal sampling factors that TurboJPEG's interface has no name for (4:1:0).
            if "subsampling" not in str(error):
                return _decoded_without_stray(header, error, rows, columns, colours)
    size = jpeg_pillow.decoded_size(header, rows, columns)
    whole = 4 * header.width * header.height
    _check_memory(header, whole, after * math.prod(size) + result, max_bytes)
    jpeg_pillow.check(header, thorough=simplejpeg is not None)
    pixels = jpeg_pillow.decode(header, rows, columns, colours)
    return 255 - pixels if colours == "CMYK" else pixels


def _check_memory(header: Header, decoded: int, after: int, most: int) -> None:
    """Checks what decoding takes, with the coefficients of several scans, and what follows it."""
    needed = max(header.coefficient_bytes + decoded, after)
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


def _decoded_size(header: Header, rows: int, columns: int) -> tuple[int, int]:
    eighths = 8
    if not header.lossless:  # which cannot be decoded scaled
        while (
            eighths > 1
            and _scaled(header.height, eighths - 1) >= rows
            and _scaled(header.width, eighths - 1) >= columns
        ):
            eighths -= 1
    return _scaled(header.height, eighths), _scaled(header.width, eighths)


def _scaled(size: int, eighths: int) -> int:
    return -(-size * eighths // 8)


def _decoded(header: Header, data: bytes, rows: int, columns: int, colours: str) -> Pixels:
    """Returns uint8 [H, W, C] by libjpeg-turbo; ValueError for all that it warns of."""
    if header.lossless:
        # Its decoder converts no colours.
        grey = header.components == 1 and colours == "RGB"
        picture: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else colours)
        return picture.repeat(3, axis=2) if grey else picture
    scaled: Pixels = simplejpeg.decode_jpeg(
        data, colours, min_height=rows, min_width=columns, min_factor=1
    )
    return scaled


def _decoded_without_stray(
    header: Header, error: ValueError, rows: int, columns: int, colours: str
) -> Pixels:
    """Decodes what is whole but for a few bytes that are left over; raises for any other error."""
    data = _without_few_stray_bytes(header, error)
    if data is None:
        raise jpeg_pillow.explained(error) from error
    try:
        return _decoded(header, data, rows, columns, colours)
    except ValueError as other:
        raise jpeg_pillow.explained(other) from other


def _without_few_stray_bytes(header: Header, error: ValueError) -> bytes | None:
    """Returns the file without the few bytes that are left over, if that is the reported fault.

    Those of each interval are known only when it is decoded on its own.
    """
    if _LEFT_OVER.search(str(error)) is None or header.buffered or header.lossless:
        return None
    try:
        parts = jpeg_intervals.intervals(header)
        pictures = jpeg_intervals.pictures(header, parts, twice=True)
    except PictureError:
        return None
    kept = []
    at = 0
    for picture, part in zip(pictures, parts, strict=True):
        end = part.end
        try:
            simplejpeg.decode_jpeg(picture, "CMYK" if header.components == 4 else "GRAY")
        except ValueError as fault:
            found = _LEFT_OVER.search(str(fault))
            count = int(found[1]) - jpeg_intervals.PADDING * part.restarted if found else -1
            if not 0 <= count <= jpeg_pillow.MAX_STRAY_BYTES:
                return None
            end -= count
        kept.append(header.data[at:end])
        at = part.end
    return b"".join((*kept, header.data[at:]))

"""Pillow's decoder made strict, for JPEGs that libjpeg-turbo's interface has no name for.

Pillow decodes every sampling (4:1:0), and drops the warnings of libjpeg. Whether data are missing,
left over or not valid codes is therefore found from outside: what follows the data of an interval
must not matter to its pixels, nor what its Huffman tables leave free, and the data's last bytes
must. Beyond the warnings of libjpeg, the means of blocks must be valid levels.
"""

import io
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from convserve_imaging import jpeg_intervals, jpeg_tables
from convserve_imaging.errors import (
    DamagedPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.jpeg import Header
from convserve_imaging.jpeg_intervals import END

#: What a decoder would read where data are missing: bits in two patterns that change the picture.
_PROBES = (b"\x55" * 16, b"\x2a" * 16)

MAX_STRAY_BYTES = 4
"""Most bytes that may be left over at the end of a scan, or before a restart marker. Some webcams
and scanners write one or two there. Of damage that libjpeg notices (bytes changed, overwritten or
lost at random in 360 photographs, with and without restart markers) 2 % leave as few."""

#: Bytes at the end of an interval of which some must matter. Of several scans they are more, since
#: they may say no more than that there is nothing, or change levels by less than rounding does.
_LAST = MAX_STRAY_BYTES + 1
_LAST_OF_MANY = 16

#: What they are combined with, one after the other, until one makes another picture.
_OTHERS = (0x55, 0x2A, 0x7F, 0x33, 0x4C, 0x0F, 0x70, 0x5A, 0x01, 0x40)

#: Pixels, in all passes, that looking at a picture may cost, 17 megapixels in one scan; and where
#: it is the user's own.
_MAX_PASSES = 5 << 24
_MOST_PASSES = 16 << 26


def decode(header: Header, rows: int, columns: int, colours: str) -> npt.NDArray[np.uint8]:
    """Decodes at the smallest scale of 1, 1/2, 1/4 and 1/8 that is not smaller than asked for.

    Args:
        header: of the file.
        rows: least of the result.
        columns: least of the result.
        colours: "RGB", "GRAY" or "CMYK".

    Returns:
        uint8 [H, W, C]; CMYK as Pillow gives it.

    Raises:
        DamagedPictureError: it cannot be decoded.
    """
    mode = {"GRAY": "L"}.get(colours, colours)
    with _opened(header.data) as picture:
        picture.draft(mode, (columns, rows))
        pixels = np.asarray(_loaded(picture).convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def decoded_size(header: Header, rows: int, columns: int) -> tuple[int, int]:
    """Returns rows and columns of what `decode` makes. Source: Pillow's JpegImageFile.draft."""
    scale = max(1, min(header.width // columns, header.height // rows))
    divisor = next(each for each in (8, 4, 2, 1) if scale >= each)
    return -(-header.height // divisor), -(-header.width // divisor)


def check(header: Header, *, thorough: bool = True) -> None:
    """Checks that no data are missing and none are left over.

    Takes five times as long as decoding or more, and the memory of the picture. Of arithmetic codes
    only what is left over is noticed: their coders leave out zeros at the end.

    Args:
        header: of the file.
        thorough: whether to look for what is left over too, in each interval of each scan.

    Raises:
        TruncatedPictureError: data are missing.
        DamagedPictureError: data are left over, or contradict the header.
        UnsupportedPictureError: it has too many restart markers.
        TooManyPixelsError: it would take too long.
    """
    most = jpeg_intervals.MAX_INTERVALS if thorough else 1 << 16
    parts = jpeg_intervals.intervals(header, most)
    scans = sum(not part.restarted for part in parts)
    passes = 4 + (len(parts) if thorough and header.buffered else 1)
    if passes * scans * header.width * header.height > (_MAX_PASSES if thorough else _MOST_PASSES):
        raise TooManyPixelsError(
            f"the JPEG has {header.width} x {header.height} pixels in {scans} scans, with "
            f"{len(parts) - scans} restart markers: too many to look for damage in each part"
        )
    if not header.lossless and header.components < 4:
        _check_means(header)
    if header.buffered or not thorough:
        expected = _digest(header.data)
        if not header.arithmetic:
            _check_enough(header.data, [part.end for part in parts], expected)
            _check_codes(header.data, expected)
        for part in parts if thorough else ():
            _check_rest(header.data, part.start, part.end, _LAST_OF_MANY, expected)
        return
    for file, part in zip(jpeg_intervals.pictures(header, parts), parts, strict=True):
        expected = _digest(file)
        end = len(file) - len(END)
        if not header.arithmetic:
            _check_enough(file, [end], expected)
            _check_codes(file, expected)
        _check_rest(file, end - (part.end - part.start), end, _LAST, expected)


def _check_enough(data: bytes, ends: list[int], expected: int) -> None:
    """Checks that data suffice: followed by something else, they give the same picture."""
    whole = memoryview(data)
    for probe in _PROBES:
        pieces: list[bytes | memoryview] = []
        at = 0
        for end in ends:
            pieces += (whole[at:end], probe)
            at = end
        if _digest(b"".join((*pieces, whole[at:]))) != expected:
            raise TruncatedPictureError("the JPEG is truncated: premature end of data segment")


def _check_codes(data: bytes, expected: int) -> None:
    """Checks that no bits without a code are read."""
    if _digest(jpeg_tables.with_whole_codes(data)) != expected:
        raise DamagedPictureError("the JPEG is damaged: bad Huffman code")


def _check_means(header: Header) -> None:
    """Checks that the mean of each block is a level of 8 bits.

    Means are coded as differences, so that damage which decodes shifts all that comes after it.
    """
    data, step = jpeg_tables.with_means_alone(header.data)
    with _opened(data) as picture:
        picture.draft("YCbCr", (max(1, header.width // 8), max(1, header.height // 8)))
        extremes = _loaded(picture).getextrema()
    low, high = extremes[0] if isinstance(extremes[0], tuple) else extremes
    # What rounding here, and in the file, may have added: a step and a half.
    if step and max(128 - low, high - 128) * step > 128 + 1.5 * step:
        raise DamagedPictureError("the JPEG is damaged: its levels run out of their range")


def _check_rest(data: bytes, start: int, end: int, last: int, expected: int) -> None:
    """Checks that the last bytes of an interval matter: with others, the picture is another."""
    cut = end - last
    while cut > start and data[cut - 1] == 0xFF:  # its stuffed zero stays with it
        cut -= 1
    if cut <= start:
        return
    for other in _OTHERS:
        rest = bytes((byte ^ other) & 0x7F for byte in data[cut:end])
        if _digest(data[:cut] + rest + data[end:]) != expected:
            return
    raise DamagedPictureError("the JPEG is damaged: extraneous bytes before a marker")


def _digest(data: bytes) -> int:
    """Returns a checksum of the decoded picture."""
    digest = 0
    with _opened(data) as picture:
        picture.draft("YCbCr", None)
        _loaded(picture)
        for top in range(0, picture.height, 64):
            band = picture.crop((0, top, picture.width, min(top + 64, picture.height)))
            digest = zlib.crc32(band.tobytes(), digest)
    return digest


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=["JPEG"])
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise DamagedPictureError("the JPEG is damaged: its header contradicts itself") from error
    except Exception as error:  # Pillow's decoders raise anything at all on damaged files
        raise explained(error) from error


def _loaded(picture: Image.Image) -> Image.Image:
    try:
        picture.load()
    except Exception as error:  # see _opened
        raise explained(error) from error
    return picture


def explained(error: Exception) -> PictureError:
    """Returns the error for a message of a decoder."""
    message = str(error).removeprefix("Corrupt JPEG data: ")
    if "remature end" in message or "truncated" in message.lower():
        return TruncatedPictureError(f"the JPEG is truncated: {message}")
    return DamagedPictureError(f"the JPEG is damaged: {message}")

"""Reads the header of a PNG: all that must be known before a pixel is decoded.

Source: W3C, Portable Network Graphics (PNG) Specification, third edition: 5.3 (layout of chunks),
11.2.1 (IHDR), 11.3.4.5 (eXIf).
"""

import struct
import zlib
from dataclasses import dataclass
from types import MappingProxyType

from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.exif import orientation
from convserve_imaging.signatures import looks_like

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 16_384
"""Most chunks of a file: libpng writes one for 8 KiB, so that these hold 128 MiB."""

#: Bytes a pixel that Pillow decodes to, by colour type and bits a sample. It holds one bit in a
#: byte, and three channels in four.
_DECODED = MappingProxyType(
    {
        **{(0, depth): 1 for depth in (1, 2, 4, 8)},
        (0, 16): 2,
        **{(3, depth): 1 for depth in (1, 2, 4, 8)},
        **{(colours, depth): 4 for colours in (2, 4, 6) for depth in (8, 16)},
    }
)
_CHANNELS = MappingProxyType({0: 1, 2: 3, 3: 1, 4: 2, 6: 4})

#: Deflate makes 258 bytes of 2 bits at best. Source: RFC 1951, 3.2.5.
_MOST_DEFLATED = 1032

#: Chunks beside the pixels' that say what they mean.
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a PNG states.

    Attributes:
        width: columns, 1 or more, as stored: before `orientation`.
        height: rows, 1 or more, as stored.
        decoded_bytes: memory that the decoded picture takes.
        least_bytes: bytes that the file must have at least to hold the pixels of its header.
        orientation: of Exif, 1 to 8: which corner comes first; 1 where it is missing or invalid.
        data: the file with those chunks alone that make its pixels, whose data are in one.
    """

    width: int
    height: int
    decoded_bytes: int
    least_bytes: int
    orientation: int
    data: bytes


def read_header(data: bytes) -> Header:
    """Reads the chunks of a PNG; decompresses nothing.

    Args:
        data: the whole file.

    Raises:
        NotAPictureError: it is something else; the message says what it looks like.
        TruncatedPictureError: a part of it is missing.
        TooManyPixelsError: it has more chunks than `MAX_CHUNKS`.
        DamagedPictureError: the header contradicts itself.
    """
    if not data.startswith(SIGNATURE):
        raise NotAPictureError(f"not a PNG: it looks like {looks_like(data)}")
    whole = memoryview(data)
    kept: list[memoryview] = [whole[: len(SIGNATURE)]]
    pixels: list[memoryview] = []
    upright = 1
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length = int.from_bytes(whole[at : at + 4], "big")
        kind = bytes(whole[at + 4 : at + 8])
        end = at + 12 + length
        if end > len(data):
            raise TruncatedPictureError(
                f"the PNG is truncated: its {len(data):,} bytes end before its last chunk"
            )
        if at == len(SIGNATURE) and (kind != b"IHDR" or length != 13):
            raise DamagedPictureError("the PNG's header is damaged: it does not begin with IHDR")
        if kind == b"IDAT":
            pixels.append(whole[at + 8 : end - 4])
        elif kind in _KEPT:
            kept.append(whole[at:end])
        elif kind == b"eXIf":
            upright = orientation(whole[at + 8 : end - 4])
        at = end
        if kind == b"IEND":
            break
    else:
        raise TooManyPixelsError(f"the PNG has more than {MAX_CHUNKS:,} chunks")
    width, height, decoded, stored = _size(whole)
    parts = (*kept, *_one_chunk(pixels), _END)
    least = stored // _MOST_DEFLATED
    return Header(width, height, decoded, least, upright, b"".join(parts))


def decoded_bytes(data: bytes) -> int:
    """Returns the memory that the decoded picture takes; 0 where the header is damaged."""
    try:
        return _size(memoryview(data))[2]
    except (PictureError, struct.error):
        return 0


def _size(data: memoryview) -> tuple[int, int, int, int]:
    """Returns columns, rows, and bytes of the picture when decoded and before it was deflated."""
    width, height, depth, colours = struct.unpack_from(">IIBB", data, len(SIGNATURE) + 8)
    each = _DECODED.get((colours, depth))
    if each is None:
        raise DamagedPictureError(
            f"the PNG's header is damaged: there is no colour type {colours} of {depth} bits"
        )
    if not width or not height:
        raise DamagedPictureError(f"the PNG is empty: {width} x {height} pixels by its header")
    stored = width * height * _CHANNELS[colours] * depth // 8
    return width, height, width * height * each, stored


def _one_chunk(pixels: list[memoryview]) -> tuple[bytes | memoryview, ...]:
    """Returns the parts of one IDAT: a decoder spends time on each of thousands."""
    length = struct.pack(">I", sum(map(len, pixels)))
    checksum = zlib.crc32(b"IDAT")
    for part in pixels:
        checksum = zlib.crc32(part, checksum)
    return (length, b"IDAT", *pixels, struct.pack(">I", checksum))

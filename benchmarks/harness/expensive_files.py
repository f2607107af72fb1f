"""Files that cost more to decode than to send.

Source: PNG (ISO/IEC 15948), clauses 5 and 11; JPEG (ITU-T T.81), annex B.
"""

import io
import struct
import zlib
from enum import Enum

from PIL import Image

_START, _END = b"\xff\xd8", b"\xff\xd9"


class Colours(Enum):
    """Kinds of PNG: bits of a sample, the colour type, bytes of a pixel that is white."""

    GREY = (8, 0, b"\xff")
    GREY_16 = (16, 0, b"\xff\xff")
    RGBA = (8, 6, b"\xff\xff\xff\xff")


def png(side: int, colours: Colours) -> bytes:
    """A white square with a dark stroke in its middle, a thousandth of its size as a file.

    Args:
        side: of the square, pixels.
        colours: of its pixels.
    """
    bits, kind, white = colours.value
    empty = b"\0" + white * side
    stroke = bytearray(empty)
    middle = 1 + len(white) * (side // 2)
    stroke[middle : middle + len(white) * 40] = bytes(len(white) * 40)
    # Dark, not transparent.
    if colours is Colours.RGBA:
        stroke[middle + 3 : middle + 160 : 4] = b"\xff" * 40
    squeeze = zlib.compressobj(9)
    parts = [squeeze.compress(bytes(stroke) if row == side // 2 else empty) for row in range(side)]
    size = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            _chunk(b"IHDR", size),
            _chunk(b"IDAT", b"".join(parts) + squeeze.flush()),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_after(part: bytes, size: int) -> bytes:
    """A good JPEG of 64 x 64 with something before its header, as often as it goes into the size.

    Args:
        part: as EMPTY_COMMENT.
        size: of the file at most, bytes.
    """
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(file, "JPEG")
    good = file.getvalue()
    return _START + part * ((size - len(good)) // len(part)) + good[len(_START) :]


EMPTY_COMMENT = b"\xff\xfe\x00\x02"
EMPTY_TABLE = b"\xff\xdb\x00\x02"
FILL_BYTE = b"\xff"
RESTART = b"\xff\xd0"


def arithmetic_coded_empty(side: int) -> bytes:
    """A header that claims a square of three components, arithmetic-coded, and no data at all.

    Args:
        side: of the square, pixels.
    """
    components = (1, 2, 3)
    frame = struct.pack(">BHHB", 8, side, side, len(components))
    frame += b"".join(bytes([component, 0x11, 0]) for component in components)
    scans = [_segment(0xDA, bytes([1, component, 0, 0, 63, 0])) for component in components]
    tables = _segment(0xDB, b"\0" + bytes([1]) * 64)
    return _START + tables + _segment(0xC9, frame) + b"".join(scans) + _END


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

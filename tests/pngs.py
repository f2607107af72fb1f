"""PNGs of every kind, made chunk by chunk."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

#: Where the seven passes of Adam7 begin, and their steps. Source: PNG, 8.1.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_ADAM7 = (*_PASSES, (0, 1, 1, 2))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colours: int = 0, interlace: int = 0) -> bytes:
    """The signature and IHDR."""
    return SIGNATURE + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlace)
    )


def flat_png(
    width: int,
    height: int,
    depth: int = 8,
    colours: int = 0,
    *,
    interlace: bool = False,
    transparent: bytes = b"",
    byte: int = 0x55,
) -> bytes:
    """A whole PNG whose samples all have the same bits; small, whatever its size.

    Args:
        width: columns.
        height: rows.
        depth: bits a sample.
        colours: IHDR's colour type.
        interlace: whether by Adam7.
        transparent: the data of a tRNS chunk.
        byte: of which all rows are made.
    """
    deflate = zlib.compressobj(1)
    data = b""
    for left, top, across, down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            row = b"\0" + bytes([byte]) * -(-columns * CHANNELS[colours] * depth // 8)
            data += deflate.compress(row * rows)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colours == 3 else b""
    key = chunk(b"tRNS", transparent) if transparent else b""
    pixels = chunk(b"IDAT", data + deflate.flush())
    return (
        header(width, height, depth, colours, int(interlace))
        + palette
        + key
        + pixels
        + chunk(b"IEND")
    )

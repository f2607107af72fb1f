"""The orientation of a picture, by its Exif block.

Source: Exif 2.32 (CIPA DC-008), 4.5.4 and 4.6.4 A (byte order, Orientation).
"""

import struct

import numpy as np
import numpy.typing as npt

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4

#: Entries that are read: cameras write fewer than a hundred.
_MOST_ENTRIES = 1024


def orientation(tiff: bytes | memoryview) -> int:
    """Returns the orientation in an Exif block, 1 to 8; 1 where it is missing or makes no sense.

    Exif requires the type SHORT; some programs write LONG, whose meaning is as clear.

    Args:
        tiff: the block, from its byte order on.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None or len(tiff) < 8:
        return 1
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    if first + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    end = min(first + 2 + 12 * min(count, _MOST_ENTRIES), len(tiff) - 11)
    for offset in range(first + 2, end, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, offset)
        if tag == _ORIENTATION:
            if kind not in (_SHORT, _LONG):
                return 1
            form = "H" if kind == _SHORT else "I"
            (value,) = struct.unpack_from(f"{order}{form}", tiff, offset + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Returns the picture upright.

    Args:
        pixels: uint8 [H, W] or [H, W, C], as stored.
        orientation: 1 to 8.

    Returns:
        The same pixels turned and mirrored, contiguous; rows and columns change from 5 on.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)

"""IDX, the file format of MNIST: a magic number, the sizes of the axes, then the bytes.

Source: LeCun, Cortes, Burges: "The MNIST database of handwritten digits", file formats: two zero
bytes, 0x08 for unsigned bytes, the number of axes, then each size as a big-endian 32-bit integer.
"""

import math
import struct

import numpy as np
import numpy.typing as npt

from convserve_imaging.errors import DatasetError

UNSIGNED_BYTES = 0x08
MOST_AXES = 4  # [N, H, W, C]
LONGEST_HEADER = 4 + 4 * MOST_AXES


def header(shape: tuple[int, ...]) -> bytes:
    """Returns the first bytes of an IDX file of that shape."""
    return struct.pack(f">{1 + len(shape)}I", UNSIGNED_BYTES << 8 | len(shape), *shape)


def size(shape: tuple[int, ...]) -> int:
    """Returns the length in bytes of an IDX file of that shape."""
    return len(header(shape)) + math.prod(shape)


def decode(data: bytes, shape: tuple[int, ...], name: str) -> npt.NDArray[np.uint8]:
    """Returns the array in an IDX file: uint8 of `shape`, 0 to 255, read-only.

    Args:
        data: the whole file, decompressed.
        shape: what it must hold.
        name: of the file, for messages.

    Raises:
        DatasetError: other magic number, sizes or length.
    """
    expected = header(shape)
    found = data[: len(expected)]
    if found[:4] != expected[:4]:
        raise DatasetError(
            f"{name}: expected an IDX file of bytes with {len(shape)} axes, which begins with "
            f"{expected[:4].hex()}, got {found[:4].hex() or 'nothing'}"
        )
    if len(found) == len(expected) and found != expected:
        sizes = struct.unpack(f">{len(shape)}I", found[4:])
        raise DatasetError(f"{name}: expected {_times(shape)}, got {_times(sizes)}")
    if len(data) != size(shape):
        raise DatasetError(f"{name}: expected {size(shape):,} bytes, got {len(data):,}")
    return np.frombuffer(data, dtype=np.uint8, offset=len(expected)).reshape(shape)


def read_shape(head: bytes, name: str) -> tuple[int, ...]:
    """Returns the sizes of the axes of the array in an IDX file.

    Args:
        head: the file's first `LONGEST_HEADER` bytes, or all that it has.
        name: of the file, for messages.

    Raises:
        DatasetError: it is not an IDX file of bytes with one to four axes.
    """
    magic, axes = head[:3], head[3] if len(head) > 3 else 0
    if magic != bytes([0, 0, UNSIGNED_BYTES]) or not 1 <= axes <= MOST_AXES:
        raise DatasetError(
            f"{name}: expected an IDX file of bytes, which begins with 000008 and its number of "
            f"axes, 01 to {MOST_AXES:02}, got {head[:4].hex() or 'nothing'}"
        )
    if len(head) < 4 + 4 * axes:
        raise DatasetError(f"{name}: ends within its header")
    return struct.unpack(f">{axes}I", head[4 : 4 + 4 * axes])


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))

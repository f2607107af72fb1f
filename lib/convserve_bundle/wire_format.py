"""Reads the fields of a protobuf message in a file, without its classes, and skips what is large.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import BinaryIO

from convserve_bundle.errors import BundleError

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
#: Most bytes of a number.
_MOST_VARINT = 10

NO_ONNX = "not an ONNX file"


def fields(file: BinaryIO, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, wire type and length of each field; the caller reads or skips its content.

    Args:
        file: At the beginning of the message.
        end: Of the message, as a position in the file.
        most: Fields.

    Raises:
        BundleError: It is not a message, or has more fields.
    """
    for _ in range(most):
        if file.tell() == end:
            return
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _varint(file)
            length = 0
        elif kind in (FIXED_64, FIXED_32):
            length = 8 if kind == FIXED_64 else 4
        elif kind == BYTES:
            length = _varint(file)
        else:
            raise BundleError(NO_ONNX)
        if not number or file.tell() + length > end:
            raise BundleError(NO_ONNX)
        yield number, kind, length
    raise BundleError(f"{NO_ONNX}: expected at most {most} fields")


def _varint(file: BinaryIO) -> int:
    value = 0
    for index in range(_MOST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise BundleError(NO_ONNX)
